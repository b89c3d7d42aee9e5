"""Reading PNG, still and animated."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from pathlib import Path

from srquant.images.formats import pillow_reading, png_chunks
from srquant.images.formats.opened import PictureFile, require_sensible, upright, upright_size
from srquant.images.picture import Layout, Picture
from srquant.support.errors import ImageError


def open_png(path: Path, stack: ExitStack) -> PictureFile:
    """Open a PNG. Palettes become colours, single transparent colours become alpha, 1 to 4 bits become 8.

    Args:
        path: The file.
        stack: Closes what is opened.
    """
    with path.open("rb") as file:
        found = list(png_chunks.chunks(file))
    if not found or found[0][0] != b"IHDR" or len(found[0][1]) != 13:
        raise ImageError(f"{path} cannot be read; it may be damaged or cut short: no PNG header")
    width, height, depth = struct.unpack(">IIB", found[0][1][:9])
    require_sensible(path, height, width)
    animated = any(kind == b"acTL" and struct.unpack(">I", content[:4])[0] > 1 for kind, content in found)
    if animated and depth <= 8:
        return pillow_reading.open_pillow(path, stack, png_chunks.metadata(found)[1])
    orientation, told, damaged = png_chunks.metadata(found)
    lost = (*damaged, *(("frames of 16 bits after the first",) if animated else ()))

    def read(_: int) -> Picture:
        import imagecodecs

        pixels = imagecodecs.png_decode(path.read_bytes())
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        return Picture(upright(pixels, orientation), Layout.of(pixels), told, left_out=lost)

    return PictureFile(path, upright_size(height, width, orientation), read)
