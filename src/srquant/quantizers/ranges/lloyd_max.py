"""Levels of least squared error, free of any formula."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from srquant.quantizers.ranges.base import Bounds
from srquant.quantizers.ranges.min_max import MinMaxRange
from srquant.quantizers.ranges.piecewise_search import PiecewiseSearch


@dataclass(frozen=True)
class LloydMax:
    """Levels that are the means of the values nearest to them.

    Starts from the levels of a piecewise-linear quantizer, which know outliers, and moves every level to the mean of
    its values until none moves by more than a ten-thousandth of the range. No round makes the squared error larger.

    Gives ``levels``, ``r k``, and ``error``, their mean squared error.

    Source: S. P. Lloyd, "Least squares quantization in PCM", 1982; J. Max, "Quantizing for minimum distortion", 1960.

    Args:
        start: Gives the bounds and levels to start from, and says how many values are looked at.
        rounds: At most.
    """

    start: PiecewiseSearch
    rounds: int = 100

    def __call__(self, rows: Tensor) -> Bounds:
        ordered = self.start.ordered(rows)
        bounds = self.start.among(ordered, MinMaxRange()(rows))
        levels = self.start.levels(*(bounds[name][:, None] for name in ("lower", "upper", "breakpoint")))
        levels = levels[:, 0].sort(dim=-1).values
        reach = (bounds["upper"] - bounds["lower"])[:, None]
        for _ in range(self.rounds):
            moved = ordered.means(levels)
            if bool(((moved - levels).abs() <= 1e-4 * reach).all()):
                break
            levels = moved
        error = ordered.squared_error(levels[:, None])[:, 0] / ordered.values.shape[1]
        return {"levels": levels, "error": error.to(levels.dtype)}
