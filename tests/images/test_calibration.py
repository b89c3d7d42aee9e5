from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import write_png

from srquant.images import Calibration, calibration
from srquant.support.errors import ArgumentError, FolderWarning, ImageError


def test_patches_are_cut_flipped_and_turned(low_images: Path) -> None:
    patches = Calibration.from_low_resolution(low_images, count=12, size=20)
    assert len(patches) == 12
    sources = [np.asarray(Image.open(path)) for path in patches.images]
    for index in range(12):
        patch = (patches.patch(index) * 255).round().byte().permute(1, 2, 0).numpy()
        assert patch.shape == (20, 20, 3)
        assert any(contains(source, turned) for source in sources for turned in all_turns(patch))


def all_turns(patch: np.ndarray) -> list[np.ndarray]:
    return [np.rot90(flipped, k) for flipped in (patch, patch[:, ::-1]) for k in range(4)]


def contains(image: np.ndarray, patch: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(image, patch.shape)
    return bool((windows == patch).all((-1, -2, -3)).any())


def test_every_image_serves_once_before_any_serves_twice(low_images: Path) -> None:
    patches = Calibration.from_low_resolution(low_images, count=6, size=32)
    whole = {path: np.asarray(Image.open(path)).mean() for path in patches.images}
    means = sorted(float(patches.patch(i).mean()) * 255 for i in range(6))
    assert means == pytest.approx(sorted(whole.values()), abs=8)


def test_the_seed_decides(low_images: Path) -> None:
    def draw(seed: int) -> torch.Tensor:
        return Calibration.from_low_resolution(low_images, count=5, size=20, seed=seed).batch(range(5))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_batches_and_any_order(low_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patches = Calibration.from_low_resolution(low_images, count=7, size=20)
    batches = list(patches.batches(3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    monkeypatch.setattr(calibration, "_KEPT_BYTES", 0)  # nothing is kept in memory; the same patches come
    fresh = Calibration.from_low_resolution(low_images, count=7, size=20)
    assert torch.equal(fresh.batch([6, 0]), torch.cat(batches)[[6, 0]])
    assert not fresh._kept


def test_photographs_are_shrunk(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", 100, 131)
    patches = Calibration.from_photographs(tmp_path, 4, count=2, size=24)
    assert patches.sizes == ((25, 32),)
    assert patches.patch(0).shape == (3, 24, 24)
    assert "photographs shrunk by 4" in patches.describe()


def test_the_largest_patch_that_fits_all_is_used_and_said(low_images: Path) -> None:
    patches = Calibration.from_low_resolution(low_images)
    assert patches.size == 32
    assert "100 patches of 32x32 (not 96x96" in patches.describe()


def test_natural_photographs_at_scale_4_give_80_pixels(shared: Path) -> None:
    patches = Calibration.from_photographs(shared / "data/natural", 4)
    assert patches.size == 80
    assert len(patches.images) == 399


def test_bad_folders(tmp_path: Path, low_images: Path) -> None:
    with pytest.raises(ImageError, match="holds no images to calibrate on"):
        Calibration.from_low_resolution(tmp_path)
    write_png(tmp_path / "smaller.png", 12, 40)
    write_png(tmp_path / "small.png", 15, 40)
    with pytest.raises(ImageError, match=r"small\.png is 40x15; calibration images need at least 16x16"):
        Calibration.from_low_resolution(tmp_path)
    write_png(tmp_path / "small.png", 60, 80)
    with pytest.raises(ImageError, match="is 20x15 as LR image at scale 4"):
        Calibration.from_photographs(tmp_path, 4)
    with pytest.raises(ArgumentError, match="size=15 is too small"):
        Calibration.from_low_resolution(low_images, size=15)
    with pytest.raises(ArgumentError, match="count=0"):
        Calibration.from_low_resolution(low_images, count=0)


def test_patches_are_flipped_and_turned_in_all_eight_ways(tmp_path: Path) -> None:
    pixels = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) // 4
    Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(tmp_path / "a.png")
    patches = Calibration.from_low_resolution(tmp_path, count=100, size=32)
    found = {patches.patch(number).numpy().tobytes() for number in range(100)}
    whole = np.stack([pixels.astype(np.float32) / 255] * 3)
    turned = [np.rot90(flipped, turn, (1, 2)) for flipped in (whole, whole[:, :, ::-1]) for turn in range(4)]
    assert found == {np.ascontiguousarray(patch).tobytes() for patch in turned}


def test_folders_in_the_folder_are_searched(tmp_path: Path, low_images: Path) -> None:
    for number, path in enumerate(sorted(low_images.iterdir())):
        copy = tmp_path / f"{number % 2}/deep/{path.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "notes.txt").touch()
    with pytest.warns(FolderWarning, match=r"passed over 1 × not a picture \(notes.txt\)"):
        patches = Calibration.from_low_resolution(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in patches.images] == (
        ["0/deep/0.png", "0/deep/2.png", "0/deep/4.png", "1/deep/1.png", "1/deep/3.png", "1/deep/5.png"]
    )


@pytest.mark.parametrize("icon", [(20, 20), (8, 8), (4, 90), (16, 16)], ids=str)
def test_an_icon_makes_no_patch_small(tmp_path: Path, icon: tuple[int, int]) -> None:
    """The patches are those of the folder without it, to the bit."""
    for number in range(5):
        write_png(tmp_path / f"photos/{number}.png", 60 + number, 80, number)
        write_png(tmp_path / f"both/{number}.png", 60 + number, 80, number)
    write_png(tmp_path / "both/icon.png", *icon)
    without, patches = (Calibration.from_low_resolution(tmp_path / name, count=9) for name in ("photos", "both"))
    assert (patches.size, patches.passed_over, len(patches.images)) == (60, 1, 5)
    assert torch.equal(patches.batch(range(9)), without.batch(range(9)))
    assert patches.digest() == without.digest()
    assert "from 5 LR images (1 smaller one passed over), seed 0" in patches.describe()
    assert "passed over" not in without.describe()


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ([96, 200, 300], 96),
        ([48, 96, 96], 48),
        ([47, 96, 96], 96),
        ([40, 60, 80, 300], 40),
        ([29, 60, 80, 300], 60),
        ([20, 20, 20, 300], 20),
        ([15, 15, 15, 300], 96),
        ([100], 96),
        ([17], 17),
    ],
    ids=str,
)
def test_the_size_that_most_images_allow(tmp_path: Path, sides: list[int], size: int) -> None:
    for number, side in enumerate(sides):
        write_png(tmp_path / f"{number}.png", side, side + 9, number)
    patches = Calibration.from_low_resolution(tmp_path)
    assert (patches.size, patches.passed_over) == (size, sum(side < size for side in sides))


def test_a_size_that_is_asked_for_is_kept(low_images: Path) -> None:
    patches = Calibration.from_low_resolution(low_images, size=40)
    assert (patches.size, patches.passed_over) == (40, 3)
    assert {path.name for path in patches.images} == {"0.png", "3.png", "4.png"}
    assert "100 patches of 40x40 from 3 LR images (3 smaller ones passed over), seed 0" in patches.describe()


def test_an_image_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", 40, 40)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.warns(FolderWarning, match=r"passed over 1 image that cannot be read: .*b\.png is not an image"):
        assert len(Calibration.from_low_resolution(tmp_path).images) == 1
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match=r"b\.png is not an image"):
        Calibration.from_low_resolution(tmp_path)


@pytest.mark.parametrize(("colour", "message"), [(0, "one colour only"), (200, "one colour only"), (None, "the same")])
def test_images_that_tell_nothing_are_warned_of(tmp_path: Path, colour: int | None, message: str) -> None:
    for number in range(3):
        path = write_png(tmp_path / f"{number}.png", 80, 96)
        if colour is not None:
            Image.new("RGB", (96, 80 + number), (colour,) * 3).save(path)
    for make in (Calibration.from_low_resolution, lambda folder: Calibration.from_photographs(folder, 2)):
        with pytest.warns(FolderWarning, match=message):
            make(tmp_path)
    write_png(tmp_path / "3.png", 80, 96, seed=1)
    assert Calibration.from_photographs(tmp_path, 2).size == 40


def test_a_damaged_image_is_no_reason_to_stop_before_it_is_needed(tmp_path: Path) -> None:
    path = write_png(tmp_path / "0.png", 40, 40)
    path.write_bytes(path.read_bytes()[:-600])
    patches = Calibration.from_low_resolution(tmp_path, count=1)
    with pytest.raises(ImageError, match="damaged"):
        patches.patch(0)
