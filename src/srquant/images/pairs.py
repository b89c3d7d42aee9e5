"""Benchmark pairs: folders with ``HR`` and ``LR``, or high-resolution images alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srquant.images.bicubic import Border, crop_to_multiple, shrink_8bit
from srquant.images.listing import list_images
from srquant.images.reading import read_picture, read_size
from srquant.support.digests import digest_of_pictures, digest_of_settings
from srquant.support.errors import ImageError
from srquant.support.files import is_folder
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
        """LR and HR, uint8, ``h w 3``; HR is scale times as large as LR."""
        high = read_picture(self.high).rgb8()
        if self.low is not None:
            return read_picture(self.low).rgb8(), high
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

    def digest(self) -> str:
        """Tells this data set from all others, by the contents of its files and how LR is made from them.

        Raises:
            ImageError: A file cannot be read.
        """
        files = [path for pair in self.pairs for path in (pair.high, pair.low) if path is not None]
        made = [[pair.low is None, pair.scale, pair.border] for pair in self.pairs]
        return digest_of_settings(digest_of_pictures(files), made)


def find_pairs(folder: Path | str, scale: int, border: Border = "replicate") -> list[PairFolder]:
    """The pair folders at or below ``folder`` that fit a scale.

    A pair folder has ``HR`` and ``LR`` subfolders whose images match by name (``NNN.png``, or ``NNNx4.png`` in ``LR``)
    and size, or ``HR`` alone. A folder that holds images itself is taken for ``HR`` alone. Below a parent of several,
    folders of another scale are passed over.

    Raises:
        ImageError: Nothing is found, the only pair folder has another scale, an LR image is missing, or a size is not
            ``scale`` times the other.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise ImageError(f"{folder} is not a folder of images or of pairs (HR and LR)")
    if _is_pair_folder(folder):
        return [_open(folder, folder, scale, border)]
    below = sorted(path for path in folder.rglob("*") if path.is_dir() and _is_pair_folder(path))
    fitting = [path for path in below if _fits(path, scale)]
    if fitting:
        return [_open(path, folder, scale, border) for path in fitting]
    if below:
        raise ImageError(f"none of the {len(below)} pair folders below {folder} has scale {scale}")
    images = list_images(folder)
    if not images:
        raise ImageError(f"{folder} holds neither HR and LR folders nor images")
    return [PairFolder(folder.name, tuple(Pair(path, None, scale, border) for path in images))]


def _is_pair_folder(folder: Path) -> bool:
    return (folder / "HR").is_dir()


def _fits(folder: Path, scale: int) -> bool:
    """Whether the first pair has this scale; HR alone fits every scale."""
    highs = list_images(folder / "HR")
    if not highs or not (folder / "LR").is_dir():
        return bool(highs)
    low = _partner(highs[0], list_images(folder / "LR"), scale)
    return low is not None and read_size(highs[0]) == tuple(scale * length for length in read_size(low))


def _open(folder: Path, root: Path, scale: int, border: Border) -> PairFolder:
    highs = list_images(folder / "HR")
    if not highs:
        raise ImageError(f"{folder / 'HR'} holds no images")
    name = _name(folder, root)
    if not (folder / "LR").is_dir():
        return PairFolder(name, tuple(Pair(high, None, scale, border) for high in highs))
    lows = list_images(folder / "LR")
    pairs: list[Pair] = []
    for high in highs:
        low = _partner(high, lows, scale)
        if low is None:
            raise ImageError(f"{high} has no image of that name in {folder / 'LR'}")
        _check_sizes(high, low, scale)
        pairs.append(Pair(high, low, scale, border))
    return PairFolder(name, tuple(pairs))


def _partner(high: Path, lows: list[Path], scale: int) -> Path | None:
    stems = (high.stem, f"{high.stem}x{scale}")
    return next((low for low in lows if low.stem in stems), None)


def _check_sizes(high: Path, low: Path, scale: int) -> None:
    (height, width), (low_height, low_width) = read_size(high), read_size(low)
    if (height, width) != (scale * low_height, scale * low_width):
        raise ImageError(
            f"{high} is {width}x{height} and {low} is {low_width}x{low_height}; at scale {scale} the HR image must be "
            f"{scale * low_width}x{scale * low_height}: is this the right scale, and is HR cropped to a multiple of it?"
        )


def _name(folder: Path, root: Path) -> str:
    """``Set5`` for ``Set5/x4``; the path below the root where several sets are opened together."""
    if folder == root:
        return folder.parent.name if folder.name.lower() in ("x2", "x3", "x4", "x8") else folder.name
    parts = folder.relative_to(root).parts
    named = [part for part in parts if part.lower() not in ("x2", "x3", "x4", "x8")]
    return "/".join(named) or root.name
