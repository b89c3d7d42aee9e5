"""What methods are given, by what they need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import write_png

import srquant
from srquant.images import Calibration
from srquant.learning.photographs import Photographs
from srquant.methods import METHODS, Method, MinMax
from srquant.methods.pipeline.data import data_for, require_data
from srquant.model import Model
from srquant.support.errors import ArgumentError, ImageError


@dataclass(frozen=True, kw_only=True)
class Taught(Method):
    """Looks at pairs, and does what MinMax does with the LR images."""

    name = "taught"
    needs = "pairs"

    def open(self, folder: Path | str, scale: int) -> Photographs:
        return Photographs.of(folder, scale, 16)

    def patches_of(self, data: Any) -> Calibration:
        return data.calibration(4, 16, 0)

    def quantize(self, model: Model, data: Photographs, /, state: Path | str | None = None) -> Model:
        return MinMax().quantize(model, self.patches_of(data), state)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(3):
        write_png(tmp_path / f"photos/{number}.png", 80, 96, number)
    return tmp_path / "photos"


def test_a_folder_is_opened_as_the_method_needs_it(edsr: Model, photos: Path) -> None:
    found = srquant.quantize(edsr, photos, Taught())
    assert found.record is not None
    assert "photographs shrunk by 4" in found.record.calibration


def test_the_wrong_kind_is_refused_and_the_way_out_said(edsr: Model, photos: Path, calibration: Calibration) -> None:
    pairs = Photographs.of(photos, 4, 16)
    with pytest.raises(ArgumentError, match=r"^data=Photographs\(.*plq needs LR patches; pass .*from_low_resolution"):
        srquant.quantize(edsr, pairs, "plq")
    with pytest.raises(ArgumentError, match=r"^data=Calibration\(.*taught needs photographs.*Photographs\.of\(folder"):
        srquant.quantize(edsr, calibration, Taught())
    assert require_data(Taught(), pairs) is pairs


def test_rows_of_a_table_are_given_what_they_need(photos: Path, calibration: Calibration) -> None:
    assert data_for(MinMax(), 4, lambda: calibration, photos) is calibration
    assert data_for(Taught(), 4, None, photos).holds == "pairs"
    with pytest.raises(ArgumentError, match="taught learns with ground truth: give --data"):
        data_for(Taught(), 4, lambda: calibration, None)
    with pytest.raises(ArgumentError, match="minmax is given LR patches alone: give --calibration"):
        data_for(MinMax(), 4, None, photos)


def test_photographs_too_small_for_a_crop_are_named(photos: Path) -> None:
    pairs = Photographs.of(photos, 4, 16)
    pairs.require(20)
    with pytest.raises(ImageError, match=r"0\.png is too small for LR crops of 24x24 at scale 4"):
        pairs.require(24)


def test_lr_patches_of_photographs_are_those_of_a_calibration(photos: Path) -> None:
    expected = Calibration.from_photographs(photos, 4, count=5, size=16, seed=3)
    assert Photographs.of(photos, 4, 16).calibration(5, 16, 3).batch(range(5)).equal(expected.batch(range(5)))


def test_every_method_says_what_it_needs() -> None:
    assert {kind.needs for kind in METHODS.values()} <= {"patches", "pairs"}
    described = {method.name: method for method in srquant.methods()}
    assert described["plq"].needs == "patches"


def test_the_command_names_what_is_missing(run: Any, photos: Path, tmp_path: Path) -> None:
    words = ("quantize", "unread.pth", "-o", tmp_path / "out.safetensors")
    code, _, errors = run(*words, "--method", "plq", "--steps", "5", "--calibration", photos)
    assert code == 2
    assert "training.steps" in errors
