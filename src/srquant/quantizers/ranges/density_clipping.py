"""The values that are left when the emptier end of a histogram is cut off again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from srquant.quantizers.ranges.base import Bounds, UniformRange
from srquant.quantizers.ranges.min_max import MinMaxRange

_PIECE = 1 << 22
"""Values that are counted together: float32 counts are exact up to four times as many."""


@dataclass(frozen=True)
class DensityClipping(UniformRange):
    """Density-based dual clipping (DBDC): of a histogram between the extremes the end with fewer values is dropped, bin
    by bin, until no more than ``1 − tail`` of the values are kept. Of two ends with equally many the upper goes.

    Source: PTQ4SR, density-based dual clipping; its released code (2048 bins). Differs: the code counts the edges of
    bins from 1 on both sides, so that its lower bound lies a bin too high; ``as_released`` does the same.

    Args:
        tail: Part of the values that is cut off, about.
        bins: Of the histogram.
        as_released: Whether the lower bound lies a bin too high.
    """

    name = "density_clipping"

    tail: float = 1e-4
    bins: int = 2048
    as_released: bool = False

    def __call__(self, rows: Tensor) -> Bounds:
        lower, upper = MinMaxRange()(rows).values()
        width = (upper - lower) / self.bins
        steps = torch.tensor([self._kept(*row) for row in zip(rows, lower, upper, strict=True)]).to(rows)
        return {
            "lower": (lower + (steps[:, 0] + self.as_released) * width).minimum(upper),
            "upper": torch.where(steps[:, 1] == self.bins, upper, lower + steps[:, 1] * width),
        }

    def _kept(self, row: Tensor, lower: Tensor, upper: Tensor) -> tuple[int, int]:
        """The first bin that is kept, and the first above it that is not."""
        low, high = float(lower), float(upper)
        first, end = 0, self.bins
        if not bool((upper - lower).isfinite()) or high <= low:
            return first, end
        total = torch.zeros(self.bins, dtype=torch.float64, device=row.device)
        for piece in torch.split(row, _PIECE):
            total += torch.histc(piece.float(), self.bins, low, high)
        counts = cast(list[float], total.tolist())
        dropped, most = 0.0, self.tail * row.numel()
        while dropped < most and end - first > 1:
            if counts[first] < counts[end - 1]:
                dropped += counts[first]
                first += 1
            else:
                end -= 1
                dropped += counts[end]
        return first, end
