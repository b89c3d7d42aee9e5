"""Writing PNG, still and animated, while the bands of rows come."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from srquant.images.bands import Banded
from srquant.images.formats import png_chunks
from srquant.images.picture import Layout, Pixels

LEVEL = 4
"""Of zlib: half the time that its default takes, for files a fiftieth larger. A fast network takes less than that."""
_SUB = 1
"""Number of the filter that stores each pixel as its difference from the one to its left."""
_PIECE = 1 << 16
"""Bytes of a chunk of pixels, at least, but for the last."""


def write_png(path: Path, pictures: Iterator[Banded], count: int, loop: int) -> None:
    """Write a picture, or an animation of frames of one size and layout.

    Args:
        path: Where to write.
        pictures: One or more; the metadata of the first is written.
        count: How many they are.
        loop: How often an animation is shown; 0 for without end.
    """
    with path.open("wb") as file:
        sequence, header = 0, b""
        for number, picture in enumerate(pictures):
            if number == 0:
                header = _header(picture)
                _start(file, picture, count, loop)
            elif _header(picture) != header:
                raise ValueError(f"a frame of {picture.width}x{picture.height}, {picture.layout}, unlike the first")
            if count > 1:
                _chunk(file, b"fcTL", struct.pack(">I", sequence) + _frame(picture))
                sequence += 1
            for piece in _compressed(picture):
                if number == 0:
                    _chunk(file, b"IDAT", piece)
                else:
                    _chunk(file, b"fdAT", struct.pack(">I", sequence) + piece)
                    sequence += 1
        _chunk(file, b"IEND", b"")


def _start(file: BinaryIO, first: Banded, count: int, loop: int) -> None:
    file.write(png_chunks.SIGNATURE)
    _chunk(file, b"IHDR", _header(first))
    for kind, content in png_chunks.of_metadata(first.metadata):
        _chunk(file, kind, content)
    if count > 1:
        _chunk(file, b"acTL", struct.pack(">II", count, loop))


def _header(picture: Banded) -> bytes:
    """Size, depth and colours; neither compression nor filter nor interlacing but the usual ones."""
    colours = (0 if picture.layout.gray else 2) + (4 if picture.layout.alpha else 0)
    return struct.pack(">IIBBBBB", picture.width, picture.height, picture.layout.depth, colours, 0, 0, 0)


def _frame(picture: Banded) -> bytes:
    """Size, position, duration in thousandths of a second, and that it replaces what was shown before."""
    duration = min(max(round(picture.duration), 0), 65_535)
    return struct.pack(">IIIIHHBB", picture.width, picture.height, 0, 0, duration, 1000, 0, 0)


def _compressed(picture: Banded) -> Iterator[bytes]:
    compressor = zlib.compressobj(LEVEL)
    waiting = bytearray()
    for band in picture.checked():
        waiting += compressor.compress(_filtered(band, picture.layout))
        if len(waiting) >= _PIECE:
            yield bytes(waiting)
            waiting.clear()
    waiting += compressor.flush()
    yield bytes(waiting)


def _filtered(band: Pixels, layout: Layout) -> bytes:
    """Rows as they are compressed: the number of the filter, then bytes, of 16 bits the high one first."""
    step = layout.channels * layout.depth // 8
    stored = np.ascontiguousarray(band, ">u2" if layout.depth == 16 else "u1").view(np.uint8).reshape(len(band), -1)
    rows = np.empty((len(band), 1 + stored.shape[1]), np.uint8)
    rows[:, 0] = _SUB
    rows[:, 1 : 1 + step] = stored[:, :step]
    np.subtract(stored[:, step:], stored[:, :-step], out=rows[:, 1 + step :])
    return rows.tobytes()


def _chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
