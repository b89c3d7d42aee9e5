"""Range and breakpoint of a piecewise-linear quantizer by least squared error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from srquant.quantizers.numerics.sorted_values import SortedValues, subsample
from srquant.quantizers.ranges.base import Bounds
from srquant.quantizers.ranges.min_max import MinMaxRange

Levels = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Increasing levels, ``r c k``, of candidate bounds ``r c``: lower, upper, breakpoint."""

_FACTORS = 64
_NEAR = (0.8, 0.87, 0.92, 0.95, 0.97, 0.985, 1.015, 1.03, 1.05, 1.08, 1.13, 1.2)
_ROUNDS = 6


@dataclass(frozen=True)
class PiecewiseSearch:
    """Lower and upper bound and breakpoint with the least squared error on the values.

    First all pairs of a common clipping factor and a breakpoint, coarsely; then each of the three alone, in turn, over
    its whole range and near its present value, until nothing improves. Every candidate's error is exact on the values
    looked at and costs as many look-ups as there are levels.

    Source: ours; OAPTQ takes the extremes and a percentile.

    Args:
        levels: The quantizer's levels.
        samples: Values of a row that are enough; longer rows are subsampled.
    """

    levels: Levels
    samples: int = 1 << 16

    def __call__(self, rows: Tensor) -> Bounds:
        return self.among(self.ordered(rows), MinMaxRange()(rows))

    def ordered(self, rows: Tensor) -> SortedValues:
        """The values that are looked at."""
        return SortedValues(subsample(rows, self.samples))

    def among(self, ordered: SortedValues, extremes: Bounds) -> Bounds:
        """The bounds for values that are sorted already, and the extremes of all of them."""
        widest = extremes["lower"], extremes["upper"], torch.maximum(*(value.abs() for value in extremes.values()))
        like = widest[0]
        fractions = torch.arange(1, _FACTORS + 1, dtype=like.dtype, device=like.device) / _FACTORS
        near = torch.tensor(_NEAR, dtype=like.dtype, device=like.device)
        clips, bends = fractions[3::6].repeat_interleave(_FACTORS // 2), fractions[1::2].repeat(len(fractions[3::6]))
        coarse = [end[:, None] * factor for end, factor in zip(widest, (clips, clips, clips * bends), strict=True)]
        full = [end[:, None] for end in (*widest[:2], 0.1 * widest[2])]
        best, error = [end[:, 0] for end in full], torch.full_like(like, torch.inf)
        for candidates in (full, coarse):
            best, error = ordered.better(self.levels(*candidates), candidates, best, error)
        for _ in range(_ROUNDS):
            before = error
            for bound in (2, 1, 0):
                tries = torch.cat((widest[bound][:, None] * fractions, best[bound][:, None] * near), 1)
                trial = [value[:, None].expand_as(tries) for value in best]
                trial[bound] = tries
                best, error = ordered.better(self.levels(*trial), trial, best, error)
            if torch.equal(before, error):
                break
        return dict(zip(("lower", "upper", "breakpoint"), best, strict=True))
