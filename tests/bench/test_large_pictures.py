"""Test2K and Test4K of pictures of 8K."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import write_png

from srquant.bench.large_pictures import LARGE_SETS, make_large_sets
from srquant.images import find_pairs, read_picture
from srquant.images.bicubic import resize
from srquant.support.errors import ImageError, OutputError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in (1, 1200, 1201, 1300, 1301, 1400, 1401):
        write_png(tmp_path / f"DIV8K/{number:04}.png", 243, 326, number)
    write_png(tmp_path / "DIV8K/notes.png", 20, 20)
    return tmp_path / "DIV8K"


def test_sets_are_those_of_the_papers(run, pictures: Path, tmp_path: Path) -> None:
    code, text, error = run("bench", "large-pictures", pictures, "-o", tmp_path / "data")
    assert code == 0, error
    assert "Test2K: 2 HR images" in text and "Test4K: 2 HR images" in text
    made = {path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*.png")}
    assert made == {"Test2K/HR/1201.png", "Test2K/HR/1300.png", "Test4K/HR/1301.png", "Test4K/HR/1400.png"}
    assert {folder.name: len(folder) for folder in find_pairs(tmp_path / "data", 4)} == {"Test2K": 2, "Test4K": 2}
    original = read_picture(pictures / "1201.png").rgb8()[:240, :324]
    expected = resize(torch.from_numpy(original).permute(2, 0, 1)[None].double(), 1 / 4)[0]
    found = read_picture(tmp_path / "data/Test2K/HR/1201.png").rgb8()
    assert found.shape == (60, 81, 3)
    assert np.abs(found.astype(float) - expected.permute(1, 2, 0).numpy().clip(0, 255)).max() < 1.01, (
        "rounded after each axis"
    )
    assert read_picture(tmp_path / "data/Test4K/HR/1301.png").size == (121, 163)


def test_what_is_there_stays(pictures: Path, tmp_path: Path) -> None:
    made = make_large_sets(pictures, tmp_path / "data")
    assert made == {"Test2K": 2, "Test4K": 2}
    path = tmp_path / "data/Test2K/HR/1201.png"
    path.write_bytes(b"mine")
    (tmp_path / "data/Test4K/HR/1301.png").unlink()
    make_large_sets(pictures, tmp_path / "data")
    assert path.read_bytes() == b"mine" and (tmp_path / "data/Test4K/HR/1301.png").exists()


def test_folders_that_do_not_do(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="pictures are read from"):
        make_large_sets(pictures, pictures / "data")
    write_png(tmp_path / "others/a.png", 20, 20)
    with pytest.raises(ImageError, match="holds no pictures of the numbers 1201 to 1300"):
        make_large_sets(tmp_path / "others", tmp_path / "data")
    write_png(tmp_path / "small/1201.png", 3, 3)
    with pytest.raises(ImageError, match="is smaller than the factor 4"):
        make_large_sets(tmp_path / "small", tmp_path / "data")
    assert set(LARGE_SETS) == {"Test2K", "Test4K"}
