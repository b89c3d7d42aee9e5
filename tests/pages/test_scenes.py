"""Pictures on a page: never at another size, without loss where that fits, and what was done is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.pages.conftest import pixels, whole_page

from srquant.pages.contents import Page
from srquant.pages.pictures import BUDGET, Labelled, decode, make_scene
from srquant.pages.rendering import render
from srquant.support.errors import ArgumentError


def noisy(count: int, height: int, width: int) -> dict[str, Labelled]:
    """Pictures that do not compress well; the last differs most around row 40, column 150."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (height // 4, width // 4, 3)).repeat(4, 0).repeat(4, 1)
    found = [base + rng.integers(-6, 7, base.shape) for _ in range(count)]
    found[-1][30:50, 140:160] = 255
    return {f"picture {i}": Labelled(each.clip(0, 255).astype(np.uint8)) for i, each in enumerate(found)}


def test_small_pictures_are_stored_without_loss() -> None:
    pictures = {title: Labelled(pixels(number), f"note {number}") for number, title in enumerate("abc")}
    scene = make_scene("x.png", pictures, start=("b", "c"))
    assert (scene.width, scene.height, scene.storage) == (220, 150, "without loss")
    assert (scene.left, scene.right) == (1, 2)
    for shown, (title, labelled) in zip(scene.pictures, pictures.items(), strict=True):
        assert (shown.title, shown.note) == (title, labelled.note)
        assert np.array_equal(decode(shown.webp), labelled.pixels)


def test_what_is_shown_first_is_where_they_differ_most() -> None:
    scene = make_scene("x.png", noisy(3, 200, 240))
    left, top, size = scene.region
    assert size == 96
    assert left <= 140 and left + size >= 160 and top <= 30 and top + size >= 50


def test_larger_ones_lose_what_is_not_seen_and_that_is_said() -> None:
    pictures = noisy(3, 200, 240)
    lossless = sum(len(shown.webp) for shown in make_scene("x.png", pictures).pictures)
    scene = make_scene("x.png", pictures, budget=int(0.9 * lossless))
    assert scene.storage == "without loss, red, green and blue rounded to even numbers of 255"
    for shown, labelled in zip(scene.pictures, pictures.values(), strict=True):
        assert np.abs(decode(shown.webp).astype(int) - labelled.pixels).max() == 1

    scene = make_scene("x.png", pictures, budget=int(0.5 * lossless))
    assert sum(len(shown.webp) for shown in scene.pictures) <= 0.5 * lossless
    assert (scene.width, scene.height) == (240, 200)
    both = zip(scene.pictures, pictures.values(), strict=True)
    error = max(((decode(shown.webp).astype(float) - labelled.pixels) ** 2).mean() for shown, labelled in both)
    assert (
        scene.storage == f"WebP of quality 96, {10 * np.log10(255**2 / error):.1f} dB from the pixels that were scored"
    )


def test_still_larger_ones_are_cropped_to_where_they_differ() -> None:
    pictures = noisy(3, 200, 240)
    scene = make_scene("x.png", pictures, budget=30_000)
    assert sum(len(shown.webp) for shown in scene.pictures) <= 30_000
    assert f"; {scene.width}×{scene.height} of 240×200 pixels" in scene.storage
    crops = [decode(shown.webp) for shown in scene.pictures]
    assert {crop.shape for crop in crops} == {(scene.height, scene.width, 3)}
    left, top, size = scene.region
    brightest = crops[-1][top : top + size, left : left + size].min(axis=-1) > 240
    assert brightest.sum() > 200


def test_pictures_longer_than_webp_can_be_are_cropped() -> None:
    long = np.zeros((20, 20_000, 3), np.uint8)
    marked = long.copy()
    marked[:, 15_000:15_010] = 255
    scene = make_scene("x.png", {"a": Labelled(long), "b": Labelled(marked)})
    assert (scene.width, scene.height) == (16_383, 20)
    left, _, size = scene.region
    assert decode(scene.pictures[1].webp)[:, left : left + size].any()


def test_a_picture_of_one_colour_needs_nothing() -> None:
    scene = make_scene("x.png", {"a": Labelled(np.zeros((200, 200, 3), np.uint8))}, budget=0)
    assert scene.storage == "without loss; 64×64 of 200×200 pixels, where results differ most"


def test_even_without_a_budget_something_is_shown() -> None:
    scene = make_scene("x.png", noisy(2, 200, 240), budget=0)
    assert (scene.width, scene.height) == (64, 64)


def test_a_page_of_five_pictures_and_six_methods_stays_below_ten_megabytes() -> None:
    scene = make_scene("large.png", noisy(9, 400, 600), budget=BUDGET // 5)
    page = replace(whole_page(), scenes=(scene,) * 5)
    assert 2_000_000 < len(render(page).encode()) < 10_000_000


def test_pictures_of_different_sizes_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"x\.png must have one size; got a 220x150, b 220x149"):
        make_scene("x.png", {"a": Labelled(pixels(0)), "b": Labelled(pixels(0, 149))})
    with pytest.raises(ArgumentError, match="got none"):
        make_scene("x.png", {})


def test_one_picture_is_enough() -> None:
    scene = make_scene("x.png", {"a": Labelled(pixels(0, 40, 30))})
    assert scene.region == (0, 5, 30)
    assert render(Page("a", "b", scenes=(scene,)))
