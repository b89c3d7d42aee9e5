"""One piece is made while the one before is used."""

from __future__ import annotations

import threading

import pytest

from srquant.support.ahead import ahead


@pytest.mark.parametrize("numbers", [range(0), range(3, 4), range(2, 7)])
def test_all_are_made_in_order(numbers: range) -> None:
    with ahead(lambda number: number * number, numbers) as made:
        assert list(made) == [number * number for number in numbers]


def test_the_next_is_made_meanwhile_and_no_more_than_that() -> None:
    started = {number: threading.Event() for number in range(5)}

    def make(number: int) -> int:
        started[number].set()
        return number

    with ahead(make, range(5)) as made:
        assert next(made) == 0
        assert started[1].wait(10)
        assert not started[2].is_set()
        assert next(made) == 1
        assert started[2].wait(10)


def test_what_goes_wrong_is_raised_where_it_is_asked_for() -> None:
    def make(number: int) -> int:
        if number == 1:
            raise OSError("gone")
        return number

    with ahead(make, range(3)) as made:
        assert next(made) == 0
        with pytest.raises(OSError, match="gone"):
            next(made)
