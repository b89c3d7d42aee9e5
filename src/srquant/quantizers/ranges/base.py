"""What a range is: a rule that looks at values and says where a quantizer's bounds shall lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

Bounds = Mapping[str, Tensor]
"""Bounds by name (``lower``, ``upper``, ``breakpoint``), each of shape ``(r,)``: one per row."""


class OfChannels:
    """Marks a rule that takes the channels of an activation as rows, and gives one set of bounds for all of them."""


Range = Callable[[Tensor], Bounds]
"""A rule for bounds: of ``r n`` values, one row for a whole tensor, a row for each channel otherwise."""


class UniformRange:
    """A rule for ``lower`` and ``upper`` of a uniform quantizer, which settings choose by its name (``weights.range``).

    A new one is a new file in this folder: a frozen dataclass of this base with a ``name``, whose objects are a
    :data:`Range`. What it is told beside that has defaults, or :meth:`of_weights` tells it.
    """

    name: ClassVar[str]
    """Name in settings."""

    def __call__(self, rows: Tensor) -> Bounds:
        """Bounds of each row: ``r n`` values to ``lower`` and ``upper``, each ``(r,)``."""
        raise NotImplementedError(f"{type(self).__name__} lacks __call__()")

    @classmethod
    def of_weights(cls, rows: Tensor, bits: int, *, symmetric: bool) -> Bounds:
        """Bounds for the weights in each row.

        Args:
            rows: ``r n``.
            bits: Of the quantizer.
            symmetric: Whether its range is [−u, u]; only ``upper`` is then looked at.
        """
        return cls()(mirrored(rows) if symmetric else rows)


def mirrored(rows: Tensor) -> Tensor:
    """The values of each row, and the same with the other sign: of them, both ends are equally far from zero."""
    return torch.cat((rows, -rows), 1)
