"""Files are replaced as a whole, and what killed processes left is cleared away."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from srquant.support import files
from srquant.support.errors import OutputError
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
