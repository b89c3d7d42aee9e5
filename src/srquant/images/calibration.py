"""Calibration patches: low-resolution images like those the network will be given, drawn again whenever asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from srquant.fetching import resolve
from srquant.images.listing import list_images
from srquant.images.pairs import Pair
from srquant.images.reading import read_picture, read_size
from srquant.support.digests import digest_of_pictures, digest_of_settings
from srquant.support.errors import ArgumentError, FolderWarning, ImageError
from srquant.support.settings import Seed, check
from srquant.support.tensors import planes
from srquant.support.wording import counted

SMALLEST_PATCH = 16
"""Pixels; smaller LR images carry too little to calibrate on."""
LARGEST_COUNT = 100_000
"""Patches: 2DQuant, which draws most, uses 96,000 in all. More change no range any more, and would take days."""
_USUAL_PATCH = 96
_NAMED_FAILURES = 3
"""Images of which a message says why they cannot be read; the others are counted."""
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
        passed_over: How many images of the folder are smaller than a patch.
    """

    holds: ClassVar[Literal["patches"]] = "patches"
    """LR patches alone; see ``Method.needs``."""

    images: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    count: int
    size: int
    seed: int
    shrink: int
    wanted: int
    passed_over: int = 0
    _kept: dict[int, NDArray[np.uint8]] = field(
        default_factory=dict[int, "NDArray[np.uint8]"], init=False, repr=False, compare=False
    )

    @classmethod
    def from_low_resolution(
        cls, folder: Path | str, *, count: int = 100, size: int | None = None, seed: int = 0
    ) -> Calibration:
        """Patches of the LR images in a folder and the folders in it.

        Args:
            folder: Of the images, or a name such as ``div2k-lr``. Images smaller than a patch are passed over and
                counted.
            count: How many patches, at most 100,000.
            size: Their height and width, at least 16. If None 96, or what the smallest image allows, not counting
                images that allow less than half of what the middle one of all does (or of 96), such as icons.
            seed: Decides which.

        Raises:
            ArgumentError: A number breaks its rule, or no image is as large as the size.
            ImageError: There are no images, or none has 16 pixels a side.

        Warns:
            FolderWarning: Something else is in the folder, an image cannot be read, each image has one colour, or all
                images are the same.
        """
        return _open(resolve(folder, "low"), count, size, seed, 1)

    @classmethod
    def from_photographs(
        cls, folder: Path | str, scale: int, *, count: int = 100, size: int | None = None, seed: int = 0
    ) -> Calibration:
        """Patches of LR images that are made from photographs by MATLAB's bicubic.

        Args:
            folder: Of the photographs, or a name such as ``div2k-hr``; as of :meth:`from_low_resolution`.
            scale: How many times smaller LR images are.
            count: How many patches, at most 100,000.
            size: As of :meth:`from_low_resolution`.
            seed: Decides which.

        Raises:
            ArgumentError: A number breaks its rule, or no LR image would be as large as the size.
            ImageError: There are no photographs, or no LR image would have 16 pixels a side.

        Warns:
            FolderWarning: See :meth:`from_low_resolution`.
        """
        return _open(resolve(folder, "photographs"), count, size, seed, scale)

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

    def drawn(self) -> list[Path]:
        """The images that patches are cut from, each once, in the order of the first patches cut from them."""
        return [self.images[self._chosen(index)] for index in range(min(self.count, len(self.images)))]

    def digest(self) -> str:
        """Tells these patches from all others: by the contents of the files that they are cut from, in their order,
        and the numbers that say how.

        Raises:
            ImageError: An image cannot be read.
        """
        numbers = [len(self.images), self.count, self.size, self.seed, self.shrink]
        return digest_of_settings(digest_of_pictures(self.drawn()), numbers)

    def describe(self) -> str:
        """A line for reports."""
        kind = "LR images" if self.shrink == 1 else f"photographs shrunk by {self.shrink}"
        too_large = f"{self.wanted}x{self.wanted}" if self.size < self.wanted else ""
        smaller = f" (not {too_large}: the smallest image allows no more)" if too_large else ""
        without = f" ({counted(self.passed_over, 'smaller one')} passed over)" if self.passed_over else ""
        return (
            f"{self.count} patches of {self.size}x{self.size}{smaller} from {len(self.images)} {kind}{without}, "
            f"seed {self.seed}"
        )

    def _warn_of_odd_images(self, folder: Path) -> None:
        """Warn of images that tell nothing of what the network will be given. Few are read unless all are odd."""
        try:
            if self._have_one_colour():
                what = "each calibration image has one colour only, such as black"
            elif len(self.images) > 1 and self._are_the_same():
                what = f"all {len(self.images)} calibration images are the same"
            else:
                return
        except ImageError:  # which is raised where a patch is cut from the damaged image, if one is
            return
        warnings.warn(f"{folder}: {what}; ranges measured on them fit no others", FolderWarning, stacklevel=4)

    def _have_one_colour(self) -> bool:
        colours = (read_picture(path).rgb8().reshape(-1, 3) for path in self.images)
        return all((pixels == pixels[0]).all() for pixels in colours)

    def _are_the_same(self) -> bool:
        first = read_picture(self.images[0]).rgb8()
        return all(
            size == self.sizes[0] and np.array_equal(read_picture(path).rgb8(), first)
            for path, size in zip(self.images, self.sizes, strict=True)
        )


