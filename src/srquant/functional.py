"""Pure tensor functions that every quantizer is made of: the grid, its codes, and rounding onto it with gradients.

A *grid* is a piecewise-affine staircase. ``knots`` e_0 < e_1 < … < e_m cut the line into m segments, and segment i
is cut into ``steps[i]`` equal steps. The levels are the knots and what lies between: 1 + Σ steps in all. A value goes
to its nearest level; code k is the k-th level from below. The uniform quantizer has one segment, a piecewise-linear
one two or three.

Knots of shape ``(m + 1,)`` serve a whole tensor; of shape ``(c, m + 1)``, each of the c slices along its axis 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from srquant.support.compiled import compiled, flat_array, memory_order

Steps = tuple[int, ...]

_LARGE = 1 << 24
_PIECE = 1 << 19


def grid_levels(knots: Tensor, steps: Steps) -> Tensor:
    """All levels of a grid, increasing.

    Args:
        knots: Shape ``(..., m + 1)``.
        steps: m numbers of steps.

    Returns:
        Shape ``(..., 1 + sum(steps))``.
    """
    parts = [knots[..., :1]]
    for i, count in enumerate(steps):
        ramp = torch.arange(1, count + 1, dtype=knots.dtype, device=knots.device) / count
        parts.append(knots[..., i : i + 1] + (knots[..., i + 1 : i + 2] - knots[..., i : i + 1]) * ramp)
    return torch.cat(parts, dim=-1)


def grid_codes(x: Tensor, knots: Tensor, steps: Steps) -> Tensor:
    """Codes of the nearest levels.

    Returns:
        Integers in [0, sum(steps)], int16, shaped as ``x``.
    """
    grid = _staircase(x, knots, steps)
    return grid.swap(grid.round(x)).to(torch.int16)


def grid_values(codes: Tensor, knots: Tensor, steps: Steps) -> Tensor:
    """Levels of integer codes, in the dtype of ``knots``; the inverse of :func:`grid_codes` on the grid."""
    like = codes.to(_computing(knots.dtype))
    grid = _staircase(like, knots, steps)
    return grid.expand(grid.swap_back(like))


def quantize(x: Tensor, knots: Tensor, steps: Steps) -> Tensor:
    """Move every value to its nearest level, with straight-through gradients.

    Rounding passes gradients unchanged; clamping and scaling are differentiated exactly. With code q, unrounded
    position p and n steps in the segment [a, b] that x lies in::

        ∂x̂/∂x = 1 inside [e_0, e_m], else 0
        ∂x̂/∂b = (q − p)/n,  ∂x̂/∂a = −(q − p)/n      (inside the segment)
        ∂x̂/∂e_m = 1 above e_m,  ∂x̂/∂e_0 = 1 below e_0

    Args:
        x: Any shape; float16 and bfloat16 are computed in float32.
        knots: Shape ``(m + 1,)`` or ``(c, m + 1)``, in the computing dtype.
        steps: m numbers of steps, each at least 1.

    Returns:
        Shape, dtype and memory format of ``x``. Equal, bit by bit, to ``grid_values(grid_codes(x))``.
    """
    return cast(Tensor, _Quantize.apply(x, knots, steps))


def _staircase(like: Tensor, knots: Tensor, steps: Steps) -> _Grid | _Levels:
    return _Levels(like, knots) if _is_free(steps) else _Grid(like, knots, steps)


def _is_free(steps: Steps) -> bool:
    return len(steps) > 3 and max(steps) == 1


class _Grid:
    """The staircase laid out for few passes over the data.

    The coordinate counts steps from the last inner knot it met, so that a change of slope lies at zero and is one leaky
    rectifier; from the third segment on it runs downwards, for the same reason. Every operation rounds once, so that
    vector and scalar code give the same bits; and where all levels are multiples of the finest step, and that has few
    significant bits, levels are exact (see :mod:`srquant.integers`).
    """

    def __init__(self, like: Tensor, knots: Tensor, steps: Steps) -> None:
        knots = knots.detach().to(_computing(like.dtype))
        # A segment without width keeps its codes, at (almost) one value.
        narrowest = knots.abs().amax(dim=-1, keepdim=True).mul_(torch.finfo(knots.dtype).eps).clamp_(min=1e-30)
        counts = torch.tensor(steps, dtype=knots.dtype, device=knots.device)
        sizes = (knots[..., 1:] - knots[..., :-1]).maximum(narrowest) / counts
        shape = (-1, *([1] * (like.ndim - 1))) if knots.ndim == 2 else ()
        anchor = min(1, len(steps) - 1)
        self.origin = knots[..., anchor].reshape(shape)
        # Of two segments the one with fewer steps gives the unit; seen from its end, the other lies at negative values.
        turned = len(steps) == 2 and steps[0] < steps[1]
        beyond = [(1, 0) if turned else (0, 1), *((i, i - 1) for i in range(2, len(steps)))][: len(steps) - 1]
        self.size = (-sizes[..., 0] if turned else sizes[..., anchor]).reshape(shape)
        self.bends = [(sizes[..., i] / sizes[..., j]).reshape(shape) for i, j in beyond]
        self.steps = steps
        self.below = sum(steps[:-1])
        self.above = steps[-1]
        self.falling = turned or len(steps) > 2

    def numbers(self) -> NDArray[np.float32]:
        """Origin, size and bends of a grid for a whole tensor, as compiled code takes them."""
        return torch.stack((self.origin, self.size, *self.bends)).float().numpy()

    def position(self, x: Tensor) -> Tensor:
        """Where values lie, in steps; a new tensor."""
        t = x.sub(self.origin) if x.dtype == self.origin.dtype else x.to(self.origin.dtype).sub_(self.origin)
        t.mul_(self.size.reciprocal())
        for i, bend in enumerate(self.bends):
            if i == 1:
                _subtract_from_(self.steps[1], t)
            elif i > 1:
                t.add_(self.steps[i])
            t = _bend_(t, bend.reciprocal())
        return t

    def round(self, x: Tensor) -> Tensor:
        return self._inside(x).round_()

    def error(self, x: Tensor) -> Tensor:
        """How far, in steps of its own segment, the nearest level lies above a value; 0 outside the grid."""
        position = self._inside(x)
        rounded = position.round()
        return position.sub_(rounded) if self.falling else rounded.sub_(position)

    def _inside(self, x: Tensor) -> Tensor:
        low, high = (-self.above, self.below) if self.falling else (-self.below, self.above)
        return self.position(x).clamp_(low, high)

    def expand(self, t: Tensor) -> Tensor:
        """Undo :meth:`position`, in place."""
        for i, bend in reversed(list(enumerate(self.bends))):
            t = _bend_(t, bend)
            if i == 1:
                _subtract_from_(self.steps[1], t)
            elif i > 1:
                t.sub_(self.steps[i])
        return t.mul_(self.size).add_(self.origin)

    def swap(self, t: Tensor) -> Tensor:
        """Coordinates to codes, in place."""
        return _subtract_from_(self.below, t) if self.falling else t.add_(self.below)

    def swap_back(self, codes: Tensor) -> Tensor:
        """Codes to coordinates; a new tensor."""
        return codes.neg().add_(self.below) if self.falling else codes.sub(self.below)


class _Levels:
    """A staircase whose knots are all levels: the coordinate is the code, found by comparing."""

    def __init__(self, like: Tensor, levels: Tensor) -> None:
        self.levels = levels.detach().to(_computing(like.dtype))
        self.halfway = (self.levels[1:] + self.levels[:-1]) / 2

    def round(self, x: Tensor) -> Tensor:
        codes = torch.bucketize(x.to(self.levels.dtype).contiguous(), self.halfway, out_int32=True).to(
            self.levels.dtype
        )
        return torch.where(x.isnan(), torch.nan, codes)

    def error(self, x: Tensor) -> Tensor:
        """As of :class:`_Grid`; between two levels."""
        below = torch.bucketize(x.contiguous(), self.levels[1:-1].contiguous())
        a, b = self.levels[below], self.levels[below + 1]
        position = ((x - a) / (b - a).clamp(min=1e-30)).clamp_(0, 1)
        return (position > 0.5).to(x.dtype) - position

    def expand(self, t: Tensor) -> Tensor:
        return torch.where(t.isnan(), t, self.levels[t.nan_to_num().long()])

    def swap(self, t: Tensor) -> Tensor:
        return t

    def swap_back(self, codes: Tensor) -> Tensor:
        return codes


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, knots: Tensor, steps: Steps) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, knots)
        ctx.steps = steps
        grid = _staircase(x, knots, steps)
        if (fast := _compiled(x, knots, steps)) is not None:
            result = torch.empty_like(x)
            given, made = (flat_array(tensor, x) for tensor in (x, result))
            if isinstance(grid, _Levels):
                fast.nearest(given, made, grid.levels.numpy())
            else:
                fast.staircase(given, made, grid.numbers(), steps, grid.falling)
            return result
        if x.numel() < _LARGE or x.device.type != "cpu" or knots.ndim == 2 or isinstance(grid, _Levels):
            return grid.expand(grid.round(x)).to(x.dtype)
        return _piecewise(x, grid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        given, knots = ctx.saved_tensors
        steps: Steps = ctx.steps
        if (fast := _compiled(given, knots, steps)) is not None:
            to_x = torch.empty_like(given)
            flat = (flat_array(tensor, given) for tensor in (given, gradient.to(given.dtype), to_x))
            if not ctx.needs_input_grad[1]:
                fast.pass_inside(*flat, float(knots[0]), float(knots[-1]))
                return to_x, None, None
            grid = _staircase(given, knots, steps)
            if isinstance(grid, _Levels):
                sums = fast.nearest_gradients(*flat, grid.levels.numpy())
            else:
                sums = fast.gradients(*flat, grid.numbers(), knots.detach().numpy(), steps, grid.falling)
            below, above, *beyond = torch.from_numpy(sums).to(knots.dtype)
            to_knots = _to_knots(knots, steps, [*beyond[: len(steps)], 0], below, above)
            return to_x, to_knots, None
        x, slope = (t.to(_computing(given.dtype)) for t in (given, gradient))
        edges = [knots[..., i].detach() for i in range(knots.shape[-1])]
        if not ctx.needs_input_grad[1]:
            return _between(slope, x, edges[0], edges[-1]).to(given.dtype), None, None
        above, below = _above(slope, x, edges[-1]), _below(slope, x, edges[0])
        to_x = slope.sub(above).sub_(below).to(given.dtype) if ctx.needs_input_grad[0] else None
        # Σ (q − p)·∂L/∂x̂ beyond each inner knot; differences of neighbours are the sums inside the segments. At a knot
        # and outside of all of them q − p is zero.
        dims = tuple(range(1, x.ndim)) if knots.ndim == 2 else tuple(range(x.ndim))
        error = _staircase(x, knots, steps).error(x).mul_(slope)
        beyond = [error.sum(dims), *(_above(error, x, edge).sum(dims) for edge in edges[1:-1]), 0]
        return to_x, _to_knots(knots, steps, beyond, below.sum(dims), above.sum(dims)), None


def _to_knots(knots: Tensor, steps: Steps, beyond: Sequence[Tensor | int], below: Tensor, above: Tensor) -> Tensor:
    """∂L/∂knots from the sums of ∂L/∂x̂ outside the grid and of (q − p)·∂L/∂x̂ beyond each knot but the last."""
    result = torch.zeros_like(knots)
    for i, count in enumerate(steps):
        share = (beyond[i] - beyond[i + 1]) / count
        result[..., i + 1] += share
        result[..., i] -= share
    result[..., -1] += above
    result[..., 0] += below
    return result


def _compiled(x: Tensor, knots: Tensor, steps: Steps) -> Any:
    """The compiled form, where there is one for such tensors."""
    fits = knots.device.type == "cpu" and knots.dtype == torch.float32 and knots.ndim == 1
    return compiled(x) if fits and (len(steps) <= 3 or _is_free(steps)) else None


def _above(values: Tensor, x: Tensor, edge: Tensor) -> Tensor:
    """The values where x > edge, else 0. One pass where the edge is one number on the CPU."""
    if _one_number(edge):
        return torch.ops.aten.threshold_backward(values, x, float(edge))  # pyright: ignore[reportUnknownVariableType]
    return torch.where(x > _along(edge, x), values, 0)


def _below(values: Tensor, x: Tensor, edge: Tensor) -> Tensor:
    """The values where x < edge, else 0."""
    if _one_number(edge):
        return torch.ops.aten.hardtanh_backward(values, x, -math.inf, float(edge))  # pyright: ignore[reportUnknownVariableType]
    return torch.where(x < _along(edge, x), values, 0)


def _between(values: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The values where low ≤ x ≤ high, else 0."""
    if _one_number(low):
        # The operator leaves out both ends.
        outer = (float(torch.nextafter(end, end.new_tensor(way))) for end, way in ((low, -math.inf), (high, math.inf)))
        return torch.ops.aten.hardtanh_backward(values, x, *outer)  # pyright: ignore[reportUnknownVariableType]
    return torch.where((x >= _along(low, x)) & (x <= _along(high, x)), values, 0)


