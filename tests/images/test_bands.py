from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srquant.images import Layout
from srquant.images.bands import Banded


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