def _open(folder: Path, count: int, size: int | None, seed: int, shrink: int) -> Calibration:
    check("count", count, Annotated[int, Field(ge=1, le=LARGEST_COUNT)])
    check("seed", seed, Seed)
    check("scale", shrink, Annotated[int, Field(ge=1, le=32)])
    check("size", size, int | None)
    if size is not None and size < SMALLEST_PATCH:
        raise ArgumentError(f"size={size} is too small a calibration patch; at least {SMALLEST_PATCH} is needed")
    sizes = _readable_sizes(folder, shrink)
    fitting, wanted = _patch_size(folder, sizes, size, shrink)
    kept = {path: lengths for path, lengths in sizes.items() if min(lengths) >= fitting}
    patches = Calibration(
        tuple(kept), tuple(kept.values()), count, fitting, seed, shrink, wanted, len(sizes) - len(kept)
    )
    patches._warn_of_odd_images(folder)  # pyright: ignore[reportPrivateUsage]
    return patches


def _readable_sizes(folder: Path, shrink: int) -> dict[Path, tuple[int, int]]:
    """Height and width of each picture as an LR image; pictures that cannot be opened are passed over and named.

    Raises:
        ImageError: There is no picture, or none can be opened.
    """
    images = list_images(folder, recursive=True)
    if not images:
        raise ImageError(f"{folder} holds no images to calibrate on")
    sizes: dict[Path, tuple[int, int]] = {}
    failed: list[ImageError] = []
    for path in images:
        try:
            height, width = read_size(path)
            sizes[path] = (height // shrink, width // shrink)
        except ImageError as error:
            failed.append(error)
    if not sizes:
        raise failed[0]
    if failed:
        reasons = "; ".join(map(str, failed[:_NAMED_FAILURES]))
        warnings.warn(
            f"{folder}: passed over {counted(len(failed), 'image')} that cannot be read: {reasons}",
            FolderWarning,
            stacklevel=4,
        )
    return sizes


def _patch_size(folder: Path, sizes: dict[Path, tuple[int, int]], size: int | None, shrink: int) -> tuple[int, int]:
    """Height and width of the patches, and what they would be were the images large enough.

    Without a size, patches are as large as the usual one and as the smallest image allows, not counting images less
    than half as large as the middle one of all allows: an icon among photographs makes no patch small.

    Raises:
        ArgumentError: No image is as large as the size that was asked for.
        ImageError: No image is large enough for any patch.
    """
    allowed = {path: min(lengths) for path, lengths in sizes.items() if min(lengths) >= SMALLEST_PATCH}
    if not allowed:
        path = max(sizes, key=lambda path: min(sizes[path]))
        height, width = sizes[path]
        made = "" if shrink == 1 else f" as LR image at scale {shrink}"
        raise ImageError(
            f"{path} is {width}x{height}{made}; calibration images need at least "
            f"{SMALLEST_PATCH}x{SMALLEST_PATCH} pixels: use larger images"
        )
    if size is not None and size <= max(allowed.values()):
        return size, size
    wanted = _USUAL_PATCH if size is None else size
    usual = min(_USUAL_PATCH, sorted(allowed.values())[(len(allowed) - 1) // 2])
    counting = {path: length for path, length in allowed.items() if 2 * length >= usual}
    smallest = min(counting, key=lambda path: counting[path])
    if size is not None:
        raise ArgumentError(
            f"size={size}: no calibration image in {folder} is that large; give at most {counting[smallest]}, which "
            f"the smallest ({smallest.name}) allows, or no size"
        )
    return min(wanted, counting[smallest]), wanted
