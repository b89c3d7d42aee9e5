"""PNG: every depth, kind of colour and transparency, against what the standard says of the bits."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from srquant.images import Layout, Metadata, read_picture
from srquant.images.bands import Banded
from srquant.images.formats.png_writing import write_png
from srquant.images.reading import read_size
from srquant.support.errors import ImageError

many = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = {GRAY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GRAY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


PASSES = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
"""First row, step, first column, step of the seven passes of an interlaced picture."""


def rows(samples: np.ndarray, depth: int) -> list[bytes]:
    wide = samples.reshape(len(samples), -1)
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in wide]
    bits = (wide[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bits]


def png(samples: np.ndarray, depth: int, colour: int, *extra: bytes, interlaced: bool = False) -> bytes:
    """A file of samples ``h w channels``, written by the letter of the standard, without filters."""
    height, width, _ = samples.shape
    parts = [samples[top::down, left::right] for top, down, left, right in PASSES] if interlaced else [samples]
    stored = [row for part in parts if part.size for row in rows(part, depth)]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    pixels = zlib.compress(b"".join(b"\0" + row for row in stored))
    chunks = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@many
@given(
    st.data(),
    st.sampled_from(tuple(CHANNELS)),
    st.booleans(),
    st.booleans(),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_every_kind(
    tmp_path: Path, data: st.DataObject, colour: int, transparent: bool, interlaced: bool, size: tuple[int, int]
) -> None:
    depth = data.draw(st.sampled_from(DEPTHS[colour]))
    peak, random = (1 << depth) - 1, np.random.default_rng(data.draw(st.integers(0, 9)))
    samples = random.integers(0, peak + 1, (*size, CHANNELS[colour])).astype(np.uint16)
    extra = [chunk(b"gAMA", struct.pack(">I", 45455))]
    if colour != PALETTE:  # how many bits the camera had; the samples fill the range all the same
        extra.append(chunk(b"sBIT", bytes([max(1, depth - 4)] * CHANNELS[colour])))
    filling = 255 // peak if depth < 8 else 1
    expected = samples.astype(np.int64) * filling
    full = 65535 if depth == 16 else 255
    if colour == PALETTE:
        table = random.integers(0, 256, (1 << depth, 3)).astype(np.uint8)
        extra.append(chunk(b"PLTE", table.tobytes()))
        expected = table[samples[..., 0]].astype(np.int64)
        if transparent:
            opacity = random.integers(0, 256, 1 << depth).astype(np.uint8)
            extra.append(chunk(b"tRNS", opacity.tobytes()))
            expected = np.concatenate((expected, opacity[samples[..., 0]][..., None]), -1)
    elif colour in (GRAY, RGB) and transparent:
        through = samples[0, 0]
        extra.append(chunk(b"tRNS", through.astype(">u2").tobytes()))
        seen = np.where((samples == through).all(-1, keepdims=True), 0, full)
        expected = np.concatenate((expected, seen), -1)
    path = tmp_path / "x.png"
    path.write_bytes(png(samples, depth, colour, *extra, interlaced=interlaced))
    picture = read_picture(path)
    channels = expected.shape[-1]
    assert picture.layout == Layout(channels < 3, channels % 2 == 0, 16 if depth == 16 else 8)
    assert np.array_equal(picture.pixels, expected)
    assert picture.metadata.colour_chunks == ((b"gAMA", struct.pack(">I", 45455)),)


@many
@given(
    st.booleans(), st.booleans(), st.sampled_from((8, 16)), st.lists(st.integers(1, 40), min_size=1), st.integers(1, 50)
)
def test_bands_become_one_picture(
    tmp_path: Path, gray: bool, alpha: bool, depth: int, heights: list[int], width: int
) -> None:
    """Read back by Pillow where it can, which cuts 16 bits of colour to their upper 8."""
    layout = Layout(gray, alpha, depth)
    random = np.random.default_rng(len(heights))
    pixels = random.integers(0, layout.peak + 1, (sum(heights), width, layout.channels)).astype(layout.dtype)
    path = tmp_path / "x.png"
    bands = np.split(pixels, np.cumsum(heights)[:-1])
    write_png(path, iter([Banded(sum(heights), width, layout, bands)]), 1, 0)
    assert np.array_equal(read_picture(path).pixels, pixels)
    with Image.open(path) as opened:
        if depth == 8 or (gray and not alpha):
            assert np.array_equal(np.asarray(opened).reshape(pixels.shape), pixels)
        elif not gray:
            assert np.array_equal(np.asarray(opened), pixels >> 8)


@many
@given(st.data())
def test_a_flipped_byte_is_never_a_raw_error(tmp_path: Path, data: st.DataObject) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (20, 20, 3)).astype(np.uint16)
    texts = (chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"a text")), chunk(b"iCCP", b"p\0\0" + zlib.compress(b"x")))
    content = bytearray(png(samples, 16, RGB, *texts, chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0")))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "x.png"
    path.write_bytes(content)
    try:
        assert read_picture(path).pixels.dtype == np.uint16
    except ImageError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_after_the_pixels_counts(tmp_path: Path, orientation: int) -> None:
    """The standard lets it stand there, and the size says so too."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(buffer, "PNG")
    exif = Image.Exif()
    exif[0x0112] = orientation
    end = len(buffer.getvalue()) - 12
    block = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    path = tmp_path / "x.png"
    path.write_bytes(buffer.getvalue()[:end] + block + buffer.getvalue()[end:])
    assert read_size(path) == read_picture(path).size == ((10, 20) if orientation < 5 else (20, 10))
    assert read_picture(path).metadata == Metadata()


def test_what_is_damaged_beside_the_pixels_is_left_out_and_named(tmp_path: Path) -> None:
    """The picture itself is none the worse."""
    samples = np.zeros((4, 5, 3), np.uint16)
    broken = (
        chunk(b"eXIf", b"neither order of bytes"),
        chunk(b"zTXt", b"Title\0\0no zlib"),
        chunk(b"tEXt", b"Author\0Ada"),
        chunk(b"pHYs", b"short"),
    )
    (tmp_path / "x.png").write_bytes(png(samples, 8, RGB, *broken))
    picture = read_picture(tmp_path / "x.png")
    assert picture.left_out == ("EXIF that is damaged", "text that is damaged")
    assert picture.metadata == Metadata(texts=(("Author", "Ada"),))
    (tmp_path / "y.png").write_bytes(png(samples, 8, RGB, chunk(b"iCCP", b"name\0\0no zlib")))
    assert read_picture(tmp_path / "y.png").left_out == ("a colour profile that is damaged",)
