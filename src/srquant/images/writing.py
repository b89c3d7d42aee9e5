"""Writing image files, whole or in bands, so that a picture of any size needs little memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srquant.images.picture import Layout, Picture, Pixels
from srquant.support.errors import ImageError
from srquant.support.files import replacing

_LARGEST = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
"""Largest height or width of formats that have one."""
_STREAMED_FROM = 48_000_000
"""Pixels from which a PNG is written in bands. Below, Pillow's smaller files are worth the memory."""
_OPAQUE = (".jpg", ".jpeg", ".bmp")
_SHALLOW = (".jpg", ".jpeg", ".webp", ".bmp")
_PNG_LEVEL = 4
"""Of zlib: half the time that its default takes, for files a fiftieth larger. A fast network takes less than that."""
_OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {"compress_level": _PNG_LEVEL},
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True, "exact": True},
}


def check_output(path: Path, height: int, width: int, layout: Layout) -> Layout:
    """Check before the work that a picture can be stored under this name.

    Returns:
        The layout it will have: 8 bits in formats that have no more, colour for 16-bit gray with transparency in
        TIFF (which few programs read).

    Raises:
        ImageError: The file type is unknown, too small for the picture, or cannot store transparency.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_SHALLOW, ".png", ".tif", ".tiff"):
        raise ImageError(f"cannot write {path}: unknown file type {suffix!r}; use .png, .jpg, .webp, .tif or .bmp")
    if max(height, width) > _LARGEST.get(suffix, max(height, width)):
        raise ImageError(
            f"cannot write {path}: {suffix} holds at most {_LARGEST[suffix]} pixels a side, "
            f"the picture has {width}x{height}; use .png or .tif"
        )
    if layout.alpha and suffix in _OPAQUE:
        raise ImageError(f"cannot write {path}: {suffix} cannot store transparency; use .png, .webp or .tif")
    depth = 8 if suffix in _SHALLOW else layout.depth
    rare = suffix in (".tif", ".tiff") and layout.gray and layout.alpha and depth == 16
    return replace(layout, depth=depth, gray=layout.gray and not rare)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture; the name's ending says the format. The file appears only when it is complete.

    Raises:
        ImageError: See :func:`check_output`; also if the picture has 16 bits and the format only 8.
        OutputError: The file cannot be written.
    """
    write_bands(path, *picture.size, picture.layout, [picture.pixels])


def write_bands(path: Path, height: int, width: int, layout: Layout, bands: Iterable[Pixels]) -> None:
    """Write a picture that comes as bands of rows, top to bottom.

    PNG from 48 million pixels on, 16-bit colour PNG, and TIFF are written while the bands come; other formats need the
    whole picture in memory.

    Args:
        path: Where to write; the name's ending says the format.
        height: Rows of all bands together.
        width: Pixels of a row.
        layout: What the bands hold; must equal what :func:`check_output` returned.
        bands: ``rows width channels`` each, uint8 or uint16.
    """
    if check_output(path, height, width, layout) != layout:
        raise ImageError(f"cannot write {path}: {path.suffix} stores 8 bits a channel, the picture has {layout.depth}")
    suffix = path.suffix.lower()
    deep_colour = layout.depth == 16 and layout.channels > 1
    with replacing(path) as temporary:
        if suffix == ".png" and (deep_colour or height * width >= _STREAMED_FROM):
            _stream_png(temporary, height, width, layout, bands)
        elif suffix in (".tif", ".tiff"):
            _stream_tiff(temporary, height, width, layout, bands)
        else:
            _write_whole(temporary, layout, _gather(height, width, layout, bands), _OPTIONS.get(suffix, {}))


def _gather(height: int, width: int, layout: Layout, bands: Iterable[Pixels]) -> NDArray[Any]:
    pixels = np.empty((height, width, layout.channels), np.uint16 if layout.depth == 16 else np.uint8)
    row = 0
    for band in bands:
        pixels[row : row + len(band)] = band
        row += len(band)
    return pixels


def _write_whole(path: Path, layout: Layout, pixels: NDArray[Any], options: dict[str, Any]) -> None:
    image = Image.fromarray(pixels[..., 0] if layout.channels == 1 else pixels)
    extra: dict[str, Any] = {"icc_profile": layout.icc_profile, "exif": layout.exif}
    image.save(path, **options, **{key: value for key, value in extra.items() if value})


def _stream_png(path: Path, height: int, width: int, layout: Layout, bands: Iterable[Pixels]) -> None:
    import png

    class Writer(png.Writer):
        def write_preamble(self, outfile: BinaryIO) -> None:
            super().write_preamble(outfile)
            if layout.icc_profile:
                png.write_chunk(outfile, b"iCCP", b"ICC profile\0\0" + zlib.compress(layout.icc_profile))
            if layout.exif:
                png.write_chunk(outfile, b"eXIf", layout.exif.removeprefix(b"Exif\0\0"))

    form = {"greyscale": layout.gray, "alpha": layout.alpha, "bitdepth": layout.depth}
    writer = cast(Any, Writer)(width, height, **form, compression=_PNG_LEVEL)
    rows = (row.tobytes() for band in bands for row in band.astype(">u2" if layout.depth == 16 else "u1", copy=False))
    with path.open("wb") as file:
        writer.write_packed(file, rows)


def _stream_tiff(path: Path, height: int, width: int, layout: Layout, bands: Iterable[Pixels]) -> None:
    import tifffile

    stream = iter(bands)
    first = next(stream)  # every band but the last has as many rows
    strips: Iterator[bytes] = (zlib.compress(band.tobytes()) for band in chain([first], stream))
    tifffile.imwrite(
        path,
        strips,
        shape=(height, width, layout.channels) if layout.channels > 1 else (height, width),
        dtype=first.dtype,
        photometric="minisblack" if layout.gray else "rgb",
        planarconfig="contig" if layout.channels > 1 else None,
        extrasamples=("unassalpha",) if layout.alpha else (),
        rowsperstrip=len(first),
        compression="zlib",
        iccprofile=layout.icc_profile,
        metadata=None,
    )
