"""The smallest and the largest value."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from srquant.quantizers.ranges.base import Bounds, UniformRange


@dataclass(frozen=True)
class MinMaxRange(UniformRange):
    """lower = min x, upper = max x. Source: the MinMax row of OAPTQ."""

    name = "min_max"

    def __call__(self, rows: Tensor) -> Bounds:
        extremes = rows.aminmax(dim=1) if len(rows) > 1 else rows[0].aminmax()
        return {"lower": extremes.min.reshape(-1), "upper": extremes.max.reshape(-1)}
