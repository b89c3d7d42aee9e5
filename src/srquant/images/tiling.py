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

    Args:
        tile: Height and width of what is kept of a tile; rounded up to the alignment.
        overlap: Rows and columns that are computed on each inner side of it and thrown away, because the network could
            not see beyond the cut; rounded up to the alignment.
        alignment: Tile corners are multiples of this.

    Raises:
        ArgumentError: The tile is smaller than 16 pixels.
    """

    tile: int
    overlap: int
    alignment: int = 1

    def __post_init__(self) -> None:
        if self.tile < SMALLEST_TILE or self.overlap < 0:
            raise ArgumentError(
                f"tile={self.tile} with an overlap of {self.overlap} pixels; a tile has at least "
                f"{SMALLEST_TILE} pixels, an overlap 0"
            )

    def rows(self, height: int, width: int) -> Iterator[list[Tile]]:
        """The tiles of an image, a list for each row of them, top to bottom and left to right.

        The kept parts lie end to end and cover the image.
        """
        columns = self._spans(width)
        for rows, kept_rows in self._spans(height):
            yield [Tile(rows, given, kept_rows, kept) for given, kept in columns]

    def count(self, height: int, width: int) -> int:
        """How many tiles there are."""
        return len(self._spans(height)) * len(self._spans(width))

    def _spans(self, length: int) -> list[tuple[slice, slice]]:
        """What is given and what is kept, along one side."""
        step, margin = (size + -size % self.alignment for size in (self.tile, self.overlap))
        kept = [slice(start, min(start + step, length)) for start in range(0, length, step)]
        return [(slice(max(part.start - margin, 0), min(part.stop + margin, length)), part) for part in kept]


@dataclass(frozen=True)
class FixedTiling(Tiling):
    """How an image is cut into tiles of one size, for networks that take no other.

    Tiles at the borders of the image are moved inwards instead of being smaller, so that the border of the image is the
    border of the tile. Where the image ends before a tile does, or not at a multiple of the alignment, the tile is cut
    short; whoever runs the network fills it up.

    Args:
        tile: The shorter side of the size, for messages; what is kept of a tile follows from its size.
        size: Height and width of what the network is given; multiples of the alignment.
    """

    size: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if min(self.size) < 2 * self.margin + 1:
            raise ArgumentError(f"tiles of {self.size} leave nothing inside an overlap of {self.margin} pixels")

    @property
    def margin(self) -> int:
        """The overlap, rounded up to the alignment."""
        return self.overlap + -self.overlap % self.alignment

    def rows(self, height: int, width: int) -> Iterator[list[Tile]]:
        columns = self._cuts(width, self.size[1])
        for rows, kept_rows in self._cuts(height, self.size[0]):
            yield [Tile(rows, given, kept_rows, kept) for given, kept in columns]

    def count(self, height: int, width: int) -> int:
        return len(self._cuts(height, self.size[0])) * len(self._cuts(width, self.size[1]))

    def _cuts(self, length: int, size: int) -> list[tuple[slice, slice]]:
        whole = length + -length % self.alignment
        if whole <= size:
            return [(slice(0, length), slice(0, length))]
        cuts: list[tuple[slice, slice]] = []
        done = 0
        while done < length:
            start = min(max(done - self.margin, 0), whole - size)
            stop = start + size
            kept = length if stop >= length else stop - self.margin
            cuts.append((slice(start, min(stop, length)), slice(done, kept)))
            done = kept
        return cuts


def _inside(kept: slice, given: slice, scale: int) -> slice:
    return slice((kept.start - given.start) * scale, (kept.stop - given.start) * scale)
