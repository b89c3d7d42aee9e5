from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srquant.images import Layout
from srquant.images.bands import Banded
from srquant.images.writing import write_pictures


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 70))
def test_bands_are_cut_anew(heights: list[int], rows: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (sum(heights), 5, 3)).astype(np.uint8)
    bands = np.split(pixels, np.cumsum(heights)[:-1])
    cut = list(Banded(len(pixels), 5, Layout(), bands).cut(rows))
    assert np.array_equal(np.concatenate(cut), pixels)
    assert {len(band) for band in cut[:-1]} <= {rows}
    assert len(cut) == -(-len(pixels) // rows)
    assert np.array_equal(Banded(len(pixels), 5, Layout(), bands).whole(), pixels)


@pytest.mark.parametrize(
    ("shapes", "dtype", "message"),
    [
        ([(3, 5, 3)], np.uint8, "bands of 3 rows in a picture of 4"),
        ([(3, 5, 3), (2, 5, 3)], np.uint8, "bands of 5 rows in a picture of 4"),
        ([(4, 6, 3)], np.uint8, r"a band of uint8 \(4, 6, 3\)"),
        ([(4, 5, 4)], np.uint8, r"a band of uint8 \(4, 5, 4\)"),
        ([(4, 5, 3)], np.uint16, r"a band of uint16 \(4, 5, 3\)"),
    ],
)
def test_what_breaks_the_promise(shapes: list[tuple[int, int, int]], dtype: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(Banded(4, 5, Layout(), [np.zeros(shape, dtype) for shape in shapes]).cut(2))


@pytest.mark.parametrize(
    ("name", "heights", "count", "message"),
    [
        ("x.png", (4, 4, 4), 2, "3 pictures, and 2 were announced"),
        ("x.tif", (4,), 2, "1 pictures, and 2 were announced"),
        ("x.jpg", (4, 4), 2, "2 pictures for .jpg, which holds one"),
        ("x.png", (4, 5), 2, "a frame of 5x5"),
    ],
)
def test_writers_check_what_they_are_given(
    tmp_path: Path, name: str, heights: tuple[int, ...], count: int, message: str
) -> None:
    pictures = [Banded(height, 5, Layout(), [np.zeros((height, 5, 3), np.uint8)]) for height in heights]
    with pytest.raises(ValueError, match=message):
        write_pictures(tmp_path / name, pictures, count)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".bmp"])
def test_no_file_is_left_of_bands_that_end_too_early(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match="bands of 3 rows in a picture of 4"):
        write_pictures(tmp_path / f"x{suffix}", [Banded(4, 5, Layout(), [np.zeros((3, 5, 3), np.uint8)])])
    assert not list(tmp_path.iterdir())
