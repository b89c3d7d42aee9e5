"""Levels for values whose channels are centred first, where that is better."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from srquant.quantizers.ranges.base import Bounds, OfChannels
from srquant.quantizers.ranges.lloyd_max import LloydMax


@dataclass(frozen=True)
class ChannelShift(OfChannels):
    """Levels as they are and levels of channels minus their means, with the squared errors of both.

    Gives ``levels`` and ``error`` as :class:`~srquant.quantizers.ranges.LloydMax` does, ``centred_levels`` and
    ``centred_error`` for the centred values, and ``shift``, ``1 c``, the means. All are numbers that can be averaged
    over batches; which levels are better is decided at the end. One channel has nobody to be told apart from: only
    levels as they are.

    Args:
        levels: Finds levels.
    """

    levels: LloydMax

    def __call__(self, rows: Tensor) -> Bounds:
        if len(rows) == 1:
            return self.levels(rows)
        shift = rows.mean(1)
        plain, centred = (self.levels(values.reshape(1, -1)) for values in (rows, rows - shift[:, None]))
        return {**plain, **{f"centred_{name}": value for name, value in centred.items()}, "shift": shift[None]}
