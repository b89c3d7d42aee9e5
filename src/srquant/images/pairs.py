"""Benchmark pairs: HR and LR images, or HR images from which LR is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srquant.images.bicubic import Border, crop_to_multiple, shrink_8bit
from srquant.images.reading import read_picture
from srquant.support.digests import digest_of_pictures, digest_of_settings
from srquant.support.errors import ImageError
from srquant.support.tensors import planes
from srquant.support.wording import counted


@dataclass(frozen=True)
class Pair:
    """One image of a benchmark. ``low`` is None where the LR image is made from ``high``, which is it at scale 1."""

    high: Path
    low: Path | None
    scale: int
    border: Border = "replicate"

    def __post_init__(self) -> None:
        object.__setattr__(self, "high", Path(self.high))  # texts do as well
        object.__setattr__(self, "low", None if self.low is None else Path(self.low))

    @property
    def name(self) -> str:
        """File name of the HR image."""
        return self.high.name

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """LR and HR, uint8, ``h w 3``; HR is scale times as large as LR, for which it is cropped if need be."""
        high = read_picture(self.high).rgb8()
        if self.low is not None:
            low = read_picture(self.low).rgb8()
            height, width = (self.scale * length for length in low.shape[:2])
            return low, np.ascontiguousarray(high[:height, :width])
        cropped = crop_to_multiple(planes(high), self.scale)
        if 0 in cropped.shape:
            raise ImageError(f"{self.high} is smaller than scale={self.scale}")
        low = shrink_8bit(cropped, self.scale, self.border)
        return low.permute(1, 2, 0).numpy(), cropped.permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class PairFolder:
    """A benchmark data set of one scale."""

    name: str
    pairs: tuple[Pair, ...]

    def __repr__(self) -> str:
        return f"PairFolder({self.name}: {counted(len(self.pairs), 'pair')})"

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def low_is_made(self) -> bool:
        """Whether there are no LR images, so that they are made from the HR images by MATLAB's bicubic."""
        return any(pair.low is None for pair in self.pairs)

    def digest(self) -> str:
        """Tells this data set from all others, by the contents of its files and how LR is made from them.

        Raises:
            ImageError: A file cannot be read.
        """
        files = [path for pair in self.pairs for path in (pair.high, pair.low) if path is not None]
        made = [[pair.low is None, pair.scale, pair.border] for pair in self.pairs]
        return digest_of_settings(digest_of_pictures(files), made)
