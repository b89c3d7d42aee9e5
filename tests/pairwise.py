"""Thinning of products of parameters: every pair of values stays in ``make test``, the rest is for ``make test-all``.

A fault that needs one value, or two values together, is found by the cases that stay.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from itertools import combinations, product

import pytest


@cache
def pairwise_cover(*sizes: int) -> tuple[tuple[int, ...], ...]:
    """Few cases in which every pair of values of two parameters is together at least once.

    Greedy: each case starts with a pair that is still missing and takes, of every other parameter, the value that
    completes the most missing pairs; of equal ones the value used least so far, then the first. Not always the fewest
    cases that would do, but close, and always the same.

    Args:
        sizes: How many values each parameter has; at least two parameters, at least one value each.

    Returns:
        Cases in the order in which they were found: of each parameter, the place of its value.
    """
    widest_first = sorted(combinations(range(len(sizes)), 2), key=lambda pair: -sizes[pair[0]] * sizes[pair[1]])
    missing = {  # a dictionary, for its order
        ((one, a), (two, b)): True for one, two in widest_first for a in range(sizes[one]) for b in range(sizes[two])
    }
    uses = [[0] * size for size in sizes]
    cover: list[tuple[int, ...]] = []
    while missing:
        chosen = dict(next(iter(missing)))
        for parameter, size in enumerate(sizes):
            if parameter in chosen:
                continue

            def worth(value: int, parameter: int = parameter, chosen: dict[int, int] = chosen) -> tuple[int, int]:
                pairs = (tuple(sorted(((parameter, value), other))) for other in chosen.items())
                return sum(pair in missing for pair in pairs), -uses[parameter][value]

            chosen[parameter] = max(range(size), key=worth)
        case = tuple(chosen[parameter] for parameter in range(len(sizes)))
        for pair in combinations(enumerate(case), 2):
            missing.pop(pair, None)
        for parameter, value in enumerate(case):
            uses[parameter][value] += 1
        cover.append(case)
    return tuple(cover)


def every_pair(**parameters: Collection[object]) -> pytest.MarkDecorator:
    """Parametrize a test by a whole product of which only a pairwise cover is run by default.

    The other cases carry the marker ``exhaustive``.

    Args:
        parameters: The values of each of the test's parameters.
    """
    values = [list(choices) for choices in parameters.values()]
    cover = set(pairwise_cover(*map(len, values)))
    cases = []
    for places in product(*(range(len(choices)) for choices in values)):
        case = [choices[place] for choices, place in zip(values, places, strict=True)]
        named = zip(parameters, places, case, strict=True)
        title = "-".join(
            str(value) if isinstance(value, str | int | float) else f"{name}{place}" for name, place, value in named
        )
        cases.append(pytest.param(*case, marks=() if places in cover else pytest.mark.exhaustive, id=title))
    return pytest.mark.parametrize(list(parameters), cases)
