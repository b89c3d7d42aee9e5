"""EXIF blocks: the orientation taken out of them, and what they say that would no longer be true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from PIL import ExifTags, Image

from srquant.images.metadata import sensible_resolution

_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_SIZE_IN_PIXELS = (0xA002, 0xA003)
_INCHES, _CENTIMETRES = 2, 3
DESCRIBING = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298)
"""Tags of a TIFF page that describe what is shown; the others describe the file: description, make, model, software,
date, artist, computer, copyright."""
INNER = (int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo))
"""Tags that point to blocks of further ones."""
HEAD = b"Exif\0\0"

Split = tuple[int, bytes | None, tuple[float, float] | None, tuple[str, ...]]
"""Orientation, the block without it, dots per inch, and what cannot be understood, in words."""


def of_bytes(block: bytes | None) -> Split:
    """Of a block, with the six bytes before it that say that it is one, or without."""
    if not block:
        return 1, None, None, ()

    def load(exif: Image.Exif) -> None:
        exif.load(block)

    return _split(load)


def of_tiff(file: BinaryIO, byteorder: str, bigtiff: bool, offset: int) -> Split:
    """Of a page of a TIFF: its description, and the blocks that its tags point to; without orientation and density.

    Args:
        file: Of the TIFF.
        byteorder: ``<`` or ``>``.
        bigtiff: Whether the file is a BigTIFF.
        offset: Where the page's tags are.
    """

    def load(exif: Image.Exif) -> None:
        exif.endian, exif.bigtiff = byteorder, bigtiff
        exif.load_from_fp(file, offset)
        for tag in list(exif):
            if tag not in (*DESCRIBING, *INNER):
                del exif[tag]
        for tag in INNER:
            if tag in exif:
                exif.get_ifd(tag)
        exif.bigtiff = False  # as which it is given on

    return _split(load)


def with_resolution(block: bytes | None, resolution: tuple[float, float] | None) -> bytes | None:
    """A block that also says the dots per inch, for formats that have no other place for them."""
    if resolution is None:
        return block
    exif = Image.Exif()
    if block:
        exif.load(block)
    exif[_X_RESOLUTION], exif[_Y_RESOLUTION], exif[_UNIT] = *resolution, _INCHES
    return exif.tobytes()


def parsed(block: bytes) -> Image.Exif:
    """A block's tags."""
    exif = Image.Exif()
    exif.load(block)
    return exif


def _split(load: Callable[[Image.Exif], None]) -> Split:
    exif = Image.Exif()
    try:
        load(exif)
        orientation = exif.pop(_ORIENTATION, 1)
        inner = exif.get_ifd(INNER[0]) if INNER[0] in exif else {}
        for tag in _SIZE_IN_PIXELS:
            inner.pop(tag, None)
        block = exif.tobytes() if len(exif) else None
        return (orientation if orientation in range(1, 9) else 1), block, _resolution(exif), ()
    except MemoryError:
        raise
    except Exception:  # whatever Python raises on damaged tags; the picture itself is none the worse
        return 1, None, None, ("EXIF that is damaged",)


def _resolution(exif: Image.Exif) -> tuple[float, float] | None:
    values: list[Any] = [exif.get(_X_RESOLUTION), exif.get(_Y_RESOLUTION)]
    scale = {_INCHES: 1.0, _CENTIMETRES: 2.54}.get(exif.get(_UNIT, _INCHES))
    try:
        across, down = (float(value) * (scale or 0) for value in values)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return sensible_resolution(across, down)
