"""Pure tensor functions that every quantizer is made of: the grid, its codes, and rounding onto it with gradients.

A *grid* is a piecewise-affine staircase. ``knots`` e_0 < e_1 < … < e_m cut the line into m segments, and segment i is
cut into ``intervals[i]`` equal intervals. The levels are the knots and what lies between: 1 + Σ intervals in all. A
value goes to its nearest level; code k is the k-th level from below. The uniform quantizer has one segment, a
piecewise-linear one two or three.

Knots of shape ``(m + 1,)`` serve a whole tensor; of shape ``(c, m + 1)``, each of the c slices along its axis 0.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Intervals = tuple[int, ...]


def grid_levels(knots: Tensor, intervals: Intervals) -> Tensor:
    """All levels of a grid, increasing.

    Args:
        knots: Shape ``(..., m + 1)``.
        intervals: m numbers of intervals.

    Returns:
        Shape ``(..., 1 + sum(intervals))``.
    """
    parts = [knots[..., :1]]
    for i, count in enumerate(intervals):
        ramp = torch.arange(1, count + 1, dtype=knots.dtype, device=knots.device) / count
        parts.append(knots[..., i : i + 1] + (knots[..., i + 1 : i + 2] - knots[..., i : i + 1]) * ramp)
    return torch.cat(parts, dim=-1)


def grid_codes(x: Tensor, knots: Tensor, intervals: Intervals) -> Tensor:
    """Codes of the nearest levels.

    Returns:
        Integers in [0, sum(intervals)], int16, shaped as ``x``.
    """
    return staircase(x, knots, intervals).codes(x.detach()).to(torch.int16)


def grid_values(codes: Tensor, knots: Tensor, intervals: Intervals) -> Tensor:
    """Levels of integer codes, in the dtype of ``knots``; the inverse of :func:`grid_codes` on the grid."""
    like = codes.to(computing_dtype(knots.dtype))
    return staircase(like, knots, intervals).values(like)


def staircase(like: Tensor, knots: Tensor, intervals: Intervals) -> PiecewiseGrid | LevelGrid:
    """The grid laid out for tensors like this one."""
    return LevelGrid(like, knots) if is_non_uniform(intervals) else PiecewiseGrid(like, knots, intervals)


def is_non_uniform(intervals: Intervals) -> bool:
    """Whether every knot is a level, and no two need be equally far apart."""
    return len(intervals) > 3 and max(intervals) == 1


class PiecewiseGrid:
    """The staircase laid out for few passes over the data.

    The coordinate counts intervals from the last inner knot it met, so that a change of slope lies at zero and is one
    leaky rectifier; of three segments or more it begins at the highest inner knot, runs downwards to the next, turns,
    and counts upwards from there. Every operation rounds once, so that vector and scalar code give the same bits; and
    where all levels are multiples of the smallest interval, and that has few significant bits, levels are exact (see
    :mod:`srquant.quantizers.numerics.integers`).

    A value halfway between two levels goes to the one with the even number, counted from the lowest inner knot (from
    the lowest level, if there is none). In a middle segment that is symmetric an exact 0 lies exactly there, whatever
    the knots: OAPTQ's eq. 3 sends it to +bp/7 at 4 bits.
    """

    def __init__(self, like: Tensor, knots: Tensor, intervals: Intervals) -> None:
        knots = knots.detach().to(computing_dtype(like.dtype))
        # A segment without width keeps its codes, at (almost) one value.
        narrowest = knots.abs().amax(dim=-1, keepdim=True).mul_(torch.finfo(knots.dtype).eps).clamp_(min=1e-30)
        counts = torch.tensor(intervals, dtype=knots.dtype, device=knots.device)
        sizes = (knots[..., 1:] - knots[..., :-1]).maximum(narrowest) / counts
        shape = (-1, *([1] * (like.ndim - 1))) if knots.ndim == 2 else ()
        count = len(intervals)
        # Of two segments the one with fewer intervals gives the unit; seen from its end, the other lies at negative
        # values.
        turned = count == 2 and intervals[0] < intervals[1]
        anchor = max(count - 1, 0) if count > 2 else min(1, count - 1)
        unit = count - 2 if count > 2 else 0 if turned else anchor
        beyond = [(unit + 1, unit), *((i - 1, i) for i in range(unit, 0, -1))] if count > 2 or turned else [(0, 1)]
        self.origin = knots[..., anchor].reshape(shape)
        self.size = (-sizes[..., unit] if turned or count > 2 else sizes[..., unit]).reshape(shape)
        self.start: Tensor | None = None
        """Position of the value 0, from which the others are counted; None where they are counted from the origin."""
        if count > 2:
            low, high = (knots[..., end].reshape(shape) for end in (unit, anchor))
            at_half = intervals[unit] / 2 - (low + high) / 2 * self.size.reciprocal()
            has_width = (high - low) >= narrowest.reshape(shape)
            self.start = torch.where(has_width, at_half, -high * self.size.reciprocal())
        self.bends = [(sizes[..., i] / sizes[..., j]).reshape(shape) for i, j in beyond[: count - 1]]
        self.intervals = intervals
        self.inner = knots[..., 1:-1]
        self.below = intervals[0] if count > 1 else 0
        self.above = sum(intervals) - self.below
        self.falling = turned

    def layout(self) -> NDArray[np.float32]:
        """What compiled code wants to know of at most three segments.

        What is subtracted from values, intervals in one, what is then added, both bends (1 where there is none),
        intervals of the middle segment, the lowest and highest position, and whether positions rise (1) or fall (−1)
        with values.
        """
        bends = [float(bend.reciprocal()) for bend in self.bends] + [1.0, 1.0]
        numbers = [
            float(self.origin) if self.start is None else 0.0,
            float(self.size.reciprocal()),
            0.0 if self.start is None else float(self.start),
            *bends[:2],
            float(self.intervals[len(self.intervals) // 2]),
        ]
        return np.array([*numbers, *self._ends, -1.0 if self.falling else 1.0], np.float32)

    def position(self, x: Tensor) -> Tensor:
        """Where values lie, in intervals; a new tensor."""
        x = x.to(self.origin.dtype)
        if self.start is None:
            t = x.sub(self.origin).mul_(self.size.reciprocal())
        else:
            t = x.mul(self.size.reciprocal()).add_(self.start)
        for i, bend in enumerate(self.bends):
            if i == 1:
                _subtract_from_(self.intervals[-2], t)
            elif i > 1:
                t.add_(self.intervals[-1 - i])
            t = _bend_(t, bend.reciprocal())
        return t

    def codes(self, x: Tensor) -> Tensor:
        """Codes of the nearest levels, as floating-point numbers; a new tensor."""
        t = self._inside(x).round_()
        return _subtract_from_(self.below, t) if self.falling else t.add_(self.below)

    def values(self, codes: Tensor) -> Tensor:
        """Levels of codes given as floating-point numbers; a new tensor."""
        return self._expand(codes.neg().add_(self.below) if self.falling else codes.sub(self.below))

    def nearest(self, x: Tensor) -> Tensor:
        """Levels nearest to values, as :meth:`values` has them; a new tensor."""
        return self._expand(self._inside(x).round_())

    def pulls(self, x: Tensor, slope: Tensor) -> Tensor:
        """Σ slope · (q − p) in each segment.

        q − p is how far, in intervals, the nearest level lies above a value; 0 outside the grid.

        Args:
            x: Values.
            slope: As ``x``, in the dtype of the knots.

        Returns:
            ``(m,)``, or ``(c, m)``.
        """
        position = self._inside(x)
        rounded = position.round()
        error = (position.sub_(rounded) if self.falling else rounded.sub_(position)).mul_(slope)
        axes = tuple(range(self.inner.ndim - 1, x.ndim))
        # At a knot the error is zero: what lies in a segment is the difference of what lies beyond its ends.
        beyond = [error.sum(axes), *(above(error, x, edge).sum(axes) for edge in self.inner.unbind(-1))]
        return -torch.stack([*beyond, torch.zeros_like(beyond[0])], -1).diff(dim=-1)

    def _inside(self, x: Tensor) -> Tensor:
        return self.position(x).clamp_(*self._ends)

    @property
    def _ends(self) -> tuple[int, int]:
        return (-self.above, self.below) if self.falling else (-self.below, self.above)

    def _expand(self, t: Tensor) -> Tensor:
        """Undo :meth:`position`, in place."""
        for i, bend in reversed(list(enumerate(self.bends))):
            t = _bend_(t, bend)
            if i == 1:
                _subtract_from_(self.intervals[-2], t)
            elif i > 1:
                t.sub_(self.intervals[-1 - i])
        return t.mul_(self.size).add_(self.origin)


class LevelGrid:
    """A staircase whose knots are all levels: codes are found by comparing. Methods as of :class:`PiecewiseGrid`."""

    def __init__(self, like: Tensor, levels: Tensor) -> None:
        self.levels = levels.detach().to(computing_dtype(like.dtype))
        self.halfway = (self.levels[..., 1:] + self.levels[..., :-1]) / 2

    def codes(self, x: Tensor) -> Tensor:
        return _count_below(x.to(self.levels.dtype), self.halfway)

    def values(self, codes: Tensor) -> Tensor:
        return _pick(self.levels, codes.long())

    def nearest(self, x: Tensor) -> Tensor:
        return self.values(self.codes(x)).masked_fill_(x.isnan(), torch.nan)

    def pulls(self, x: Tensor, slope: Tensor) -> Tensor:
        segment = _count_below(x, self.levels[..., 1:-1]).long()
        size = self.levels.diff(dim=-1).clamp_(min=1e-30)
        position = ((x - _pick(self.levels, segment)) / _pick(size, segment)).clamp_(0, 1)
        pull = ((position > 0.5).to(x.dtype) - position).mul_(slope)
        axes = tuple(range(self.levels.ndim - 1, x.ndim))
        return torch.stack([torch.where(segment == k, pull, 0).sum(axes) for k in range(size.shape[-1])], -1)


def above(values: Tensor, x: Tensor, edge: Tensor) -> Tensor:
    """The values where x > edge, else 0. One pass where the edge is one number on the CPU."""
    if _one_number(edge):
        return torch.ops.aten.threshold_backward(values, x, float(edge))  # pyright: ignore[reportUnknownVariableType]
    return torch.where(x > _along(edge, x), values, 0)


def below(values: Tensor, x: Tensor, edge: Tensor) -> Tensor:
    """The values where x < edge, else 0."""
    if _one_number(edge):
        return torch.ops.aten.hardtanh_backward(values, x, -math.inf, float(edge))  # pyright: ignore[reportUnknownVariableType]
    return torch.where(x < _along(edge, x), values, 0)


def between(values: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The values where low ≤ x ≤ high, else 0."""
    if _one_number(low):
        # The operator leaves out both ends.
        outer = (float(torch.nextafter(end, end.new_tensor(way))) for end, way in ((low, -math.inf), (high, math.inf)))
        return torch.ops.aten.hardtanh_backward(values, x, *outer)  # pyright: ignore[reportUnknownVariableType]
    return torch.where((x >= _along(low, x)) & (x <= _along(high, x)), values, 0)


