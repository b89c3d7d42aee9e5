"""What a digest tells apart, and what it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import write_png
from tests.images.test_pairs import make_pair

from srquant.images import Calibration, calibration, find_pairs
from srquant.learning.photographs import Photographs
from srquant.learning.settings import LearningSettings
from srquant.support.digests import digest_of_arrays, digest_of_pictures, digest_of_settings, digest_of_tensors
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


def test_arrays_are_told_from_their_parts() -> None:
    whole = np.arange(12, dtype=np.uint8)
    assert digest_of_arrays([whole]) == digest_of_arrays([whole.copy()])
    others = ([whole[:6], whole[6:]], [whole[6:], whole[:6]], [whole[::-1]], [])
    assert len({digest_of_arrays(arrays) for arrays in ([whole], *others)}) == 5


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"1\.png cannot be read: No such file"):
        digest_of_pictures([tmp_path / "1.png"])


@pytest.mark.parametrize("kept", [True, False])
def test_a_changed_picture_of_the_same_name_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Whether the patches' pixels are compared or, where those are too many, the files."""
    if not kept:
        monkeypatch.setattr(calibration, "_KEPT_BYTES", 3 * 20 * 20 * 4 - 1)
    for number in range(2):
        write_png(tmp_path / f"{number}.png", 30, 32, number)

    def digest(**fields: int) -> str:
        return Calibration.from_low_resolution(tmp_path, **{"count": 4, "size": 20, **fields}).digest()

    before = digest()
    assert before == digest()
    assert len({before, digest(seed=1), digest(count=3), digest(size=19)}) == 4
    write_png(tmp_path / "1.png", 30, 32, 7)
    changed = digest()
    assert changed != before
    write_png(tmp_path / "1.png", 30, 32, 1)
    assert digest() == before


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
