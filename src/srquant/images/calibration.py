"""Calibration patches: low-resolution images like those the network will be given, drawn again whenever asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from srquant.images.listing import list_images
from srquant.images.pairs import Pair
from srquant.images.reading import read_size
from srquant.support.digests import digest_of_pictures, digest_of_settings
from srquant.support.errors import ArgumentError, ImageError
from srquant.support.settings import Seed, check
from srquant.support.tensors import planes

SMALLEST_PATCH = 16
"""Pixels; smaller LR images carry too little to calibrate on."""
LARGEST_COUNT = 100_000
"""Patches: 2DQuant, which draws most, uses 96,000 in all. More change no range any more, and would take days."""
_USUAL_PATCH = 96
_KEPT_BYTES = 64 << 20
"""Patches kept in memory, at most; the others are read again."""


@dataclass(frozen=True)
class Calibration:
    """n low-resolution patches, RGB in [0, 1].

    Patch i is read, cut, flipped and turned whenever it is asked for, always the same way, and only a bounded number
    is kept in memory: the set may be of any size and is iterated any number of times.

    Args:
        images: The files.
        sizes: Height and width of each as an LR image.
        count: How many patches.
        size: Height and width of a patch.
        seed: Decides which images, where in them, and how turned.
        shrink: 1 if the files are LR images; the scale if they are photographs from which LR is made (MATLAB bicubic).
        wanted: The patch size asked for, if the images were too small for it.
    """

    images: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    count: int
    size: int
    seed: int
    shrink: int
    wanted: int
    _kept: dict[int, NDArray[np.uint8]] = field(
        default_factory=dict[int, "NDArray[np.uint8]"], init=False, repr=False, compare=False
    )

    @classmethod
    def from_low_resolution(
        cls, folder: Path | str, *, count: int = 100, size: int | None = None, seed: int = 0
    ) -> Calibration:
        """Patches of the LR images in a folder.

        Args:
            folder: Of the images.
            count: How many patches, at most 100,000.
            size: Their height and width, at least 16, less where the smallest image allows no more; 96 if None.
            seed: Decides which.

        Raises:
            ArgumentError: A number breaks its rule, or no image is as large as the size.
            ImageError: The folder is empty, or an image is smaller than 16 pixels.
        """
        return _open(Path(folder), count, size, seed, 1)

    @classmethod
    def from_photographs(
        cls, folder: Path | str, scale: int, *, count: int = 100, size: int | None = None, seed: int = 0
    ) -> Calibration:
        """Patches of LR images that are made from photographs by MATLAB's bicubic.

        Args:
            folder: Of the photographs.
            scale: How many times smaller LR images are.
            count: How many patches, at most 100,000.
            size: As of :meth:`from_low_resolution`.
            seed: Decides which.

        Raises:
            ArgumentError: A number breaks its rule, or no LR image would be as large as the size.
            ImageError: The folder is empty, or an LR image would be smaller than 16 pixels.
        """
        return _open(Path(folder), count, size, seed, scale)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(map(Path, self.images)))  # texts do as well

    def __repr__(self) -> str:
        return f"Calibration({self.describe()})"

    def __len__(self) -> int:
        return self.count

    def patch(self, index: int) -> Tensor:
        """Patch ``index`` of ``len(self)``, float32, ``3 size size``, in [0, 1]."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return planes(self._pixels(index)).float() / 255

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = self._cut(index)
            if (len(self._kept) + 1) * pixels.nbytes <= _KEPT_BYTES:
                self._kept[index] = pixels
        return pixels

    def _chosen(self, index: int) -> int:
        """The number of the image that a patch is cut from. Every image serves once before any serves twice."""
        turn, number = divmod(index, len(self.images))
        return int(np.random.default_rng((self.seed, turn)).permutation(len(self.images))[number])

    def _cut(self, index: int) -> NDArray[np.uint8]:
        turn, number = divmod(index, len(self.images))
        chosen = self._chosen(index)
        height, width = self.sizes[chosen]
        draw = np.random.default_rng((self.seed, turn, number, 1))
        top = int(draw.integers(height - self.size + 1))
        left = int(draw.integers(width - self.size + 1))
        low, _ = Pair(self.images[chosen], None, self.shrink).read()
        pixels = low[top : top + self.size, left : left + self.size]
        if draw.integers(2):
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(np.rot90(pixels, int(draw.integers(4))))

    def batches(self, size: int) -> Iterator[Tensor]:
        """All patches in order, ``n 3 size size`` with n = ``size``, the last batch smaller."""
        for start in range(0, self.count, size):
            yield self.batch(range(start, min(start + size, self.count)))

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Some patches, stacked."""
        return torch.stack([self.patch(index) for index in indices])

    def at_most(self, count: int, size: int) -> Calibration:
        """No more patches than ``count``, none larger than ``size``, of the same images and by the same seed."""
        count, size = min(count, self.count), min(size, self.size)
        return self if (count, size) == (self.count, self.size) else replace(self, count=count, size=size, wanted=size)

    def digest(self) -> str:
        """Tells these patches from all others: by the contents of the files that they are cut from, in their order,
        and the numbers that say how.

        Raises:
            ImageError: An image cannot be read.
        """
        drawn = [self.images[self._chosen(index)] for index in range(min(self.count, len(self.images)))]
        numbers = [len(self.images), self.count, self.size, self.seed, self.shrink]
        return digest_of_settings(digest_of_pictures(drawn), numbers)

    def describe(self) -> str:
        """A line for reports."""
        kind = "LR images" if self.shrink == 1 else f"photographs shrunk by {self.shrink}"
        smaller = f" ({self.wanted} asked for; the smallest image allows no more)" if self.size < self.wanted else ""
        return (
            f"{self.count} patches of {self.size}x{self.size}{smaller} from {len(self.images)} {kind}, seed {self.seed}"
        )


def _open(folder: Path, count: int, size: int | None, seed: int, shrink: int) -> Calibration:
    check("count", count, Annotated[int, Field(ge=1, le=LARGEST_COUNT)])
    check("seed", seed, Seed)
    check("scale", shrink, Annotated[int, Field(ge=1, le=32)])
    check("size", size, int | None)
    if size is not None and size < SMALLEST_PATCH:
        raise ArgumentError(f"size={size} is too small a calibration patch; at least {SMALLEST_PATCH} is needed")
    images = list_images(folder)
    if not images:
        raise ImageError(f"{folder} holds no images to calibrate on")
    sizes = [tuple(length // shrink for length in read_size(path)) for path in images]
    smallest = min(range(len(images)), key=lambda i: min(sizes[i]))
    if min(sizes[smallest]) < SMALLEST_PATCH:
        height, width = sizes[smallest]
        made = "" if shrink == 1 else f" as LR image at scale {shrink}"
        raise ImageError(
            f"{images[smallest]} is {width}x{height}{made}; calibration images need at least "
            f"{SMALLEST_PATCH}x{SMALLEST_PATCH} pixels: remove it or use larger images"
        )
    most = min(sizes[smallest])
    if size is not None and size > max(min(lengths) for lengths in sizes):
        raise ArgumentError(
            f"size={size}: no calibration image in {folder} is that large; give at most {most}, which the smallest "
            f"({images[smallest].name}) allows, or no size"
        )
    wanted = _USUAL_PATCH if size is None else size
    fitting = min(wanted, most)
    return Calibration(tuple(images), tuple((h, w) for h, w in sizes), count, fitting, seed, shrink, wanted)
