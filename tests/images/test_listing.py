"""Which files of a folder are pictures, and what is said of the others."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import write_png

from srquant.images import listing, read_picture
from srquant.images.listing import Listing, Reason, holds_pictures, list_images
from srquant.support.errors import FolderWarning, ImageError
from srquant.support.files import PICTURES, replacing


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_and_the_folders_in_it(tmp_path: Path) -> None:
    touch(tmp_path, "b.PNG", "a.jpg", "sub/c.webp", "sub/deep/d.Tif")
    assert [path.name for path in Listing.of(tmp_path).pictures] == ["a.jpg", "b.PNG"]
    assert Listing.of(tmp_path).passed_over == ((tmp_path / "sub", Reason.NOT_SEARCHED),)
    assert [path.name for path in list_images(tmp_path, recursive=True)] == ["a.jpg", "b.PNG", "c.webp", "d.Tif"]


def test_what_is_passed_over_is_counted_by_reason(tmp_path: Path) -> None:
    album = tmp_path / "album"
    touch(album, "a.png", "notes.txt", "sub/table.csv", "x.heic", "raw.NEF", ".a.png", ".thumbnails/b.png", "x4/a.png")
    touch(tmp_path, "others/c.png")
    (album / "linked").symlink_to(tmp_path / "others", target_is_directory=True)
    (album / "lost.png").symlink_to(tmp_path / "nowhere.png")
    (album / "real.png").symlink_to(tmp_path / "others/c.png")
    os.mkfifo(album / "pipe.png")
    with replacing(album / "b.png"):  # what is being written is none of the folder's contents
        found = Listing.of(album, recursive=True, without=album / "x4")
    assert [path.name for path in found.pictures] == ["a.png", "real.png"]
    assert Counter(reason for _, reason in found.passed_over) == {
        Reason.NO_PICTURE: 2,
        Reason.NOT_READ: 2,
        Reason.HIDDEN: 2,
        Reason.LINK: 1,
        Reason.BROKEN_LINK: 1,
        Reason.SPECIAL: 1,
        Reason.OUTPUT: 1,
    }
    said = found.describe()
    assert "2 × not a picture (notes.txt, sub/table.csv)" in said
    assert "2 × a format that cannot be read (raw.NEF, x.heic)" in said
    assert "1 × a link to a folder (linked)" in said
    with pytest.warns(FolderWarning, match=r"album: passed over 2 × not a picture .*; 2 × hidden"):
        list_images(album, recursive=True)


def test_many_of_one_kind_are_not_all_named(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.txt" for number in range(9)))
    assert Listing.of(tmp_path).describe() == "9 × not a picture (0.txt, 1.txt, 2.txt, …)"


def test_a_hidden_folder_that_is_given_is_searched(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden/sub/a.png")
    assert [path.name for path in list_images(tmp_path / ".hidden", recursive=True)] == ["a.png"]
    assert holds_pictures(tmp_path / ".hidden", recursive=True)
    assert not holds_pictures(tmp_path / ".hidden")


def test_a_folder_behind_a_closed_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "closed/b.png")
    real = Path.iterdir

    def closed(path: Path):
        if path == door:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", closed)
    door = tmp_path / "closed"
    found = Listing.of(tmp_path, recursive=True)
    assert [path.name for path in found.pictures] == ["a.png"]
    assert found.passed_over == ((door, Reason.CLOSED),)
    door = tmp_path
    with pytest.raises(ImageError, match="cannot be read: Permission denied"):
        list_images(tmp_path)
    assert not holds_pictures(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path / f"{'x' * 300}", write_png(tmp_path / "a.png", 8, 8)):
        with pytest.raises(ImageError, match="is not a folder"):
            list_images(path)


@pytest.mark.parametrize("suffix", PICTURES)
def test_what_is_listed_is_read(tmp_path: Path, suffix: str) -> None:
    Image.init()
    kind = Image.registered_extensions().get(suffix)
    if kind not in Image.SAVE or not listing._readable(suffix):
        pytest.skip(f"Pillow writes no {suffix} here")
    flat = {".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")
    Image.new("RGB", (20, 16), "white").convert(flat).save(tmp_path / f"a{suffix}")
    (path,) = list_images(tmp_path)
    pixels = read_picture(path).rgb8()
    assert pixels.shape == (16, 20, 3)
    assert np.all(pixels >= 250)


def test_a_format_for_which_no_library_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.avif", "b.png")
    monkeypatch.setattr(listing.features, "check", lambda name: name != "avif")
    listing._readable.cache_clear()
    try:
        assert Listing.of(tmp_path).passed_over == ((tmp_path / "a.avif", Reason.NOT_READ),)
    finally:
        listing._readable.cache_clear()
