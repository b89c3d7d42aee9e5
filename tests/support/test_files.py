"""Nothing that is read is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import write_png

from srquant import upscale
from srquant.model import Model
from srquant.support.errors import OutputError
from srquant.support.files import require_apart


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_png(tmp_path / "in/a.png", 20, 24)


@pytest.mark.parametrize("kind", ["itself", "dots", "symbolic", "hard", "folder"])
def test_a_file_is_known_by_every_path(source: Path, tmp_path: Path, kind: str) -> None:
    other = tmp_path / "b.png"
    if kind == "itself":
        other = source
    elif kind == "dots":
        other = tmp_path / "in/../in/a.png"
    elif kind == "symbolic":
        other.symlink_to(source)
    elif kind == "hard":
        other.hardlink_to(source)
    else:
        (tmp_path / "other").symlink_to(source.parent, target_is_directory=True)
        other = tmp_path / "other/a.png"
    with pytest.raises(OutputError, match="which is read; choose another name"):
        require_apart(other, None, tmp_path / "c", source)


def test_no_picture_goes_among_the_pictures_of_an_input_folder(source: Path, tmp_path: Path) -> None:
    folder = source.parent
    for name in ("new.png", "new.JPG", "../in/new.tif"):
        with pytest.raises(OutputError, match="choose another folder"):
            require_apart(folder / name, folder)
    for path in (folder / "below/new.png", folder / "new.json", tmp_path / "new.png"):
        require_apart(path, folder)
    with pytest.raises(OutputError, match="choose another folder"):
        require_apart(folder / "below/new.png", folder, below=True)


@pytest.mark.parametrize("target", ["in/a.png", "in", "link.png", "hard.png"])
def test_a_picture_is_not_its_own_result(edsr: Model, source: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "link.png").symlink_to(source)
    (tmp_path / "hard.png").hardlink_to(source)
    before = source.read_bytes()
    with pytest.raises(OutputError, match="which is read; choose another name"):
        upscale(edsr, source, tmp_path / target)
    assert source.read_bytes() == before
    assert {path.name for path in tmp_path.rglob("*")} == {"in", "a.png", "link.png", "hard.png"}


@pytest.mark.parametrize("target", ["in", "link", "in/../in"])
def test_a_folder_is_not_its_own_result(edsr: Model, source: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(source.parent, target_is_directory=True)
    with pytest.raises(OutputError, match="choose another folder"):
        upscale(edsr, source.parent, tmp_path / target)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.png"]


def test_an_output_above_the_input_may_not_meet_it(edsr: Model, tmp_path: Path) -> None:
    """``up/in/a.png`` would become ``up/a.png``, and ``up/in/in/b.png`` the input ``up/in/b.png``."""
    write_png(tmp_path / "up/in/a.png", 20, 24)
    kept = write_png(tmp_path / "up/in/b.png", 20, 24)
    write_png(tmp_path / "up/in/in/b.png", 20, 24)
    before = kept.read_bytes()
    done = upscale(edsr, tmp_path / "up/in", tmp_path / "up")
    assert [path.name for path in done.written] == ["a.png", "b.png"]
    assert [path.name for path, _ in done.failed] == ["b.png"]
    assert "which is read" in done.failed[0][1]
    assert kept.read_bytes() == before
