"""Which files of a folder are pictures, and what is passed over and why."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from PIL import features

from srquant.support.errors import FolderWarning, ImageError
from srquant.support.files import PICTURES, is_folder, is_temporary

_OPTIONAL = {".avif": "avif", ".webp": "webp", ".jp2": "jpg_2000", ".j2k": "jpg_2000", ".jpx": "jpg_2000"}
"""Formats that Pillow reads where it was built with the library of this name."""
_NOT_READ = (
    *(".heic", ".heif", ".hif", ".jxl", ".svg", ".svgz", ".psd", ".psb", ".xcf", ".kra", ".ico", ".icns", ".eps"),
    *(".exr", ".hdr", ".dds", ".pcx", ".pfm", ".sgi", ".mng", ".jxr", ".wdp", ".djvu", ".mat", ".npy"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw"),
)
"""Endings of files that are pictures for their owner, in formats that are not read here."""
_NAMED = 3
"""Files that are named for each reason; the others are counted."""


class Reason(StrEnum):
    """Why something in a folder is passed over."""

    NO_PICTURE = "not a picture"
    NOT_READ = "a format that cannot be read"
    HIDDEN = "hidden"
    LINK = "a link to a folder"
    BROKEN_LINK = "a link to nothing"
    CLOSED = "a folder that cannot be read"
    NOT_SEARCHED = "a folder, and only the one given is searched"
    SPECIAL = "neither a file nor a folder"
    OUTPUT = "the output folder"


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder.

    Args:
        folder: Which one.
        pictures: Sorted by path.
        passed_over: Everything else in the folder, sorted by path, and why.
    """

    folder: Path
    pictures: tuple[Path, ...]
    passed_over: tuple[tuple[Path, Reason], ...]

    @classmethod
    def of(cls, folder: Path, *, recursive: bool = False, without: Path | None = None) -> Listing:
        """List a folder; an ending says whether a file is a picture.

        Args:
            folder: Where to look.
            recursive: Also look in all folders in it, but follow no link to a folder and no hidden folder.
            without: A folder that is passed over, as the results are written there.

        Raises:
            ImageError: The folder does not exist or cannot be read.
        """
        if not is_folder(folder):
            raise ImageError(f"{folder} is not a folder")
        pictures: list[Path] = []
        passed_over: list[tuple[Path, Reason]] = []
        try:
            for path, reason in _walk(folder, recursive, without):
                if reason is None:
                    pictures.append(path)
                else:
                    passed_over.append((path, reason))
        except OSError as error:
            raise ImageError(f"{folder} cannot be read: {error.strerror or error}") from error
        return cls(folder, tuple(sorted(pictures)), tuple(sorted(passed_over)))

    def describe(self) -> str:
        """What is passed over, counted by reason, in one line; empty if nothing is."""
        parts: list[str] = []
        for reason in Reason:
            paths = [path for path, why in self.passed_over if why == reason]
            if paths:
                named = ", ".join(str(path.relative_to(self.folder)) for path in paths[:_NAMED])
                parts.append(f"{len(paths)} × {reason} ({named}{', …' if len(paths) > _NAMED else ''})")
        return "; ".join(parts)

    def warn(self) -> None:
        """Say what is passed over.

        Warns:
            FolderWarning: Something is.
        """
        if self.passed_over:
            warnings.warn(f"{self.folder}: passed over {self.describe()}", FolderWarning, stacklevel=3)


def list_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """The pictures of a folder, sorted by path; what is passed over is said by a warning.

    Raises:
        ImageError: The folder does not exist or cannot be read.

    Warns:
        FolderWarning: Something else is in the folder; the message counts it by reason.
    """
    listing = Listing.of(folder, recursive=recursive)
    listing.warn()
    return list(listing.pictures)


def holds_pictures(folder: Path, *, recursive: bool = False) -> bool:
    """Whether there is a picture in a folder, or in the folders in it; no, where it cannot be read."""
    try:
        return any(reason is None for _, reason in _walk(folder, recursive, None))
    except OSError:
        return False


def _walk(folder: Path, recursive: bool, without: Path | None) -> Iterator[tuple[Path, Reason | None]]:
    """Everything in a folder, with the reason why it is passed over; None for pictures."""
    for path in folder.iterdir():
        if is_temporary(path):  # of another process, or left by one that was killed
            continue
        reason = _reason(path, recursive, without)
        if reason is None and path.is_dir():
            try:
                yield from _walk(path, recursive, without)
            except PermissionError:
                yield path, Reason.CLOSED
        else:
            yield path, reason


def _reason(path: Path, recursive: bool, without: Path | None) -> Reason | None:
    """Why a file or folder is passed over, if it is."""
    if path.name.startswith("."):
        return Reason.HIDDEN
    if is_folder(path):
        if without is not None and is_folder(without) and path.samefile(without):
            return Reason.OUTPUT
        if path.is_symlink():
            return Reason.LINK
        return None if recursive else Reason.NOT_SEARCHED
    if not path.exists():
        return Reason.BROKEN_LINK
    if not path.is_file():
        return Reason.SPECIAL
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        return None if _readable(suffix) else Reason.NOT_READ
    return Reason.NOT_READ if suffix in _NOT_READ else Reason.NO_PICTURE


@cache
def _readable(suffix: str) -> bool:
    return suffix not in _OPTIONAL or bool(features.check(_OPTIONAL[suffix]))
