"""Bounds of least squared error among a few, both ends shrunk by one factor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from srquant.quantizers.numerics.integers import Grid
from srquant.quantizers.numerics.sorted_values import SortedValues, subsample
from srquant.quantizers.ranges.base import Bounds, UniformRange, mirrored
from srquant.quantizers.ranges.least_squares import uniform_levels
from srquant.quantizers.ranges.min_max import MinMaxRange


@dataclass(frozen=True)
class JointShrink(UniformRange):
    """Of the extremes times ``1 − 0.01·i``, i = 0 … K − 1, the pair with the least squared error.

    Both ends shrink together, so a range that is far from zero on one side stays so; :class:`LeastSquares` moves each
    end alone and errs less.

    Source: AdaBM's released code, which the MSE row of OAPTQ stands on: K = 90 for activations, 50 for weights. Of
    equal errors the first wins.

    Args:
        bits: Of the uniform quantizer.
        candidates: K, at most 100.
        grid: Where levels lie.
        samples: Values of a row that are enough; longer rows are subsampled. The extremes are those of the whole row.
    """

    name = "joint_shrink"

    bits: int
    candidates: int = 90
    grid: Grid = "free"
    samples: int = 1 << 18

    def __call__(self, rows: Tensor) -> Bounds:
        lower, upper = MinMaxRange()(rows).values()
        return self.shrunk(rows, lower, upper)

    def shrunk(self, rows: Tensor, lower: Tensor, upper: Tensor) -> Bounds:
        """The same, of other bounds of each row than its extremes, ``(r,)``."""
        factors = 1 - torch.arange(self.candidates, dtype=rows.dtype, device=rows.device) / 100
        lows, highs = (end[:, None] * factors for end in (lower, upper))
        errors = SortedValues(subsample(rows, self.samples)).squared_error(
            uniform_levels(lows, highs, self.bits, self.grid)
        )
        pick = errors.argmin(1, keepdim=True)
        return {"lower": lows.gather(1, pick)[:, 0], "upper": highs.gather(1, pick)[:, 0]}

    @classmethod
    def of_weights(cls, rows: Tensor, bits: int, *, symmetric: bool) -> Bounds:
        return cls(bits, candidates=50)(mirrored(rows) if symmetric else rows)
