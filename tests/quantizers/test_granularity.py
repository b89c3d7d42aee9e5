"""Which values share their bounds."""

from __future__ import annotations

import pytest
import torch

from srquant.quantizers import PerChannel, PerTensor
from srquant.support.errors import ArgumentError


def test_a_tensor_is_one_row() -> None:
    weight = torch.randn(64, 3, 5, 5)
    rows = PerTensor().rows(weight)
    assert rows.shape == (1, 4800)
    assert PerTensor().bounds(rows.amax(1)).shape == ()
    assert bool((weight <= PerTensor().along(weight.max(), weight)).all())


@pytest.mark.parametrize(("axis", "shape"), [(0, (64, 75)), (1, (3, 1600)), (3, (5, 960))])
def test_a_channel_is_a_row(axis: int, shape: tuple[int, int]) -> None:
    weight = torch.randn(64, 3, 5, 5)
    granularity = PerChannel(axis)
    rows = granularity.rows(weight)
    assert rows.shape == shape
    assert torch.equal(rows[2], weight.select(axis, 2).flatten())
    largest = granularity.bounds(rows.amax(1))
    others = [other for other in range(4) if other != axis]
    assert torch.equal(granularity.along(largest, weight), weight.amax(others, keepdim=True))


def test_axes_are_counted_from_the_first() -> None:
    with pytest.raises(ArgumentError, match="axis=-1 is below 0"):
        PerChannel(-1)
