"""PercentileRange, computed exactly and in few passes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srquant.quantizers.numerics.sorted_values import sort, subsample
from srquant.quantizers.ranges.base import Bounds, UniformRange
from srquant.support.errors import ArgumentError
from srquant.support.tensors import as_tensor

_ENOUGH = 1 << 20
"""Values that pin down a quantile: the 99th percentile of a million is off by 0.01 percentage points."""
_SAMPLE = 1 << 16
"""Values that are looked at to find out roughly where a quantile lies."""


@dataclass(frozen=True)
class PercentileRange(UniformRange):
    """lower and upper cut off a part of the values on each side.

    Args:
        quantile: 0.99 puts the bounds at the 1st and 99th percentile (the Percentile row of OAPTQ).
    """

    name = "percentile"

    quantile: float = 0.99

    def __post_init__(self) -> None:
        if not 0.5 < self.quantile <= 1:
            raise ArgumentError(f"quantile={self.quantile} is outside (0.5, 1]; 0.99 is the 99th percentile")

    def __call__(self, rows: Tensor) -> Bounds:
        rows = subsample(rows, _ENOUGH)
        return {"lower": quantile(rows, 1 - self.quantile), "upper": quantile(rows, self.quantile)}

    @classmethod
    def of_weights(cls, rows: Tensor, bits: int, *, symmetric: bool) -> Bounds:
        return cls()(rows.abs() if symmetric else rows)


def quantile(rows: Tensor, q: float, *, magnitude: bool = False) -> Tensor:
    """The q-quantile of each row, interpolated linearly between neighbours.

    Exact up to 11 million values in a row; longer rows are subsampled to no fewer than a million first.
    (``torch.quantile`` refuses more than 16 million values and sorts them all.)

    Args:
        rows: ``r n``.
        q: In [0, 1].
        magnitude: Take the quantile of the magnitudes.

    Returns:
        ``(r,)``.
    """
    rows = subsample(rows, _ENOUGH)
    if magnitude:
        rows = rows.abs()
    rank = q * (rows.shape[1] - 1)
    low, fraction = math.floor(rank), rank - math.floor(rank)
    high = min(low + 1, rows.shape[1] - 1)
    if rows.device.type == "cpu":
        found = np.stack([_ranked(row, low, high) for row in rows.detach().numpy()])
        below, above = as_tensor(found).unbind(1)
    else:
        ordered = sort(rows)
        below, above = ordered[:, low], ordered[:, high]
    return torch.lerp(below, above, fraction)


def _ranked(values: NDArray[np.float32], low: int, high: int) -> NDArray[np.float32]:
    """The values of two neighbouring ranks.

    In a tail, where quantiles are usually asked for, a sample tells from where on to look, and only what lies there is
    sorted. If the sample misled, and elsewhere, everything is partitioned.
    """
    count = len(values)
    if count >= 8 * _SAMPLE and min(low, count - 1 - high) < count // 16:
        found = _ranked_in_tail(values, low, high, upper=low > count // 2)
        if found is not None:
            return found
    return np.partition(values, (low, high))[[low, high]]


def _ranked_in_tail(values: NDArray[np.float32], low: int, high: int, *, upper: bool) -> NDArray[np.float32] | None:
    count = len(values)
    sample = np.sort(values[:: count // _SAMPLE])
    outside = (count - 1 - low if upper else high) / count  # part of the values that lie further out
    margin = 6 * math.sqrt(outside * (1 - outside) / len(sample)) + 4 / len(sample)
    index = min(int((outside + margin) * len(sample)), len(sample) - 1)
    start = sample[-1 - index] if upper else sample[index]
    if start == (values.max() if upper else values.min()):  # as zero is after a ReLU: all of the tail is this value
        further = count - high if upper else low + 1
        enough = np.count_nonzero(values == start) >= further + (high - low)
        return np.array([start, start]) if enough else None
    tail = values[values >= start] if upper else values[values <= start]
    skipped = count - len(tail) if upper else 0
    if low < skipped or high >= skipped + len(tail):
        return None
    tail.sort()
    return tail[[low - skipped, high - skipped]]
