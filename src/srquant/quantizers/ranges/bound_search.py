"""Bounds of least squared error among a hundred pairs, each a little narrower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from srquant.quantizers.numerics.sorted_values import SortedValues, subsample
from srquant.quantizers.ranges.base import Bounds, UniformRange, mirrored
from srquant.quantizers.ranges.least_squares import uniform_levels
from srquant.quantizers.ranges.min_max import MinMaxRange

Ends = Literal["both", "upper", "auto"]


@dataclass(frozen=True)
class BoundSearch(UniformRange):
    """Distribution-oriented bound initialisation (DOBI): of K pairs of bounds the one with ``‖x − x̂‖₂`` least.

    With m = min x, M = max x and i = 0 … K − 1 the candidates are

    - ``both`` (two-sided, for roughly symmetric values): ``l = m + i·(M − m)/2K``, ``u = M − i·(M − m)/2K``;
    - ``upper`` (one-sided, for values that crowd at their lower end): ``l = m``, ``u = M − i·(M − m)/2K``, which ends
      at the middle of the range;
    - ``auto``: ``upper`` for rows without a value below zero, ``both`` for the others.

    Of equal errors the last wins. Every candidate's error is exact on the values looked at and costs 2^bits look-ups
    instead of a pass over them.

    Source: 2DQuant, algorithm 1 (which prints a plus sign; shrinking is meant). The released code has the one-sided
    search but never takes it.

    Args:
        bits: Of the uniform quantizer.
        ends: Which ends move.
        candidates: K.
        samples: Values of a row that are enough; longer rows are subsampled. The extremes are those of the whole row.
    """

    name = "bound_search"

    bits: int
    ends: Ends = "both"
    candidates: int = 100
    samples: int = 1 << 18

    def __call__(self, rows: Tensor) -> Bounds:
        lower, upper = MinMaxRange()(rows).values()
        ordered = SortedValues(subsample(rows, self.samples))
        fractions = torch.arange(self.candidates, dtype=rows.dtype, device=rows.device) / self.candidates
        shrink = (upper - lower)[:, None] * fractions / 2
        fixed = lower >= 0 if self.ends == "auto" else torch.full_like(lower, self.ends == "upper", dtype=torch.bool)
        lows, highs = lower[:, None] + torch.where(fixed[:, None], 0, shrink), upper[:, None] - shrink
        errors = ordered.squared_error(uniform_levels(lows, highs, self.bits))
        pick = self.candidates - 1 - errors.flip(1).argmin(1, keepdim=True)
        return {"lower": lows.gather(1, pick)[:, 0], "upper": highs.gather(1, pick)[:, 0]}

    @classmethod
    def of_weights(cls, rows: Tensor, bits: int, *, symmetric: bool) -> Bounds:
        return cls(bits)(mirrored(rows) if symmetric else rows)
