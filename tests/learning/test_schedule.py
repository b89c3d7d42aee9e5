"""How rates rise and fall."""

from __future__ import annotations

import math

import pytest

from srquant.learning.schedule import cosine, exponential, warmup


def test_a_cosine_falls_to_its_end() -> None:
    for end in (0.0, 0.01):
        values = [cosine(step / 20, end) for step in range(21)]
        assert values == sorted(values, reverse=True)
        assert (values[0], values[20]) == (1, end)
        assert values[10] == pytest.approx((1 + end) / 2)
        assert values[5] == pytest.approx(end + (1 - end) * (1 + math.sqrt(0.5)) / 2)


def test_an_exponential_falls_with_the_epochs() -> None:
    assert [exponential(epoch, 0.5) for epoch in range(4)] == [1, 0.5, 0.25, 0.125]


def test_a_warmup_rises_to_one() -> None:
    assert [warmup(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warmup(0, 0) == 1
