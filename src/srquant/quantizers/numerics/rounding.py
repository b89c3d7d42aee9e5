"""Rounding onto a grid with straight-through gradients, in tensor operations and compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from srquant.quantizers.numerics.grid import (
    Intervals,
    LevelGrid,
    PiecewiseGrid,
    above,
    below,
    between,
    computing_dtype,
    is_non_uniform,
    staircase,
)
from srquant.support.compiled import compiled, flat_array, memory_order

_PIECE = 1 << 18
"""Values whose float32 numbers stay in the processor's cache between the passes over them."""


def quantize(x: Tensor, knots: Tensor, intervals: Intervals) -> Tensor:
    """Move every value to its nearest level, with straight-through gradients.

    Rounding passes gradients unchanged; clamping and scaling are differentiated exactly. With code q, unrounded
    position p and n intervals in the segment [a, b] that x lies in::

        ∂x̂/∂x = 1 inside [e_0, e_m], else 0
        ∂x̂/∂b = (q − p)/n,  ∂x̂/∂a = −(q − p)/n      (inside the segment)
        ∂x̂/∂e_m = 1 above e_m,  ∂x̂/∂e_0 = 1 below e_0

    Args:
        x: Any shape; float16 and bfloat16 are computed in float32.
        knots: Shape ``(m + 1,)`` or ``(c, m + 1)``, in the computing dtype.
        intervals: m numbers of intervals, each at least 1.

    Returns:
        Shape, dtype and memory format of ``x``. Equal, bit by bit, to ``grid_values(grid_codes(x))``.
    """
    return cast(Tensor, _Quantize.apply(x, knots, intervals))


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, knots: Tensor, intervals: Intervals) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, knots)
        ctx.intervals = intervals
        grid = staircase(x, knots, intervals)
        if isinstance(grid, LevelGrid) and (fast := _compiled(x, knots, intervals)) is not None:
            found = torch.empty_like(x, dtype=knots.dtype)
            fast.nearest(flat_array(x, x), flat_array(found, x), grid.levels.numpy(), grid.halfway.numpy())
            return found.to(x.dtype)
        result = torch.empty_like(x)
        for given, made in _pieces(knots, x, result):
            made.copy_(grid.nearest(given))
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        given, knots = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        intervals: Intervals = ctx.intervals
        learned = ctx.needs_input_grad[1]
        grid = staircase(given, knots, intervals)
        if learned and (fast := _compiled(given, knots, intervals)) is not None:
            to_x = torch.empty_like(given, dtype=knots.dtype)
            arrays = [*(flat_array(tensor, given) for tensor in (given, gradient, to_x)), knots.detach().numpy()]
            plain = isinstance(grid, PiecewiseGrid)
            sums = fast.piecewise_gradients(*arrays, grid.layout()) if plain else fast.gradients(*arrays)
            found = torch.from_numpy(sums)
            return to_x.to(given.dtype), _to_knots(found[:-2], found[-2], found[-1], intervals).to(knots.dtype), None
        low, high = knots[..., 0].detach(), knots[..., -1].detach()
        to_x, to_knots = torch.empty_like(given), knots.new_zeros(knots.shape)
        for *tensors, made in _pieces(knots, given, gradient, to_x):
            x, slope = (tensor.to(computing_dtype(given.dtype)) for tensor in tensors)
            made.copy_(between(slope, x, low, high))
            if learned:
                axes = tuple(range(knots.ndim - 1, x.ndim))
                sums = below(slope, x, low).sum(axes), above(slope, x, high).sum(axes)
                to_knots += _to_knots(grid.pulls(x, slope), sums[0], sums[1], intervals)
        return to_x, to_knots if learned else None, None


def _to_knots(pulls: Tensor, lower: Tensor, upper: Tensor, intervals: Intervals) -> Tensor:
    """∂L/∂knots from Σ (q − p)·∂L/∂x̂ in each segment, and Σ ∂L/∂x̂ below and above the grid."""
    slopes = pulls / torch.tensor(intervals, dtype=pulls.dtype, device=pulls.device)
    return torch.cat((lower[..., None], slopes), -1) + torch.cat((-slopes, upper[..., None]), -1)


def _compiled(x: Tensor, knots: Tensor, intervals: Intervals) -> Any:
    """The compiled form, where there is one for such tensors."""
    fits = knots.device.type == "cpu" and knots.dtype == torch.float32 and knots.ndim == 1
    return (
        compiled(x, "srquant.quantizers.numerics.kernels")
        if fits and (len(intervals) <= 3 or is_non_uniform(intervals))
        else None
    )


def _pieces(knots: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape, the last to be written, in flat pieces that stay in the cache; whole where knots are not
    those of a whole tensor on the CPU.
    """
    if knots.ndim == 2 or knots.device.type != "cpu":
        yield tensors
        return
    *given, made = tensors
    order = memory_order(made)
    # A view or an error: what were written to a copy would be lost.
    flat = [*(tensor.permute(order).reshape(-1) for tensor in given), made.permute(order).view(-1)]
    for start in range(0, flat[0].numel(), _PIECE):
        yield tuple(tensor[start : start + _PIECE] for tensor in flat)