def _one_number(edge: Tensor) -> bool:
    return edge.ndim == 0 and edge.device.type == "cpu"


def _along(edge: Tensor, x: Tensor) -> Tensor:
    return edge.reshape(-1, *([1] * (x.ndim - 1))) if edge.ndim else edge


def _piecewise(x: Tensor, grid: _Grid) -> Tensor:
    """Move a large tensor to the grid piece by piece, so that all passes over a piece stay in the cache."""
    result = torch.empty_like(x)
    # Both in the order of memory, which they share.
    order = memory_order(x)
    given, made = x.permute(order).reshape(-1), result.permute(order)
    if not made.is_contiguous():
        return grid.expand(grid.round(x)).to(x.dtype)
    made = made.view(-1)
    for start in range(0, made.numel(), _PIECE):
        piece = slice(start, start + _PIECE)
        made[piece] = grid.expand(grid.round(given[piece]))
    return result


def _bend_(t: Tensor, slope: Tensor) -> Tensor:
    """Multiply the negative values by a positive slope; may overwrite ``t``."""
    if slope.ndim == 0 and t.device.type == "cpu":
        return F.leaky_relu_(t, float(slope))
    return torch.where(t < 0, t * slope, t)


def _subtract_from_(number: int, t: Tensor) -> Tensor:
    return torch.sub(torch.tensor(number, dtype=t.dtype, device=t.device), t, out=t)


def _computing(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32
