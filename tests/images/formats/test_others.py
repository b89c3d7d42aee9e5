"""JPEG, WebP, BMP, GIF and Netpbm, written by Pillow, against decoders of another library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from srquant.images import Layout, read_picture
from srquant.images.reading import read_size
from srquant.support.errors import ImageError

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DECODERS: dict[str, tuple[tuple[str, ...], Callable[[bytes], np.ndarray], dict[str, Any]]] = {
    ".jpg": (("L", "RGB"), imagecodecs.jpeg8_decode, {"quality": 90}),
    ".webp": (("RGB", "RGBA"), imagecodecs.webp_decode, {"lossless": True, "exact": True}),
    ".bmp": (("1", "L", "P", "RGB"), imagecodecs.bmp_decode, {}),
    ".gif": (("L", "P"), imagecodecs.gif_decode, {}),
}


@many
@given(st.data(), st.sampled_from(tuple(DECODERS)), st.integers(1, 50), st.integers(1, 50), st.integers(0, 9))
def test_pixels_are_those_of_another_decoder(
    tmp_path: Path, data: st.DataObject, suffix: str, height: int, width: int, seed: int
) -> None:
    modes, decode, options = DECODERS[suffix]
    mode = data.draw(st.sampled_from(modes))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4)).astype(np.uint8)
    path = tmp_path / f"x{suffix}"
    Image.fromarray(pixels if mode == "RGBA" else pixels[..., :3]).convert(mode).save(path, **options)
    picture = read_picture(path)
    assert picture.layout == Layout(picture.layout.gray, mode == "RGBA")
    expected = decode(path.read_bytes())
    expected = expected[..., None] if expected.ndim == 2 else expected
    shown = picture.pixels if picture.layout.alpha else picture.rgb()
    assert np.array_equal(shown, np.broadcast_to(expected, shown.shape))
    assert read_size(path) == picture.size == (height, width)


def test_sixteen_bits_are_never_cut_to_eight(tmp_path: Path) -> None:
    """Netpbm stores the high byte first."""
    values = np.random.default_rng(0).integers(0, 65536, (5, 4, 3)).astype(">u2")
    (tmp_path / "x.ppm").write_bytes(b"P6 4 5 65535\n" + values.tobytes())
    with pytest.raises(ImageError, match="has more than 8 bits a channel; that is read from PNG and TIFF only"):
        read_picture(tmp_path / "x.ppm")
    (tmp_path / "x.pgm").write_bytes(b"P5 4 5 65535\n" + values[..., 0].tobytes())
    assert np.array_equal(read_picture(tmp_path / "x.pgm").pixels[..., 0], values[..., 0])
    (tmp_path / "y.ppm").write_bytes(b"P6 4 5 255\n" + (values >> 8).astype(np.uint8).tobytes())
    assert np.array_equal(read_picture(tmp_path / "y.ppm").pixels, values >> 8)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("suffix", [".jp2", ".avif"])
def test_depth_is_found_out_where_the_header_does_not_tell(tmp_path: Path, suffix: str, deep: bool) -> None:
    values = np.random.default_rng(0).integers(0, 1024 if deep else 256, (32, 40, 3))
    values = values.astype(np.uint16 if deep else np.uint8)
    if suffix == ".jp2":
        (tmp_path / "x.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, level=0))
    else:
        bits = {"bitspersample": 10} if deep else {}
        (tmp_path / "x.avif").write_bytes(imagecodecs.avif_encode(values, **bits))
    if deep:
        with pytest.raises(ImageError, match="has more than 8 bits a channel"):
            read_picture(tmp_path / f"x{suffix}")
    else:
        assert read_picture(tmp_path / f"x{suffix}").layout == Layout()
