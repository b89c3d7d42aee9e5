from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from srquant.images import Layout, Picture
from srquant.images.transparency import filled


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 600), st.integers(1, 60), st.booleans(), st.sampled_from((8, 16)), st.floats(0, 1), st.integers(0, 9)
)
def test_what_is_visible_stays_and_what_is_not_lies_between(
    height: int, width: int, gray: bool, depth: int, visible: float, seed: int
) -> None:
    layout = Layout(gray, True, depth)
    random = np.random.default_rng(seed)
    pixels = random.integers(0, layout.peak + 1, (height, width, layout.channels)).astype(layout.dtype)
    pixels[random.random((height, width)) > visible, -1] = 0
    before = pixels.copy()
    result = filled(Picture(pixels, layout))
    assert np.array_equal(pixels, before)
    assert np.array_equal(result.pixels[..., -1], pixels[..., -1])
    shown = pixels[..., -1] > 0
    assert np.array_equal(result.pixels[shown], pixels[shown])
    if shown.any():
        colours, hidden = pixels[shown][:, :-1], result.pixels[~shown][:, :-1]
        assert (hidden >= colours.min(0)).all()
        assert (hidden <= colours.max(0)).all()
    else:
        assert np.array_equal(result.pixels, pixels)


def test_near_colours_count() -> None:
    """Left half red, right half blue, a transparent column between them: beside red it is red, beside blue blue."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :24], pixels[:, 40:] = (200, 0, 0, 255), (0, 0, 200, 255)
    result = filled(Picture(pixels, Layout(alpha=True))).pixels
    assert (result[:, 24, :3] == (200, 0, 0)).all()
    assert (result[:, 39, :3] == (0, 0, 200)).all()
