"""Bounds of least squared error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from srquant.quantizers.numerics.grid import grid_levels
from srquant.quantizers.numerics.integers import Grid, uniform_knots
from srquant.quantizers.numerics.sorted_values import SortedValues, subsample
from srquant.quantizers.ranges.base import Bounds, UniformRange
from srquant.quantizers.ranges.min_max import MinMaxRange


@dataclass(frozen=True)
class LeastSquares(UniformRange):
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

    name = "least_squares"

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
        best, error = [low, high], torch.full_like(low, torch.inf, dtype=torch.float64)
        # The error is rugged where levels are few, and smooth (but dear) where they are many.
        stride = max(self.candidates // (25 if self.bits <= 4 else 10), 1)
        coarse = slice((self.candidates - 1) % stride, None, stride)  # ends with the factor 1
        if self.symmetric:
            pairs = lows, highs
        else:
            count = lows[:, coarse].shape[1]
            pairs = lows[:, coarse].repeat_interleave(count, 1), highs[:, coarse].repeat(1, count)
        grid: Grid = "free" if self.symmetric else self.grid
        best, error = ordered.better(uniform_levels(*pairs, self.bits, grid), pairs, best, error)
        for _ in range(0 if self.symmetric else 3):
            before = error
            for end in (1, 0):
                moved = [number[:, None].expand_as(lows) for number in best]
                moved[end] = (lows, highs)[end]
                best, error = ordered.better(uniform_levels(moved[0], moved[1], self.bits, grid), moved, best, error)
            if torch.equal(before, error):
                break
        return {"lower": best[0], "upper": best[1]}

    @classmethod
    def of_weights(cls, rows: Tensor, bits: int, *, symmetric: bool) -> Bounds:
        return cls(bits, symmetric)(rows)


def uniform_levels(lows: Tensor, highs: Tensor, bits: int, grid: Grid = "free") -> Tensor:
    """The levels ``r c k`` of the uniform quantizer with each of the bounds ``r c``."""
    intervals = ((1 << bits) - 1,)
    knots = uniform_knots(lows, highs, intervals) if grid == "int8" else torch.stack((lows, highs), -1)
    return grid_levels(knots, intervals)
