"""Files are replaced as a whole, and what killed processes left is cleared away."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.conftest import small_networks, write_png

from srquant import upscale
from srquant.analysis.curves import write_curve
from srquant.images import Calibration
from srquant.learning.state import Owner, StateFile
from srquant.learning.trainer import CurveRow
from srquant.methods import MinMax
from srquant.model import Model
from srquant.networks.opening import save_network
from srquant.support import files
from srquant.support.errors import OutputError, TrainingError
from srquant.support.files import replacing, require_writable


def _write_for_ever(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        time.sleep(60)


def _started(folder: Path) -> multiprocessing.process.BaseProcess:
    """A process that holds a temporary file of its own in the folder."""
    before = set(folder.iterdir())
    process = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(folder / "a.txt",))
    process.start()
    while not any(path.stat().st_size for path in set(folder.iterdir()) - before):
        assert process.is_alive(), f"ended with {process.exitcode} before it wrote"
        time.sleep(0.01)
    return process


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    killed = _started(tmp_path)
    (left,) = tmp_path.iterdir()
    living = _started(tmp_path)
    (held,) = set(tmp_path.iterdir()) - {left}
    (tmp_path / ".srquant-notes.txt").write_text("not ours")
    try:
        assert killed.pid is not None
        os.kill(killed.pid, signal.SIGKILL)
        killed.join()
        with replacing(tmp_path / "b.txt") as temporary:
            assert not left.exists()
            temporary.write_text("whole")
        assert {path.name for path in tmp_path.iterdir()} == {"b.txt", held.name, ".srquant-notes.txt"}
    finally:
        living.kill()
        living.join()


@pytest.mark.parametrize(
    ("place", "process", "run", "age", "removed"),
    [
        ("own", "own", "own", 0, False),
        ("own", "own", "00000000", 0, True),  # an earlier process of this number, as in a container started again
        ("own", "1", "00000000", 0, os.getpid() == 1),
        ("own", "99999999999999999999", "00000000", 0, True),
        ("00000000", "99999999", "00000000", 0, False),  # another machine's, on a shared disk
        ("00000000", "99999999", "00000000", 2 * 24 * 3600, True),
        ("own", "1", "00000000", 2 * 24 * 3600, True),
    ],
)
def test_what_counts_as_abandoned(tmp_path: Path, place: str, process: str, run: str, age: int, removed: bool) -> None:
    parts = (
        files._machine() if place == "own" else place,
        str(os.getpid()) if process == "own" else process,
        files._RUN if run == "own" else run,
    )
    file = tmp_path / f".srquant-{'-'.join(parts)}-12345678.safetensors"
    file.touch()
    then = time.time() - age
    os.utime(file, (then, then))
    with replacing(tmp_path / "a.txt"):
        pass
    assert file.exists() != removed


def test_names_as_long_as_the_disk_allows(tmp_path: Path) -> None:
    path = tmp_path / f"{'ä' * 125}.png"
    with replacing(path) as temporary:
        temporary.touch()
    assert path.exists()
    with pytest.raises(OutputError, match="name too long"):
        require_writable(tmp_path / ("x" * 300))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.txt"
    path.touch()
    path.chmod(mode)
    with replacing(path) as temporary:
        assert not stat.S_IMODE(temporary.stat().st_mode) & ~mode & 0o077, "nobody else reads it meanwhile either"
        temporary.unlink()
        temporary.write_text("new")  # as writers that make a file of their own
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", mode)


@pytest.mark.parametrize("there", [True, False])
def test_the_file_that_a_link_leads_to_is_replaced(tmp_path: Path, there: bool) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    target, link, chain = tmp_path / "two/a.txt", tmp_path / "one/a.txt", tmp_path / "b.txt"
    if there:
        target.write_text("old")
    link.symlink_to("../two/a.txt")
    chain.symlink_to(link)
    with replacing(chain) as temporary:
        temporary.write_text("new")
    assert (target.read_text(), target.is_symlink(), link.is_symlink(), chain.is_symlink()) == (
        "new",
        False,
        True,
        True,
    )
    assert {path.name for path in tmp_path.rglob("*")} == {"one", "two", "a.txt", "b.txt"}


def test_content_is_on_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, done, sync, replace = tmp_path / "a.txt", [], os.fsync, Path.replace

    def synced(number: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else f"file of {os.fstat(number).st_size} bytes")
        sync(number)

    def replaced(self: Path, target: Path) -> Path:
        done.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert done == ["file of 5 bytes", "name", "folder"]


def _picture(edsr: Model, folder: Path, name: str) -> None:
    upscale(edsr, folder / "low/1.png", folder / name)


WRITERS: dict[str, Callable[[Model, Path], object]] = {
    "model.safetensors": lambda edsr, folder: (
        MinMax()
        .quantize(edsr, Calibration.from_low_resolution(folder / "low", count=1))
        .save(folder / "model.safetensors")
    ),
    "weights.safetensors": lambda edsr, folder: save_network(folder / "weights.safetensors", edsr.network, {}),
    "run.state": lambda edsr, folder: StateFile(
        folder / "run.state", Owner("training", "", "edsr", {}), TrainingError
    ).save(1, 2, {"weights": torch.ones(10_000)}),
    "curve.png": lambda edsr, folder: write_curve(folder / "curve.png", [CurveRow(1, 1.0, 30.0, 1.0)]),
    **{
        f"large{suffix}": lambda edsr, folder, suffix=suffix: _picture(edsr, folder, f"large{suffix}")
        for suffix in (".png", ".tif", ".jpg", ".webp", ".bmp")
    },
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_sentence_and_leaves_the_file_before(tmp_path: Path, name: str) -> None:
    """A limit on the size of files stands for the disk: what exceeds either fails in the middle of a write."""
    edsr = Model(small_networks()["edsr"], "edsr.pth")
    write_png(tmp_path / "low/1.png", 40, 48)
    (tmp_path / name).write_bytes(b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=rf"cannot write \S+{name}: File too large$"):
            WRITERS[name](edsr, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / name).read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"low", name}


@pytest.mark.parametrize("name", ["a.png", "x" * 243 + ".safetensors", "a." + "b" * 250])
def test_temporary_names_are_short_however_long_the_name_is(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as temporary:
        assert files.is_temporary(temporary)
        assert len(temporary.name) < 80
        temporary.touch()
    assert [file.name for file in tmp_path.iterdir()] == [name]
