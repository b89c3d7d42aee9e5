"""Every layout of a benchmark is read as it is meant, or refused; LR images that are there are never left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srquant.cli.evaluate import evaluate
from srquant.images import find_pairs, shrink_8bit
from srquant.images.finding import read_folders
from srquant.images.layouts import LAYOUTS, LOW_ENDINGS, PairLayout
from srquant.support.errors import FolderWarning, ImageError
from srquant.support.tensors import planes

NAMES = ("baby", "bird")


def put(*paths: Path, height: int = 48, width: int = 72) -> None:
    """Pictures of noise, each another."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(str(path).encode()))
        Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8)).save(path)


def put_low(scale: int, *paths: Path) -> None:
    put(*paths, height=48 // scale, width=72 // scale)


def lows_found(folder: Path, scale: int) -> dict[str, list[str]]:
    """The names of sets, and the files that are taken for LR, which must be what is read."""
    found = find_pairs(folder, scale)
    for pair in (pair for pairs in found for pair in pairs):
        low, high = pair.read()
        assert pair.low is not None
        assert np.array_equal(low, np.asarray(Image.open(pair.low)))
        assert high.shape[:2] == (scale * low.shape[0], scale * low.shape[1])
    assert not any(pairs.low_is_made for pairs in found)
    return {pairs.name: [pair.low.relative_to(folder).as_posix() for pair in pairs if pair.low] for pairs in found}


@pytest.mark.parametrize("capitals", [str, str.lower, str.upper])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout(tmp_path: Path, layout: PairLayout, capitals) -> None:
    def place(pattern: str, scale: int) -> str:
        return capitals(pattern.format(s=scale, set="DIV2K_valid"))

    scales = (2, 3, 4) if "{s}" in layout.low else (2,)
    root = tmp_path / "Set5"
    for scale in scales:
        put(*(root / place(layout.high, scale) / f"{name}.png" for name in NAMES))
        put_low(scale, *(root / place(layout.low, scale) / f"{name}x{scale}.png" for name in NAMES))
    name = capitals("DIV2K_valid") if "{set}" in layout.high else "Set5"
    for scale in scales:
        lows = [f"{place(layout.low, scale)}/{low}x{scale}.png" for low in NAMES]
        assert lows_found(root, scale) == {name: lows}
        assert lows_found(tmp_path, scale) == {name: [f"Set5/{low}" for low in lows]}
    with pytest.raises(ImageError, match=r"other scales than 8|has no image of that name"):
        find_pairs(root, 8)
    with pytest.raises(ImageError, match=r"none of the 1 pair folders below .* has scale 8"):
        find_pairs(tmp_path, 8)
    assert set(read_folders(tmp_path)) == {path.parent for path in root.rglob("*.png")}


@pytest.mark.parametrize("high", ["", "_HR"])
@pytest.mark.parametrize("low", LOW_ENDINGS)
def test_every_ending_of_names(tmp_path: Path, low: str, high: str) -> None:
    ending = low.format(s=4)
    put(*(tmp_path / f"HR/{name}{high}.png" for name in NAMES))
    put_low(4, *(tmp_path / f"LR/{name}{ending}.bmp" for name in NAMES))
    assert lows_found(tmp_path, 4) == {tmp_path.name: [f"LR/{name}{ending}.bmp" for name in NAMES]}


@pytest.mark.parametrize("folder", ["Canon/Test/4", "Set5/image_SRF_4"])
@pytest.mark.parametrize(
    ("high", "low"), [("_HR", "_LR4"), ("_SRF_4_HR", "_SRF_4_LR"), ("", "_LR4"), ("", "x4"), ("", "_bicLRx4")]
)
def test_both_in_one_folder(tmp_path: Path, folder: str, high: str, low: str) -> None:
    place = tmp_path / folder
    put(*(place / f"{name}{high}.png" for name in NAMES))
    put_low(4, *(place / f"{name}{low}.png" for name in NAMES))
    lows = [f"{name}{low}.png" for name in NAMES]
    assert lows_found(place, 4) == {place.parent.name: lows}
    assert lows_found(tmp_path, 4) == {place.parent.relative_to(tmp_path).as_posix(): [f"{folder}/{x}" for x in lows]}
    with pytest.raises(ImageError, match="has scale 2"):
        find_pairs(tmp_path, 2)
    assert list(read_folders(tmp_path)) == [place]


def test_results_of_others_in_the_folder_are_not_used_and_that_is_said(tmp_path: Path) -> None:
    put(tmp_path / "img_001_SRF_2_HR.png", tmp_path / "img_001_SRF_2_bicubic.png", tmp_path / "img_001_SRF_2_A+.png")
    put_low(2, tmp_path / "img_001_SRF_2_LR.png")
    with pytest.warns(FolderWarning, match=r"2 images neither _HR nor _LR, not used: img_001_SRF_2_A\+"):
        assert list(lows_found(tmp_path, 2).values()) == [["img_001_SRF_2_LR.png"]]


def test_several_sets_in_one_folder(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        put(tmp_path / f"DIV2K_{part}_HR/0801.png")
        put_low(2, tmp_path / f"DIV2K_{part}_LR_bicubic/X2/0801x2.png")
    assert lows_found(tmp_path, 2) == {
        f"DIV2K_{part}": [f"DIV2K_{part}_LR_bicubic/X2/0801x2.png"] for part in ("train", "valid")
    }


def test_sets_of_one_name_keep_apart(tmp_path: Path) -> None:
    for place in ("Set5/x2", "Set5/2"):
        put(tmp_path / place / "HR/a.png")
        put_low(2, tmp_path / place / "LR/a.png")
    assert set(lows_found(tmp_path, 2)) == {"Set5/x2", "Set5/2"}


@pytest.mark.parametrize(
    ("more", "scale"), [((1, 0), 2), ((3, 2), 4), ((11, 7), 3), ((0, 11), 2), ((10, 1), 4)], ids=str
)
def test_hr_a_little_too_large_is_cropped_and_that_is_said_once(
    tmp_path: Path, more: tuple[int, int], scale: int
) -> None:
    put(*(tmp_path / f"HR/{name}.png" for name in NAMES), height=48 + more[0], width=72 + more[1])
    put_low(scale, *(tmp_path / f"LR/{name}.png" for name in NAMES))
    with pytest.warns(FolderWarning, match="2 of 2 HR images larger than LR times") as said:
        assert lows_found(tmp_path, scale) == {tmp_path.name: ["LR/baby.png", "LR/bird.png"]}
    assert len(said) == 1
    with pytest.warns(FolderWarning):
        (pairs,) = find_pairs(tmp_path, scale)
    for pair in pairs:
        assert np.array_equal(pair.read()[1], np.asarray(Image.open(pair.high))[:48, :72]), (
            "at the right and the bottom"
        )


@pytest.mark.parametrize(("more", "scale"), [((12, 0), 4), ((13, 0), 3), ((0, 8), 8), ((0, -1), 2)], ids=str)
def test_other_sizes_are_refused(tmp_path: Path, more: tuple[int, int], scale: int) -> None:
    """What cropping to a multiple of the scale, or of 12, does not explain."""
    put(tmp_path / "HR/a.png", height=48 + more[0], width=72 + more[1])
    put_low(scale, tmp_path / "LR/a.png")
    with pytest.raises(ImageError, match=rf"at scale {scale} the HR image must be"):
        find_pairs(tmp_path, scale)


REFUSED = {
    "unknown": (["HR/a.png"], ["bicubic_down/x2/a.png"], "bicubic_down beside HR images, which is no known layout"),
    "unknown LR": (
        ["HR/a.png"],
        ["LR_unknown/X2/a.png"],
        r"Known: HR \+ LR, HR \+ LR/X\{s\}, .*GTmod12 \+ LRbicX\{s\}",
    ),
    "LR of another kind": (["DIV2K_valid_HR/a.png"], ["DIV2K_valid_LR_mild/a.png"], "DIV2K_valid_LR_mild beside HR"),
    "beside pictures": (["a.png"], ["LR/a.png"], "holds images and LR, which is no known layout"),
    "LR beside folders": (["HR/a.png"], ["a_LR.png"], "holds a_LR.png beside folders of images"),
    "two places": (
        ["HR/a.png"],
        ["LR/a.png", "LR_bicubic/X2/a.png"],
        r"several ways \(HR \+ LR; HR \+ LR_bicubic/X2\)",
    ),
    "two sets": (["HR/a.png", "GT/a.png"], ["LR/a.png", "LQ/a.png"], "may be read in several ways"),
    "two HR": (["HR/a.png", "GT/a.png"], [], r"may be read in several ways \(HR; GT\)"),
    "two names": (["HR/a.png"], ["LR/a.png", "LR/ax2.png"], r"a\.png has several LR images, a\.png, ax2\.png"),
    "two endings": (["HR/a.png"], ["LR/a.png", "LR/a.bmp"], r"has several LR images, a\.bmp, a\.png"),
    "one for two": (["HR/a.png", "HR/a.bmp"], ["LR/a.png"], r"a\.png and a\.bmp have the same LR image"),
    "LR alone": ([], ["baby_LR2.png", "bird_LR2.png"], "holds LR images alone"),
    "no LR for one": (["a.png", "b.png"], ["a_LR2.png"], r"b\.png has no image of that name"),
    "HR in folders": (["HR/Set5/a.png"], ["LR/Set5/a.png"], "HR holds no images; known layouts: "),
    "sets without a layout": (["Set5/a.png"], ["Set14/a.png"], r"there are images in Set14, Set5, which may be given"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_unknown_or_ambiguous_is_refused(tmp_path: Path, kind: str) -> None:
    highs, lows, message = REFUSED[kind]
    put(*(tmp_path / path for path in highs))
    put_low(2, *(tmp_path / path for path in lows))
    with pytest.raises(ImageError, match=message):
        find_pairs(tmp_path, 2)


def test_lr_in_files_that_are_no_pictures_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "HR/a.png")
    (tmp_path / "LR").mkdir()
    (tmp_path / "LR/a.mat").touch()
    with pytest.raises(ImageError, match="holds LR beside HR images, which is no known layout"):
        find_pairs(tmp_path, 2)


def test_names_that_end_like_those_of_others(tmp_path: Path) -> None:
    """``ax2`` is a picture of its own here, and not ``a`` made smaller."""
    put(tmp_path / "HR/a.png", tmp_path / "HR/ax2.png")
    put_low(2, tmp_path / "LR/a.png", tmp_path / "LR/ax2.png")
    assert list(lows_found(tmp_path, 2).values()) == [["LR/a.png", "LR/ax2.png"]]


def test_what_is_not_used_is_said(tmp_path: Path) -> None:
    put(tmp_path / "Set5/HR/a.png", tmp_path / "loose/b.png")
    put_low(2, *(tmp_path / "Set5" / low for low in ("LR/ax2.png", "LR/c.png", "LR_noise/a.png")))
    put_low(3, tmp_path / "Set5/LR/ax3.png")  # for another scale
    with pytest.warns(FolderWarning) as said:
        assert lows_found(tmp_path, 2) == {"Set5": ["Set5/LR/ax2.png"]}
    text = "\n".join(str(warning.message) for warning in said)
    assert "LR_noise may hold LR images too and is not used" in text
    assert "1 LR image without an HR image, not used: c.png" in text
    assert "1 folder of images in no known layout, not used: loose" in text
    assert len(said) == 3


def test_where_lr_is_made_it_is_said(tmp_path: Path) -> None:
    put(tmp_path / "GTmod12/a.png")
    (pairs,) = find_pairs(tmp_path, 2)
    assert pairs.low_is_made
    (pair,) = pairs
    low, high = pair.read()
    assert np.array_equal(low, shrink_8bit(planes(high), 2).permute(1, 2, 0).numpy())


def test_the_help_names_every_layout_and_every_ending() -> None:
    text = " ".join((evaluate.__doc__ or "").split())
    for layout in LAYOUTS:
        assert str(layout).replace("{set}", "*") in text
    for ending in LOW_ENDINGS:
        assert ending in text
