"""A picture that comes as bands of rows, so that it is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from srquant.images.metadata import Metadata
from srquant.images.picture import Layout, Pixels


@dataclass(frozen=True)
class Banded:
    """A picture of which the pixels are still to come.

    Args:
        height: Rows of all bands together.
        width: Pixels of a row.
        layout: What the bands hold.
        bands: ``rows width channels`` each, top to bottom, of any heights; uint8 or uint16. Read once.
        metadata: What else is said of it.
        duration: Milliseconds, for a frame of an animation.
    """

    height: int
    width: int
    layout: Layout
    bands: Iterable[Pixels]
    metadata: Metadata = field(default_factory=Metadata)
    duration: float = 0

    def checked(self) -> Iterator[Pixels]:
        """The bands; each is what the layout says, and together they are as high as the picture.

        Raises:
            ValueError: They are not. A writer that went on would leave a file that nobody can read.
        """
        row = 0
        for band in self.bands:
            if band.dtype != self.layout.dtype or band.shape[1:] != (self.width, self.layout.channels):
                raise ValueError(f"a band of {band.dtype} {band.shape} in a picture {self.width} wide of {self.layout}")
            row += len(band)
            yield band
        if row != self.height:
            raise ValueError(f"bands of {row} rows in a picture of {self.height}")

    def cut(self, rows: int) -> Iterator[Pixels]:
        """The same rows in bands of equal height, contiguous; the last one holds what is left."""
        waiting: list[Pixels] = []
        height = 0
        for band in self.checked():
            waiting.append(band)
            height += len(band)
            while height >= rows:
                whole = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
                yield np.ascontiguousarray(whole[:rows])
                waiting, height = [whole[rows:]], height - rows
        if height:
            yield np.concatenate(waiting)

    def whole(self) -> Pixels:
        """All bands as one array, ``height width channels``."""
        pixels = np.empty((self.height, self.width, self.layout.channels), self.layout.dtype)
        row = 0
        for band in self.checked():
            pixels[row : row + len(band)] = band
            row += len(band)
        return pixels
