"""Calibration patches that cover what networks meet: what somebody gave, drawings, and stronger colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from srquant.images.calibration import Calibration
from srquant.images.drawings import drawing
from srquant.support.digests import digest_of_settings
from srquant.support.tensors import planes

_OTHERS = 1 << 20
"""Added to seeds, for patches and drawings that are among no others."""


@dataclass(frozen=True)
class Covering:
    """The patches of a calibration, then drawings, then patches with stronger colours and contrast.

    Args:
        given: Its patches come first.
        drawings: How many drawings; see :mod:`srquant.images.drawings`.
        saturated: How many of the first patches come again, saturated.
    """

    given: Calibration
    drawings: int = 12
    saturated: int = 4

    def __len__(self) -> int:
        return len(self.given) + self.drawings + self.saturated

    def patch(self, index: int) -> Tensor:
        """Patch ``index`` of ``len(self)``, float32, ``3 size size``, in [0, 1]."""
        if index < len(self.given):
            return self.given.patch(index)
        index -= len(self.given)
        if index < self.drawings:
            return planes(drawing(self.given.seed * self.drawings + index, self.given.size)).float() / 255
        index -= self.drawings
        return saturate(self.given.patch(index % len(self.given)), 1 + 2 * (index + 1) / self.saturated)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Some patches, stacked."""
        return torch.stack([self.patch(index) for index in indices])

    def batches(self, size: int) -> Iterator[Tensor]:
        """All patches in order, ``n 3 size size`` with n = ``size``, the last batch smaller."""
        for start in range(0, len(self), size):
            yield self.batch(range(start, min(start + size, len(self))))

    def sample(self, count: int, size: int) -> Tensor:
        """Some patches, an even part of each kind, cut to a size: ``n 3 size size``.

        Args:
            count: How many, at most, of the given ones; of the others all.
            size: Height and width, at most.
        """
        given = len(self.given)
        chosen = [*range(0, given, -(-given // count)), *range(given, len(self))]
        return self.batch(chosen)[..., :size, :size]

    def digest(self) -> str:
        """Tells these patches from all others; see :meth:`Calibration.digest`."""
        return digest_of_settings(self.given.digest(), self.drawings, self.saturated)

    def held_out(self, count: int) -> dict[str, Tensor]:
        """Patches of the same images cut elsewhere, and other drawings: so many of each, ``n 3 size size``."""
        given = replace(self.given, seed=self.given.seed + _OTHERS, count=count)
        others = Covering(given, drawings=count, saturated=0)
        return {"given": others.batch(range(count)), "drawings": others.batch(range(count, 2 * count))}

    def describe(self) -> str:
        """A line for reports."""
        return f"{self.given.describe()}; {self.drawings} drawings, {self.saturated} saturated patches"


def saturate(image: Tensor, strength: float) -> Tensor:
    """An image whose colours are farther from gray by a factor, and whose contrast is larger; in [0, 1]."""
    gray = image.mean(-3, keepdim=True)
    return (1.3 * (gray + strength * (image - gray)) - 0.1).clamp(0, 1)
