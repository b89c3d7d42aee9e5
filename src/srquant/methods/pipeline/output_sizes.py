"""How large the outputs of layers are."""

from __future__ import annotations

import math

from torch import Tensor

from srquant.support.tensors import vector_norm


class OutputSizes:
    """How large and how varied each target's output is; :func:`observe_ranges` calls it batch by batch."""

    def __init__(self) -> None:
        self._deviations: dict[str, float] = {}
        self._squares: dict[str, float] = {}
        self._images: dict[str, int] = {}

    def __call__(self, name: str, output: Tensor) -> None:
        axes = tuple(range(1, output.ndim))
        square = vector_norm(output, axes).square() / output[0].numel()
        deviation = (square - output.mean(dim=axes).square()).clamp(min=0).sqrt()
        # Window attention cuts one image into many rows; every row then counts as an image.
        self._deviations[name] = self._deviations.get(name, 0.0) + float(deviation.sum())
        self._squares[name] = self._squares.get(name, 0.0) + float(square.sum())
        self._images[name] = self._images.get(name, 0) + len(output)

    def deviations(self) -> dict[str, float]:
        """Mean over images of the standard deviation of each output, in the order in which the targets ran."""
        return {name: total / self._images[name] for name, total in self._deviations.items()}

    def root_mean_square(self, name: str) -> float:
        """Of one output, over all images."""
        return math.sqrt(self._squares[name] / self._images[name])
