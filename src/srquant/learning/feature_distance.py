"""How far a student's features are from its teacher's, both of length one."""

from __future__ import annotations

from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor

from srquant.support.compiled import compiled, flat_array, memory_order
from srquant.support.tensors import vector_norm

_KERNELS = "srquant.learning.distance_kernels"


_TINY = 1e-12


_LONG_ROW = 1 << 15
"""Values of a sample that are worth a call of compiled code; the windows of window attention are many short samples."""


_FEW_ROWS = 64
"""Samples that compiled code may be called for one by one, however short."""


def normalised_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``‖F̂/‖F̂‖₂ − F/‖F‖₂‖₂`` for each sample, the norms over all other axes; the gradient goes to the student.

    Args:
        student: ``n …``.
        teacher: The same shape.

    Returns:
        ``(n,)``, between 0 and 2. Where it is zero so is its gradient.
    """
    return cast(Tensor, _NormalisedDistance.apply(student, teacher))  # pyright: ignore[reportUnknownMemberType]


class _NormalisedDistance(torch.autograd.Function):
    """With n̂ = F̂/‖F̂‖, r = n̂ − n and d = ‖r‖: ∂d/∂F̂ = (r − n̂·d²/2) / (d·‖F̂‖), because n̂·r = d²/2."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        fast = _compiled(student, teacher)
        if fast is not None:
            rows = [fast.lengths_and_distance(*pair) for pair in zip(*_rows(student, teacher), strict=True)]
            length, other, distance = torch.tensor(rows, dtype=torch.float64).unbind(1)
            ctx.save_for_backward(student, teacher, length, other, distance)
            return distance.float()
        axes = tuple(range(1, student.ndim))
        # Normalised, near features all but cancel; short samples can afford to be exact, as compiled code is.
        short = student.device.type == "cpu" and student[0].numel() < _LONG_ROW
        near, far = (tensor.to(torch.float64 if short else torch.float32) for tensor in (student, teacher))
        length, other = (vector_norm(tensor, axes, keepdim=True) for tensor in (near, far))
        residual = near / length.clamp(min=_TINY)
        residual.addcmul_(far, 1 / other.clamp(min=_TINY), value=-1)
        distance = vector_norm(residual, axes, keepdim=True)
        ctx.save_for_backward(student, residual, length, None, distance)
        return distance.flatten().to(torch.promote_types(student.dtype, torch.float32))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        student, saved, length, other, distance = ctx.saved_tensors
        factor = gradient.view_as(distance) / (distance * length).clamp(min=_TINY)
        factor = torch.where(distance > 0, factor, 0)
        inward = factor * distance.square() / (2 * length.clamp(min=_TINY))
        if other is None:
            result = saved * factor
            return result.addcmul_(student.to(result.dtype), inward, value=-1).to(student.dtype), None
        result = torch.empty_like(student, dtype=torch.float32)
        own = (factor / length.clamp(min=_TINY) - inward).tolist()
        others = (-factor / other.clamp(min=_TINY)).tolist()
        for *row, a, b in zip(*_rows(student, saved, result), own, others, strict=True):
            _compiled(student, saved).combine(*row, a, b)
        return result.to(student.dtype), None


def _compiled(student: Tensor, teacher: Tensor) -> Any:
    together = student.dtype == teacher.dtype and memory_order(student)[:1] == [0]
    worth_it = len(student) <= _FEW_ROWS or student[0].numel() >= _LONG_ROW
    return compiled(student, _KERNELS) if together and worth_it else None


def _rows(first: Tensor, *others: Tensor) -> list[NDArray[Any]]:
    """The values of each sample, a row each, in the order in which the first tensor has them in memory."""
    return [flat_array(tensor, first).reshape(len(first), -1) for tensor in (first, *others)]
