"""Which values of a tensor share their bounds. Source of the idea: torchao's ``PerTensor`` and ``PerAxis``."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from srquant.support.errors import ArgumentError


@dataclass(frozen=True)
class PerTensor:
    """All values share their bounds.

    A weight of shape ``(64, 3, 5, 5)`` is one row of 4800 values; each of its bounds has the shape ``()``.
    """

    def rows(self, values: Tensor) -> Tensor:
        """The values as rows, ``r n``, each of which gets bounds of its own."""
        return values.reshape(1, -1)

    def bounds(self, found: Tensor) -> Tensor:
        """Bounds of the rows, ``(r,)``, in the shape in which a quantizer takes them."""
        return found[0]

    def along(self, bounds: Tensor, values: Tensor) -> Tensor:
        """Bounds of a quantizer in the shape in which they are compared with values."""
        return bounds.reshape([1] * values.ndim)


@dataclass(frozen=True)
class PerChannel:
    """Each slice along an axis has bounds of its own.

    A weight of shape ``(64, 3, 5, 5)`` is 64 rows of 75 values along axis 0, where a convolution has its output
    channels; each of its bounds has the shape ``(64,)``. Along axis 1, where a transposed convolution has them, it is 3
    rows of 1600 values, with bounds of the shape ``(3,)``. Methods as of :class:`PerTensor`.

    Args:
        axis: At least 0.

    Raises:
        ArgumentError: It is below 0.
    """

    axis: int = 0

    def __post_init__(self) -> None:
        if self.axis < 0:
            raise ArgumentError(f"axis={self.axis} is below 0; count axes from the first")

    def rows(self, values: Tensor) -> Tensor:
        return values.movedim(self.axis, 0).flatten(1)

    def bounds(self, found: Tensor) -> Tensor:
        return found

    def along(self, bounds: Tensor, values: Tensor) -> Tensor:
        shape = [1] * values.ndim
        shape[self.axis] = -1
        return bounds.reshape(shape)


Granularity = PerTensor | PerChannel
