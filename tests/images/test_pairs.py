from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import write_png

from srquant.images import find_pairs, shrink_8bit
from srquant.support.errors import ImageError


def make_pair(folder: Path, name: str, scale: int, seed: int = 0, low_name: str | None = None) -> None:
    high = write_png(folder / "HR" / f"{name}.png", 48, 60, seed)
    pixels = torch.from_numpy(np.asarray(Image.open(high)).copy()).permute(2, 0, 1)
    (folder / "LR").mkdir(exist_ok=True)
    low = shrink_8bit(pixels, scale).permute(1, 2, 0).numpy()
    Image.fromarray(low).save(folder / "LR" / f"{low_name or name}.png")


def test_a_pair_folder(tmp_path: Path) -> None:
    make_pair(tmp_path / "Set5/x4", "a", 4)
    make_pair(tmp_path / "Set5/x4", "b", 4, low_name="bx4")
    (folder,) = find_pairs(tmp_path / "Set5/x4", 4)
    assert folder.name == "Set5"
    assert [pair.name for pair in folder] == ["a.png", "b.png"]
    low, high = next(iter(folder)).read()
    assert (low.shape, high.shape) == ((12, 15, 3), (48, 60, 3))


def test_a_parent_of_several_takes_the_scale_that_fits(tmp_path: Path) -> None:
    for name in ("Set5", "Set14"):
        for scale in (2, 4):
            make_pair(tmp_path / name / f"x{scale}", "a", scale)
    assert [folder.name for folder in find_pairs(tmp_path, 4)] == ["Set14", "Set5"]
    with pytest.raises(ImageError, match=r"none of the 4 pair folders below .* has scale 3"):
        find_pairs(tmp_path, 3)


@pytest.mark.parametrize("inside", ["HR", "."])
def test_high_resolution_alone(tmp_path: Path, inside: str) -> None:
    write_png(tmp_path / inside / "a.png", 50, 61)
    ((pair,),) = find_pairs(tmp_path, 4)
    low, high = pair.read()
    assert (low.shape, high.shape) == ((12, 15, 3), (48, 60, 3)), "cropped to a multiple"
    planes = torch.from_numpy(high.copy()).permute(2, 0, 1)
    assert np.array_equal(low, shrink_8bit(planes, 4).permute(1, 2, 0).numpy())


def test_mirrored_borders_can_be_asked_for(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", 48, 60)
    ((replicated,),), ((mirrored,),) = find_pairs(tmp_path, 4), find_pairs(tmp_path, 4, "mirror")
    assert not np.array_equal(replicated.read()[0], mirrored.read()[0])


def test_a_wrong_scale(tmp_path: Path) -> None:
    make_pair(tmp_path, "a", 4)
    with pytest.raises(ImageError, match="at scale 2 the HR image must be 30x24"):
        find_pairs(tmp_path, 2)


def test_a_missing_partner(tmp_path: Path) -> None:
    make_pair(tmp_path, "a", 4)
    write_png(tmp_path / "HR/b.png", 48, 60)
    with pytest.raises(ImageError, match=r"b\.png has no image of that name in .*LR"):
        find_pairs(tmp_path, 4)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="neither HR and LR folders nor images"):
        find_pairs(tmp_path, 4)
    (tmp_path / "HR").mkdir()
    with pytest.raises(ImageError, match="holds no images"):
        find_pairs(tmp_path, 4)
    with pytest.raises(ImageError, match="is not a folder"):
        find_pairs(tmp_path / "nowhere", 4)
