"""Codes of any quantizer as a sum of scales times integers: what an exact computation multiplies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from srquant.quantizers import Quantizer
from srquant.quantizers.channel_shift import Shifted

_UNITS = 1 << 24
"""In the largest shift: as finely as float32 tells values of that size apart."""


@dataclass(frozen=True)
class Term:
    """``scale · integers``: part of a quantized tensor.

    Args:
        scale: Shape ``()``, or ``(c,)`` along an axis of the tensor; constant over all axes that a layer sums over.
        integers: int64, in the tensor's shape.
        axis: Of the tensor, along which scales of shape ``(c,)`` lie.
    """

    scale: Tensor
    integers: Tensor
    axis: int = 0

    def values(self) -> Tensor:
        """The part as real numbers, float64."""
        scale = self.scale.double()
        return self.integers * (scale.reshape(-1, *[1] * (self.integers.ndim - 1 - self.axis)) if scale.ndim else scale)


def terms(quantizer: Quantizer, codes: Tensor) -> list[Term]:
    """Codes as the sum of :class:`Term` that decodes to the same values.

    On integers that is one term. Elsewhere it is one for the lowest level, whose integers are all one, and one for each
    segment, whose integers count the intervals of it that lie below the code::

        decode(code) = e_0 · 1 + Σ_i size_i · clamp(code − c_i, 0, n_i),   c_i = Σ_{j<i} n_j

    so a uniform quantizer has two, a piecewise-linear one three or four. A shift goes into the lowest level's, in units
    finer than float32's rounding.
    """
    grid = Quantizer.integer_grid(quantizer)
    axis = quantizer.axis
    if grid is not None:
        found = [Term(grid.scale, grid.integers(codes), axis)]
    else:
        knots = quantizer.knots().detach().double()
        found = [Term(knots[..., 0], torch.ones_like(codes, dtype=torch.int64), axis)]
        for i, count in enumerate(quantizer.intervals):
            part = (codes.long() - sum(quantizer.intervals[:i])).clamp(0, count)
            found.append(Term((knots[..., i + 1] - knots[..., i]) / count, part, axis))
    if not isinstance(quantizer, Shifted):
        return found
    shift = quantizer.shift.detach().double()
    if grid is None:
        shift = shift + found.pop(0).scale
    unit = shift.abs().max().clamp(min=torch.finfo(torch.float32).tiny) / _UNITS
    return [Term(unit, (shift / unit).round().long().expand(codes.shape)), *found]
