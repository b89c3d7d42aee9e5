"""Training crops from a folder of photographs."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from srquant.fetching import resolve
from srquant.images.calibration import Calibration
from srquant.images.listing import list_images
from srquant.images.pairs import Pair
from srquant.images.reading import read_size
from srquant.support.digests import digest_of_pictures, digest_of_settings
from srquant.support.errors import FolderWarning, ImageError
from srquant.support.tensors import as_tensor
from srquant.support.wording import counted

Both = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class Photographs:
    """Photographs and the LR images that MATLAB's bicubic makes of them.

    Args:
        images: The files.
        scale: How many times smaller LR is.
        cache_bytes: Decoded images kept in memory, at most.
    """

    holds: ClassVar[Literal["pairs"]] = "pairs"
    """LR and HR of the same; see ``Method.needs``."""

    images: tuple[Path, ...]
    scale: int
    cache_bytes: int = 4 << 30
    _cache: OrderedDict[Path, Both] = field(
        default_factory=OrderedDict[Path, "Both"], init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, folder: Path | str, scale: int, patch: int) -> Photographs:
        """All photographs of a folder that are large enough for a patch.

        Args:
            folder: Of the photographs, with all folders in it; or a name such as ``div2k-hr``.
            scale: How many times smaller LR is.
            patch: Height and width of an LR crop.

        Raises:
            ImageError: The folder holds none, or one cannot be read.

        Warns:
            FolderWarning: Something is passed over.
        """
        needed = patch * scale
        folder = resolve(folder, "photographs")
        listed = list_images(folder, recursive=True)
        images = [path for path in listed if min(read_size(path)) >= needed]
        if not images:
            raise ImageError(f"{folder} holds no image of at least {needed}x{needed} pixels to train on")
        if len(images) < len(listed):
            small = counted(len(listed) - len(images), "image")
            warnings.warn(f"{folder}: passed over {small} smaller than {needed}x{needed}", FolderWarning, stacklevel=2)
        return cls(tuple(images), scale)

    def split(self, count: int) -> tuple[Photographs, Photographs]:
        """Training and validation parts; the latter takes ``count`` images spread evenly over the list."""
        held = {len(self.images) * (2 * i + 1) // (2 * count) for i in range(count)}
        train = tuple(path for i, path in enumerate(self.images) if i not in held)
        kept = tuple(path for i, path in enumerate(self.images) if i in held)
        if not train:
            raise ImageError(f"{len(self.images)} images are too few to hold out {count} for validation")
        return Photographs(train, self.scale, self.cache_bytes), Photographs(kept, self.scale, self.cache_bytes)

    def require(self, patch: int) -> None:
        """See that LR crops of a size can be cut from each.

        Raises:
            ImageError: One is too small.
        """
        for path in self.images:
            if min(read_size(path)) < patch * self.scale:
                raise ImageError(
                    f"{path} is too small for LR crops of {patch}x{patch} at scale {self.scale}; leave it out, as "
                    f"Photographs.of(folder, {self.scale}, {patch}) does"
                )

    def calibration(self, count: int, size: int, seed: int) -> Calibration:
        """Patches of their LR images.

        Args:
            count: How many.
            size: Height and width.
            seed: Decides which.
        """
        sizes = [read_size(path) for path in self.images]
        small = tuple((height // self.scale, width // self.scale) for height, width in sizes)
        return Calibration(self.images, small, count, size, seed, self.scale, size)

    def describe(self) -> str:
        """A line for reports."""
        return f"{counted(len(self.images), 'photograph')} and the LR images that bicubic makes of them"

    def __repr__(self) -> str:
        return f"Photographs({self.describe()})"

    def digest(self) -> str:
        """Tells these photographs from all others, by the contents of the files."""
        return digest_of_settings(digest_of_pictures(self.images), self.scale)

    def read(self, index: int) -> Both:
        """LR and HR of an image, uint8, ``3 h w``."""
        path = self.images[index]
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        low, high = (np.ascontiguousarray(pixels.transpose(2, 0, 1)) for pixels in Pair(path, None, self.scale).read())
        both = self._cache[path] = low, high
        while (
            len(self._cache) > 1
            and sum(low.nbytes + high.nbytes for low, high in self._cache.values()) > self.cache_bytes
        ):
            self._cache.popitem(last=False)
        return both

    def batch(self, seed: int, step: int, size: int, patch: int, part: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """The batch of a training step: LR and HR crops, flipped and turned, float32 in [0, 1].

        It depends on the arguments alone, so an interrupted run goes on with the same crops, and several processes
        that each take their ``part`` see together what one process sees.
        """
        draw = np.random.default_rng((seed, step))
        picks = draw.integers(0, len(self.images), size)
        corners = draw.random((size, 2))
        turns = draw.integers(0, 8, size)
        lows: list[NDArray[np.uint8]] = []
        highs: list[NDArray[np.uint8]] = []
        for pick, corner, turn in list(zip(picks, corners, turns, strict=True))[part]:
            low, high = self.read(int(pick))
            top, left = (int(corner[i] * (low.shape[i + 1] - patch + 1)) for i in range(2))
            lows.append(_turn(low[:, top : top + patch, left : left + patch], int(turn)))
            s = self.scale
            highs.append(_turn(high[:, s * top : s * (top + patch), s * left : s * (left + patch)], int(turn)))
        return _to_tensor(lows), _to_tensor(highs)


def _turn(pixels: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    turned = np.rot90(pixels, turn % 4, (1, 2))
    return turned[:, :, ::-1] if turn >= 4 else turned


def _to_tensor(crops: list[NDArray[np.uint8]]) -> Tensor:
    return as_tensor(np.stack(crops)).float().div_(255)
