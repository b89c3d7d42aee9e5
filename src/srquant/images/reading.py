"""Reading image files: PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF and others; gray, colour or palette, with or without
alpha, 8 or 16 bits.

The first bytes of a file decide who reads it: libpng for PNG, tifffile for TIFF, Pillow for the others and for
animations.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from srquant.images.formats import png_chunks, tiff_reading
from srquant.images.formats.opened import PictureFile, reading
from srquant.images.formats.pillow_reading import open_pillow
from srquant.images.formats.png_reading import open_png
from srquant.images.formats.tiff_reading import open_tiff
from srquant.images.picture import Picture
from srquant.support.errors import ImageError, LossWarning
from srquant.support.files import is_file, is_folder


def read_picture(path: Path | str) -> Picture:
    """Read an image file; of an animation or a TIFF of several pages the first, with a warning that says so.

    Raises:
        ImageError: The file is missing, empty, truncated, no image, of a kind that is not supported, or larger than
            any sensible picture.
    """
    with open_picture(Path(path)) as file:
        picture = file.first()
    if file.count > 1:
        _say_once(f"{path} holds {file.count} {file.kind}s; the first is used")
    return picture


@cache
def _say_once(message: str) -> None:
    """Warn; a file that is read for each patch of a calibration is not said each time."""
    warnings.warn(message, LossWarning, stacklevel=3)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width the right way up, as :func:`read_picture` gives it, from the header alone.

    Raises:
        ImageError: See :func:`read_picture`.
    """
    with open_picture(path) as file:
        return file.size


@contextmanager
def open_picture(path: Path) -> Generator[PictureFile]:
    """Open an image file, to read one picture of it after the other.

    Raises:
        ImageError: See :func:`read_picture`; also while pictures are read.
    """
    if not is_file(path):
        raise ImageError(f"{path} is {'a folder, not an image' if is_folder(path) else 'not there'}")
    with ExitStack() as stack:
        with reading(path):
            with path.open("rb") as file:
                start = file.read(len(png_chunks.SIGNATURE))
            if start == png_chunks.SIGNATURE:
                opened = open_png(path, stack)
            elif start[:4] in tiff_reading.SIGNATURES:
                opened = open_tiff(path, stack)
            else:
                opened = open_pillow(path, stack)
        yield opened
