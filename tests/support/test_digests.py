"""What a digest tells apart, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import write_png
from tests.images.test_pairs import make_pair

from srquant.images import Calibration, find_pairs
from srquant.learning.photographs import Photographs
from srquant.learning.settings import LearningSettings
from srquant.support.digests import digest_of_pictures, digest_of_settings, digest_of_tensors
from srquant.support.errors import ImageError


def test_settings() -> None:
    one = digest_of_settings(LearningSettings(), {"a": 1, "b": (2,)})
    assert one == digest_of_settings(LearningSettings(), {"b": [2], "a": 1})
    assert one != digest_of_settings(LearningSettings(seed=1), {"a": 1, "b": (2,)})
    assert digest_of_settings("ab", "c") != digest_of_settings("a", "bc")


def test_tensors() -> None:
    values = torch.arange(48.0).reshape(2, 3, 2, 4)
    one = digest_of_tensors({"w": values})
    assert one == digest_of_tensors({"w": values.contiguous(memory_format=torch.channels_last)})
    others = ({"v": values}, {"w": values.reshape(6, 8)}, {"w": values.double()}, {"w": values + 1}, {})
    assert len({one, *map(digest_of_tensors, others)}) == 6
    assert digest_of_tensors({"w": torch.tensor(1.0, dtype=torch.bfloat16)})


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"1\.png cannot be read: No such file"):
        digest_of_pictures([tmp_path / "1.png"])


def test_a_changed_picture_of_the_same_name_and_size(tmp_path: Path) -> None:
    for number in range(2):
        write_png(tmp_path / f"{number}.png", 30, 32, number)

    def digest(**fields: int) -> str:
        return Calibration.from_low_resolution(tmp_path, **{"count": 4, "size": 20, **fields}).digest()

    before = digest()
    assert before == digest()
    assert len({before, digest(seed=1), digest(count=3), digest(size=19)}) == 4
    assert before != Calibration.from_photographs(tmp_path, 1, count=4, size=19).digest()
    write_png(tmp_path / "1.png", 30, 32, 7)
    assert digest() != before
    write_png(tmp_path / "1.png", 30, 32, 1)
    assert digest() == before


def test_patches_are_told_apart_by_the_pictures_they_are_cut_from(tmp_path: Path) -> None:
    """Of many pictures, only those that patches are cut from are read."""
    for number in range(6):
        write_png(tmp_path / f"{number}.png", 30, 32, number)
    before = [Calibration.from_low_resolution(tmp_path, count=2, size=20, seed=seed).digest() for seed in range(20)]
    write_png(tmp_path / "3.png", 30, 32, 9)
    after = [Calibration.from_low_resolution(tmp_path, count=2, size=20, seed=seed).digest() for seed in range(20)]
    for seed in range(20):
        patches = Calibration.from_low_resolution(tmp_path, count=2, size=20, seed=seed)
        last = patches.patch(0), patches.patch(1)
        write_png(tmp_path / "3.png", 30, 32, 3)
        first = Calibration.from_low_resolution(tmp_path, count=2, size=20, seed=seed)
        same = all(torch.equal(first.patch(i), last[i]) for i in range(2))
        assert (before[seed] == after[seed]) == same
        write_png(tmp_path / "3.png", 30, 32, 9)


def test_photographs_and_pairs(tmp_path: Path) -> None:
    write_png(tmp_path / "photos/1.png", 48, 60)
    make_pair(tmp_path / "set", "1", 2)

    def digests() -> tuple[str, ...]:
        (pairs,) = find_pairs(tmp_path / "set", 2)
        photographs = Photographs.of(tmp_path / "photos", 2, 16)
        return photographs.digest(), pairs.digest()

    before = digests()
    assert before == digests()
    write_png(tmp_path / "photos/1.png", 48, 60, 1)
    write_png(tmp_path / "set/LR/1.png", 24, 30, 1)
    assert all(one != other for one, other in zip(before, digests(), strict=True))
