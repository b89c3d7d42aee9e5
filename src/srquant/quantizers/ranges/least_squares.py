"""Bounds of least squared error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from srquant.quantizers.numerics.grid import grid_levels
from srquant.quantizers.numerics.integers import Grid, uniform_knots
from srquant.quantizers.numerics.sorted_values import SortedValues, subsample
from srquant.quantizers.ranges.base import Bounds
from srquant.quantizers.ranges.min_max import MinMaxRange


@dataclass(frozen=True)
class LeastSquares:
    """The bounds of the uniform quantizer with the least squared error on the values.

    Both ends are scaled towards zero (towards the end nearer to zero, where all values have one sign). Some pairs
    of factors, evenly chosen, are tried first; then each end alone, in turn, with all factors, until nothing improves.
    Every candidate's error is exact on the values looked at.

    Source: the MSE row of OAPTQ, which names no search; this is the usual one over clipping factors.

    Args:
        bits: Of the quantizer.
        symmetric: Search [-u, u] instead of [l, u].
        grid: Where levels lie; ``int8`` searches among such quantizers that lie on integers. Symmetric ones do.
        candidates: Clipping factors 1/candidates, 2/candidates, … 1.
        samples: Values of a row that are enough; longer rows are subsampled.
    """

    bits: int
    symmetric: bool = False
    grid: Grid = "free"
    candidates: int = 100
    samples: int = 1 << 18

    def __call__(self, rows: Tensor) -> Bounds:
        extremes = MinMaxRange()(rows)
        low, high = extremes["lower"], extremes["upper"]
        if self.symmetric:
            high = torch.maximum(-low, high)
            low = -high
        ordered = SortedValues(subsample(rows, self.samples))
        factors = torch.arange(1, self.candidates + 1, dtype=rows.dtype, device=rows.device) / self.candidates
        centre = torch.minimum(torch.maximum(torch.zeros_like(low), low), high)
        lows = centre[:, None] + (low - centre)[:, None] * factors
        highs = centre[:, None] + (high - centre)[:, None] * factors
        error = torch.full_like(low, torch.inf, dtype=torch.float64)
        # The error is rugged where levels are few, and smooth (but dear) where they are many.
        stride = max(self.candidates // (25 if self.bits <= 4 else 10), 1)
        coarse = slice((self.candidates - 1) % stride, None, stride)  # ends with the factor 1
        if self.symmetric:
            pairs = lows, highs
        else:
            count = lows[:, coarse].shape[1]
            pairs = lows[:, coarse].repeat_interleave(count, 1), highs[:, coarse].repeat(1, count)
        low, high, error = self._best(ordered, *pairs, low, high, error)
        for _ in range(0 if self.symmetric else 3):
            before = error
            low, high, error = self._best(ordered, low[:, None].expand_as(highs), highs, low, high, error)
            low, high, error = self._best(ordered, lows, high[:, None].expand_as(lows), low, high, error)
            if torch.equal(before, error):
                break
        return {"lower": low, "upper": high}

    def _best(
        self, ordered: SortedValues, lows: Tensor, highs: Tensor, low: Tensor, high: Tensor, error: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best of the candidates ``r c`` and what was best before."""
        if self.grid == "int8" and not self.symmetric:
            intervals = ((1 << self.bits) - 1,)
            errors = ordered.squared_error(grid_levels(uniform_knots(lows, highs, intervals), intervals))
        else:
            errors = uniform_errors(ordered, lows, highs, self.bits)
        least, index = errors.min(1)
        better = least < error
        pick = index[:, None]
        return (
            torch.where(better, lows.gather(1, pick)[:, 0], low),
            torch.where(better, highs.gather(1, pick)[:, 0], high),
            torch.where(better, least, error),
        )


def uniform_errors(ordered: SortedValues, lows: Tensor, highs: Tensor, bits: int) -> Tensor:
    """Sum of squared errors of the uniform quantizer with each of the bounds ``r c``; ``r c``, float64."""
    return ordered.squared_error(grid_levels(torch.stack((lows, highs), -1), ((1 << bits) - 1,)))
