"""Work done in the background, one piece ahead of who asks for it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(make: Callable[[int], T], numbers: range) -> Generator[Iterator[T]]:
    """What is made of each number, in order; the next is made while the present one is used."""

    def made(pool: ThreadPoolExecutor) -> Iterator[T]:
        if not numbers:
            return
        following = pool.submit(make, numbers[0])
        for after in numbers[1:]:
            ready = following.result()
            following = pool.submit(make, after)
            yield ready
        yield following.result()

    with ThreadPoolExecutor(1) as pool:
        yield made(pool)
