"""A picture file that is open: how many pictures it holds, how large they are, and each of them when asked for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srquant.images.formats.table import Kind
from srquant.images.picture import Picture
from srquant.support.errors import ImageError, MemoryLimitError, SrquantError

for _library in ("tifffile", "imagecodecs"):
    logging.getLogger(_library).addHandler(logging.NullHandler())  # what they find odd is not the user's

_ALONE = RLock()
"""Which warnings are shown is a setting of the whole process, so one thread at a time changes it."""
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p.swapaxes(0, 1)[::-1],
}
"""What to do to the stored pixels for each orientation, as EXIF and TIFF number them."""


@dataclass(frozen=True)
class PictureFile:
    """An open file; iterating reads its pictures one after the other.

    Args:
        path: Where it is.
        size: Height and width of the first picture, the right way up.
        read: The picture of a number, from 0; to be asked for in order.
        count: How many pictures there are.
        kind: Of which kind they are, where there are several.
        loop: How often an animation is shown; 0 for without end.
    """

    path: Path
    size: tuple[int, int]
    read: Callable[[int], Picture]
    count: int = 1
    kind: Kind = "picture"
    loop: int = 0

    def first(self) -> Picture:
        """The first picture."""
        with reading(self.path):
            return self.read(0)

    def __iter__(self) -> Iterator[Picture]:
        for number in range(self.count):
            with reading(self.path):
                picture = self.read(number)
            yield picture


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Turn what the libraries raise on damaged files, which is whatever Python raises, into one error.

    Raises:
        ImageError: The body failed.
        MemoryLimitError: The body ran out of memory.
    """
    try:
        with _ALONE, warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # the libraries warn of large images and odd metadata; neither is the user's
            yield
    except SrquantError:
        raise
    except MemoryError as error:
        raise MemoryLimitError(f"{path} does not fit into memory; cut it first, if it is not damaged") from error
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImageError(f"{path} cannot be read; it may be damaged or cut short: {reason}") from error


def require_sensible(path: Path, height: int, width: int) -> None:
    """Check, before anything is decoded, that a file does not claim more pixels than any sensible picture has.

    Raises:
        ImageError: It does, or has none.
    """
    if min(height, width) < 1:
        raise ImageError(f"{path} is {width}x{height}; a picture has at least one pixel")
    if Image.MAX_IMAGE_PIXELS is not None and height * width > 2 * Image.MAX_IMAGE_PIXELS:
        raise ImageError(f"{path} claims more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels; cut it first")


def upright_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width after :func:`upright`."""
    return (width, height) if 5 <= orientation <= 8 else (height, width)


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels ``h w …`` turned as an orientation asks for; 1, and numbers that mean nothing, leave them."""
    turn = _TURNS.get(orientation)
    return np.ascontiguousarray(turn(pixels) if turn else pixels)