def _one_number(edge: Tensor) -> bool:
    return edge.ndim == 0 and edge.device.type == "cpu"


def _count_below(x: Tensor, edges: Tensor) -> Tensor:
    """How many of the edges, ``(m,)`` or ``(c, m)``, lie below each value; int32, in the shape of ``x``."""
    if edges.ndim == 1:
        return torch.bucketize(x.contiguous(), edges.contiguous(), out_int32=True)
    rows = x.reshape(len(edges), -1).contiguous()
    return torch.searchsorted(edges.contiguous(), rows, out_int32=True).reshape(x.shape)


def _pick(numbers: Tensor, index: Tensor) -> Tensor:
    """Numbers, ``(m,)`` or ``(c, m)``, at each index, in the shape of ``index``."""
    if numbers.ndim == 1:
        return numbers[index]
    return numbers.gather(1, index.reshape(len(numbers), -1)).reshape(index.shape)


def _along(edge: Tensor, x: Tensor) -> Tensor:
    return edge.reshape(-1, *([1] * (x.ndim - 1))) if edge.ndim else edge


def _bend_(t: Tensor, slope: Tensor) -> Tensor:
    """Multiply the negative values by a positive slope; may overwrite ``t``."""
    if slope.ndim == 0 and t.device.type == "cpu":
        return F.leaky_relu_(t, float(slope))
    return torch.where(t < 0, t * slope, t)


def _subtract_from_(number: int, t: Tensor) -> Tensor:
    return torch.sub(torch.tensor(number, dtype=t.dtype, device=t.device), t, out=t)


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which values of a dtype are moved to a grid: float32 at least."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32
