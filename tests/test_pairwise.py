from __future__ import annotations

from itertools import combinations, product
from math import prod

import pytest

from tests.pairwise import every_pair, pairwise_cover


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3), (2, 2, 2), (13, 7, 13), (4, 7, 13), (9, 2, 2, 2), (5, 1, 4, 3, 2)])
def test_every_pair_is_covered_by_few_cases(sizes: tuple[int, ...]) -> None:
    cover = pairwise_cover(*sizes)
    for one, two in combinations(range(len(sizes)), 2):
        wanted = set(product(range(sizes[one]), range(sizes[two])))
        assert {(case[one], case[two]) for case in cover} == wanted
    assert len(set(cover)) == len(cover) <= prod(sizes)
    largest, second = sorted(sizes, reverse=True)[:2]
    assert len(cover) <= 1.5 * largest * second, "no cover has fewer cases than the largest two parameters have pairs"


def test_the_whole_product_is_there_and_what_is_not_covered_is_marked() -> None:
    cases = every_pair(a="xyz", b=(1, 2), c=(True, False)).args[1]
    assert [case.id for case in cases[:3]] == ["x-1-True", "x-1-False", "x-2-True"]
    assert [case.values for case in cases] == list(product("xyz", (1, 2), (True, False)))
    stay = [case.values for case in cases if not case.marks]
    assert len(stay) == len(pairwise_cover(3, 2, 2)) < len(cases)
    assert {mark.name for case in cases for mark in case.marks} == {"exhaustive"}
