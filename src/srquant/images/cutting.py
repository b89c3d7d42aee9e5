"""Small pieces of calibration patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from srquant.images.covering import Covering
from srquant.support.digests import digest_of_settings


@dataclass(frozen=True)
class Pieces:
    """Patches cut into squares side by side; what is left over at the right and at the bottom is not used.

    Args:
        patches: What is cut.
        size: Height and width of a piece; as large as a patch if those are smaller.
    """

    patches: Covering
    size: int

    def __len__(self) -> int:
        return len(self.patches) * self._across**2

    @property
    def side(self) -> int:
        """Height and width of a piece."""
        return min(self.size, self.patches.given.size)

    @property
    def _across(self) -> int:
        return self.patches.given.size // self.side

    def patch(self, index: int) -> Tensor:
        """Piece ``index`` of ``len(self)``, ``3 side side``, in [0, 1]."""
        number, place = divmod(index, self._across**2)
        row, column = divmod(place, self._across)
        rows, columns = (slice(start * self.side, (start + 1) * self.side) for start in (row, column))
        return self.patches.patch(number)[:, rows, columns]

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Some pieces, stacked."""
        return torch.stack([self.patch(index) for index in indices])

    def digest(self) -> str:
        """Tells these pieces from all others."""
        return digest_of_settings(self.patches.digest(), self.side)
