"""The HR and LR images of one set: which belong together, and whether their sizes fit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from srquant.images.bicubic import Border
from srquant.images.layouts import partners, split_folder
from srquant.images.listing import Listing, list_images
from srquant.images.pairs import Pair, PairFolder
from srquant.images.reading import read_size
from srquant.support.errors import FolderWarning, ImageError
from srquant.support.wording import counted

_SCALES = range(1, 17)
"""Scales that are told apart by names and sizes."""
_NAMED = 3
"""Files that a message names; the others are counted."""


@dataclass(frozen=True)
class PairSource:
    """Where the images of a set are.

    Args:
        folder: Of the set.
        name: Of the set in its folder, where that holds several.
        high: Folder of the HR images.
        low: Folder of the LR images; None if there are none, the same if they are in one folder.
    """

    folder: Path
    name: str
    high: Path
    low: Path | None

    def images(self) -> tuple[list[Path], list[Path]]:
        """HR and LR images.

        Raises:
            ImageError: There are no HR images.
        """
        highs = list(Listing.of(self.high).pictures)
        if self.low == self.high:
            highs, lows, _ = split_folder(highs)
        else:
            lows = [] if self.low is None else list(Listing.of(self.low).pictures)
        if not highs:
            raise ImageError(f"{self.high} holds {'LR images and ' if lows else ''}no images of HR")
        return highs, lows

    def is_of_another_scale(self, scale: int) -> bool:
        """Whether names and sizes of the first pair tell another scale; HR alone has none."""
        highs, lows = self.images()
        first = highs[0]
        if self.low is None or any(_fit(first, low, scale) for low in partners([first], lows, scale)[first]):
            return False
        return any(_fit(first, low, other) for other in _SCALES for low in partners([first], lows, other)[first])

    def open(self, name: str, scale: int, border: Border) -> PairFolder:
        """All pairs, after their sizes are compared; see :func:`find_pairs`."""
        highs, lows = self.images()
        self._say_what_is_passed_over()
        if self.low is None:
            return PairFolder(name, tuple(Pair(high, None, scale, border) for high in highs))
        found = _one_each(partners(highs, lows, scale), self.low)
        cropped = [high for high, low in found.items() if any(_require_fitting(high, low, scale))]
        if cropped:
            warn(
                self.folder,
                f"{len(cropped)} of {counted(len(highs), 'HR image')} larger than LR times {scale}, cropped at the "
                f"right and at the bottom (modcrop), as other programs do: {some(cropped)}",
            )
        of_others = (low for other in _SCALES for lows_of in partners(highs, lows, other).values() for low in lows_of)
        used = {*found.values(), *of_others}
        unused = [low for low in lows if low not in used]
        if unused:
            warn(self.folder, f"{counted(len(unused), 'LR image')} without an HR image, not used: {some(unused)}")
        return PairFolder(name, tuple(Pair(high, low, scale, border) for high, low in found.items()))

    def _say_what_is_passed_over(self) -> None:
        for folder in dict.fromkeys((self.high, self.low)):
            if folder is not None:
                listed = list_images(folder)
                if self.low == self.high and (others := split_folder(listed)[2]):
                    warn(folder, f"{counted(len(others), 'image')} neither _HR nor _LR, not used: {some(others)}")


def _one_each(found: dict[Path, list[Path]], place: Path) -> dict[Path, Path]:
    owners: dict[Path, Path] = {}
    for high, lows in found.items():
        if not lows:
            raise ImageError(f"{high} has no image of that name in {place}")
        if len(lows) > 1:
            raise ImageError(f"{high} has several LR images, {some(lows)}; leave one of them there")
        if lows[0] in owners:
            raise ImageError(
                f"{high} and {owners[lows[0]].name} have the same LR image, {lows[0].name}; leave one of them there"
            )
        owners[lows[0]] = high
    return {high: low for low, high in owners.items()}


def _excess(high: tuple[int, int], low: tuple[int, int], scale: int) -> tuple[int, int] | None:
    """How many pixels HR is larger than LR times the scale, if cropping to a multiple of it or of 12 explains that."""
    excess = (high[0] - scale * low[0], high[1] - scale * low[1])
    multiples = [scale, *([12] if 12 % scale == 0 else [])]
    explained = all(any(more in (0, length % m) for m in multiples) for more, length in zip(excess, high, strict=True))
    return excess if explained else None


def _fit(high: Path, low: Path, scale: int) -> bool:
    return _excess(read_size(high), read_size(low), scale) is not None


def _require_fitting(high: Path, low: Path, scale: int) -> tuple[int, int]:
    (height, width), (low_height, low_width) = sizes = read_size(high), read_size(low)
    excess = _excess(*sizes, scale)
    if excess is None:
        raise ImageError(
            f"{high} is {width}x{height} and {low} is {low_width}x{low_height}; at scale {scale} the HR image must be "
            f"{scale * low_width}x{scale * low_height}: is this the right scale, and is HR cropped to a multiple of it?"
        )
    return excess


def some(paths: list[Path]) -> str:
    """A few names for a message."""
    more = len(paths) - _NAMED
    return ", ".join(path.name for path in paths[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def warn(folder: Path, message: str) -> None:
    """Say something about a folder, as a :class:`~srquant.support.errors.FolderWarning`."""
    warnings.warn(f"{folder}: {message}", FolderWarning, stacklevel=4)
