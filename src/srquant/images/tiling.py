"""Cutting a large image into overlapping tiles, so that memory depends on the tile and not on the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from srquant.support.errors import ArgumentError

A = TypeVar("A", bound=Any)
SMALLEST_TILE = 16
UNBOUNDED_OVERLAP = 32
"""LR pixels of overlap for networks whose receptive field has no bound, as those with attention."""


@dataclass(frozen=True)
class Tile:
    """A piece of an image: the rows and columns the network is given, and those of them that are kept."""

    rows: slice
    columns: slice
    kept_rows: slice
    kept_columns: slice

    def cut(self, image: A) -> A:
        """What the network is given, of an array or tensor ``... h w``."""
        return image[..., self.rows, self.columns]

    def keep(self, output: A, scale: int) -> A:
        """What is kept of the network's output, ``... scale·rows scale·columns``."""
        rows = _inside(self.kept_rows, self.rows, scale)
        return output[..., rows, _inside(self.kept_columns, self.columns, scale)]


@dataclass(frozen=True)
class Tiling:
    """How an image is cut.

    Tiles lie in rows of equal height and columns of equal width; the last of each are smaller where the image ends.

    Args:
        tile: Height and width of what is kept of a tile; rounded up to the alignment.
        overlap: Rows and columns that are computed on each inner side of it and thrown away, because the network could
            not see beyond the cut; rounded up to the alignment.
        alignment: Tile corners are multiples of this.
        size: Height and width of what the network is given, multiples of the alignment, for networks that take no
            other; what is kept of a tile then follows from it, and ``tile`` serves messages only. Tiles at the border
            of the image are moved inwards, so that its border is theirs. Where the image ends before a tile does, or
            not at a multiple of the alignment, the tile is cut short; whoever runs the network fills it up.

    Raises:
        ArgumentError: The tile is smaller than 16 pixels, or the overlap leaves nothing of the size.
    """

    tile: int
    overlap: int
    alignment: int = 1
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.tile < SMALLEST_TILE or self.overlap < 0:
            raise ArgumentError(
                f"tile={self.tile} with an overlap of {self.overlap} pixels; a tile has at least "
                f"{SMALLEST_TILE} pixels, an overlap 0"
            )
        margin = self._aligned(self.overlap)
        if self.size is not None and min(self.size) < 2 * margin + 1:
            raise ArgumentError(f"tiles of {self.size} leave nothing inside an overlap of {margin} pixels")

    def rows(self, height: int, width: int) -> Iterator[list[Tile]]:
        """The tiles of an image, a list for each row of them, top to bottom and left to right.

        The kept parts lie end to end and cover the image.
        """
        columns = self._spans(1, width)
        for rows, kept_rows in self._spans(0, height):
            yield [Tile(rows, given, kept_rows, kept) for given, kept in columns]

    def count(self, height: int, width: int) -> int:
        """How many tiles there are."""
        return len(self._spans(0, height)) * len(self._spans(1, width))

    def _spans(self, axis: int, length: int) -> list[tuple[slice, slice]]:
        """What is given and what is kept, along one side."""
        step, margin = self._aligned(self.tile), self._aligned(self.overlap)
        size, whole = self.size[axis] if self.size else None, self._aligned(length)
        if size is not None:
            neighbours = 0 if whole <= size else 1 if whole <= 2 * (size - margin) else 2
            step = size - neighbours * margin
        spans: list[tuple[slice, slice]] = []
        for start in range(0, length, step):
            kept = slice(start, min(start + step, length))
            first, last = max(start - margin, 0), kept.stop + margin
            if size is not None:
                first = max(min(first, whole - size), 0)
                last = first + size
            spans.append((slice(first, min(last, length)), kept))
        return spans

    def _aligned(self, pixels: int) -> int:
        return pixels + -pixels % self.alignment


def _inside(kept: slice, given: slice, scale: int) -> slice:
    return slice((kept.start - given.start) * scale, (kept.stop - given.start) * scale)
