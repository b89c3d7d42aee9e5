"""Pixel shuffles, written where they cost least.

A shuffle only moves values. What acts on single values, as the quantization for the next convolution does, is written
before it and so becomes part of the convolution before; then bytes are moved instead of floats. And where the output of
a convolution is shuffled, its channels get an order that leaves those of a pixel side by side, as they lie in the
engine's memory: it moves rows instead of single values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from torch import Tensor
from torch.fx import Node

if TYPE_CHECKING:
    from srquant.engines.writer import Writer

NAME = "aten.pixel_shuffle.default"
_GROUPS = 6
"""Number of this argument of a convolution."""


@dataclass(frozen=True)
class Shuffle:
    """A pixel shuffle.

    Args:
        factor: r, on height and width.
        by_pixel: Channels come as ``r r c``, those of one pixel in a row, instead of PyTorch's ``c r r``.
    """

    factor: int
    by_pixel: bool = False

    @classmethod
    def after(cls, node: Node) -> Shuffle | None:
        """The shuffle that takes all of a convolution's output; None if there is none, or channels come in groups."""
        if len(node.args) > _GROUPS and node.args[_GROUPS] != 1:
            return None
        factors = {cast(int, user.args[1]) if str(user.target) == NAME else 0 for user in node.users}
        factor = factors.pop() if len(factors) == 1 else 0
        return cls(factor, by_pixel=True) if factor else None

    def of_channels(self, rows: Tensor) -> Tensor:
        """What an operator before the shuffle has for its output channels, as PyTorch orders them, in the right order.

        Args:
            rows: ``c·r² …``.
        """
        if not self.by_pixel:
            return rows
        return rows.reshape(-1, self.factor**2, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)

    def of_pixels(self, rows: Tensor) -> Tensor:
        """What an operator behind the shuffle has for its channels, for one before it.

        Args:
            rows: ``c …``.
        """
        return self.of_channels(rows.repeat_interleave(self.factor**2, 0))

    def write(self, w: Writer, x: str) -> str:
        """Write the shuffle and remember what it moved."""
        mode = "DCR" if self.by_pixel else "CRD"
        name = cast(str, w.node("DepthToSpace", x, blocksize=self.factor, mode=mode))
        w.shuffled[name] = x, self
        return name
