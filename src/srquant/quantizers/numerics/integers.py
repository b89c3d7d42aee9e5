"""Grids on whole numbers.

A grid (see :mod:`srquant.quantizers.numerics.grid`) *lies on integers* if all its levels are whole multiples of one
scale. Free bounds rarely make it so; :func:`uniform_knots` and the quantizers' ``grid="int8"`` put it there. Then zero
is a level, which zero padding needs, and a scale has 16 significant bits, so that every level is exact in float32:
scale times integer without rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from srquant.quantizers.numerics.grid import Intervals

Grid = Literal["free", "int8"]
"""``free``: wherever the bounds put it; ``int8``: on at most 256 neighbouring integers times one scale."""

WIDTH = 255
"""Largest distance between two integers of eight bits."""
SMALLEST_SCALE = 2e-30
_SCALE_BITS = 16
_CLOSE = 1e-6
"""A multiple counts as whole if it is this near; exact grids miss by float64's rounding only."""
_FARTHEST = 1 << 15


@dataclass(frozen=True)
class IntegerGrid:
    """A grid that lies on integers.

    Args:
        scale: ``()`` or ``(c,)``, positive.
        knots: The integers at the knots, int64, ``(m + 1,)`` or ``(c, m + 1)``.
        intervals: Of each segment.
        axis: Of codes, along which scales and knots of shape ``(c, …)`` lie.
    """

    scale: Tensor
    knots: Tensor
    intervals: Intervals
    axis: int = 0

    @property
    def strides(self) -> Tensor:
        """Integers between neighbouring levels, for each segment."""
        return self.knots.diff(dim=-1) // torch.tensor(self.intervals, device=self.knots.device)

    @property
    def low(self) -> int:
        """The smallest integer."""
        return int(self.knots.min())

    @property
    def high(self) -> int:
        """The largest integer."""
        return int(self.knots.max())

    def integers(self, codes: Tensor) -> Tensor:
        """The integers of codes, int64: ``K_0 + Σ_i stride_i · clamp(code − c_i, 0, n_i)``."""
        found = _along(self.knots[..., 0], codes, self.axis).expand(codes.shape)
        start = 0
        for count, stride in zip(self.intervals, self.strides.unbind(-1), strict=True):
            found = found + (codes.long() - start).clamp(0, count) * _along(stride, codes, self.axis)
            start += count
        return found


def integer_grid(knots: Tensor, intervals: Intervals) -> IntegerGrid | None:
    """The grid on integers, or None if it does not lie there.

    The scale is the smallest interval, or half of it where levels are odd multiples (symmetric weights without a zero).
    """
    exact = knots.detach().double()
    counts = torch.tensor(intervals, dtype=torch.float64, device=exact.device)
    smallest = (exact.diff(dim=-1) / counts).amin(-1, keepdim=True)
    empty = (exact == 0).all(-1, keepdim=True)  # a channel without weights: integers are zero, whatever the scale
    smallest = torch.where(empty, 1.0, smallest)
    if not bool((smallest > 0).all()):
        return None
    for part in (1, 2):
        multiples = exact / (smallest / part)
        whole = multiples.round()
        if bool(((multiples - whole).abs() <= _CLOSE).all() and (whole.abs() <= _FARTHEST).all()):
            integers = whole.long()
            if bool((integers.diff(dim=-1) % counts.long() == 0).all()):
                return IntegerGrid((smallest / part).squeeze(-1).to(knots.dtype), integers, intervals)
    return None


def uniform_knots(lower: Tensor, upper: Tensor, intervals: Intervals) -> Tensor:
    """Knots of neighbouring integers: zero is a level, the scale is ``(max(u, 0) − min(l, 0)) / Σ n_i``.

    Args:
        lower: Any shape; so ``upper``. Both are differentiable, rounding straight through.
        upper: See above.
        intervals: n_i, of each segment; at most 255 in all.

    Returns:
        ``(..., m + 1)``.
    """
    low, high = lower.clamp(max=0), upper.clamp(min=0)
    scale = short((high - low) / sum(intervals))
    zero = whole(-low / scale)
    return scale[..., None] * torch.stack([sum(intervals[:i]) - zero for i in range(len(intervals) + 1)], -1)


def whole(x: Tensor) -> Tensor:
    """The nearest integers, with straight-through gradients."""
    return x + (x.round() - x).detach()


def short(scale: Tensor) -> Tensor:
    """Scales cut to 16 significant bits and kept from zero, with straight-through gradients.

    Times an integer of eight bits, such a scale is exact in float32.
    """
    scale = scale.clamp(min=SMALLEST_SCALE)
    mantissa, exponent = torch.frexp(scale.detach())
    few = torch.ldexp((mantissa * 2**_SCALE_BITS).round() / 2**_SCALE_BITS, exponent)
    return scale + (few - scale).detach()


def _along(values: Tensor, like: Tensor, axis: int) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1 - axis)) if values.ndim else values
