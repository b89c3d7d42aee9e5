"""Rounding onto a grid with straight-through gradients, in tensor operations and compiled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from srquant.quantizers.numerics.grid import LevelGrid, PiecewiseGrid, Steps, computing_dtype, is_non_uniform, staircase
from srquant.support.compiled import compiled, flat_array, memory_order

_KERNELS = "srquant.quantizers.numerics.kernels"
_LARGE = 1 << 24


_PIECE = 1 << 19


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


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, knots: Tensor, steps: Steps) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, knots)
        ctx.steps = steps
        grid = staircase(x, knots, steps)
        if (fast := _compiled(x, knots, steps)) is not None:
            result = torch.empty_like(x)
            given, made = (flat_array(tensor, x) for tensor in (x, result))
            if isinstance(grid, LevelGrid):
                fast.nearest(given, made, grid.levels.numpy())
            else:
                fast.staircase(given, made, grid.numbers(), steps, grid.falling)
            return result
        if x.numel() < _LARGE or x.device.type != "cpu" or knots.ndim == 2 or isinstance(grid, LevelGrid):
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
            grid = staircase(given, knots, steps)
            if isinstance(grid, LevelGrid):
                sums = fast.nearest_gradients(*flat, grid.levels.numpy())
            else:
                sums = fast.gradients(*flat, grid.numbers(), knots.detach().numpy(), steps, grid.falling)
            below, above, *beyond = torch.from_numpy(sums).to(knots.dtype)
            to_knots = _to_knots(knots, steps, [*beyond[: len(steps)], 0], below, above)
            return to_x, to_knots, None
        x, slope = (t.to(computing_dtype(given.dtype)) for t in (given, gradient))
        edges = [knots[..., i].detach() for i in range(knots.shape[-1])]
        if not ctx.needs_input_grad[1]:
            return _between(slope, x, edges[0], edges[-1]).to(given.dtype), None, None
        above, below = _above(slope, x, edges[-1]), _below(slope, x, edges[0])
        to_x = slope.sub(above).sub_(below).to(given.dtype) if ctx.needs_input_grad[0] else None
        # Σ (q − p)·∂L/∂x̂ beyond each inner knot; differences of neighbours are the sums inside the segments. At a knot
        # and outside of all of them q − p is zero.
        dims = tuple(range(1, x.ndim)) if knots.ndim == 2 else tuple(range(x.ndim))
        error = staircase(x, knots, steps).error(x).mul_(slope)
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
    return compiled(x, _KERNELS) if fits and (len(steps) <= 3 or is_non_uniform(steps)) else None


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


def _piecewise(x: Tensor, grid: PiecewiseGrid) -> Tensor:
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
