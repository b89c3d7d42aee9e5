"""Cells in processes of this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.bench.helpers import Fatal, run_here, small_grid, subject, titled, without_times
from torch import nn

from srquant.bench.cells import plan
from srquant.bench.local import LocalProcesses
from srquant.bench.measuring import Wishes
from srquant.bench.running import run_grid
from srquant.bench.tasks import Task
from srquant.methods import METHODS
from srquant.model import Model
from srquant.support.errors import ArgumentError

HERE = Wishes(device="cpu", threads=1)


@pytest.fixture(autouse=True)
def fatal() -> Iterator[None]:
    METHODS.register(Fatal)
    yield
    del METHODS.registered["fatal"]


def test_workers_give_what_one_process_gives(tmp_path: Path, low_images: Path) -> None:
    """GPTQ and learning among the methods: whatever sums depend on is the same."""
    grid = small_grid(tmp_path, low_images, "plq", "srquant:finetuning.steps=2", "minmax:bits=8")
    serial, _ = run_here(grid, tmp_path / "serial", threads=1, keep_models=True)
    wishes = replace(HERE, keep_models=True)
    runs = run_grid(grid, tmp_path / "parallel", wishes, 3)
    assert [record.reason for record in runs] == [""] * 4
    assert without_times(runs.records) == without_times(serial.records)
    for record in runs.done[1:]:
        assert runs.model_path(record).read_bytes() == serial.model_path(record).read_bytes()
    assert all(record.peak_memory > 1 << 24 for record in runs)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "its process was killed, as the system does when memory runs out; fewer workers need less"),
        (signal.SIGSEGV, "its process was ended by signal 11 (SIGSEGV)"),
        (0, "its process ended with exit code 3 before it was done"),
    ],
)
def test_a_process_that_ends_is_a_reason(tmp_path: Path, low_images: Path, number: int, reason: str) -> None:
    grid = small_grid(tmp_path, low_images, f"fatal:number={int(number)}", "minmax")
    runs = run_grid(grid, tmp_path / "runs", HERE, 2)
    (failed,) = runs.failed
    assert failed.method == "fatal" and failed.reason.startswith(reason)
    assert [record.method for record in runs.done] == ["float", "minmax"]


def test_an_interruption_ends_all_processes(tmp_path: Path, low_images: Path) -> None:
    grid = small_grid(tmp_path, low_images, "fatal:wait=600", "minmax", "fatal:wait=601")
    team = LocalProcesses(grid.subjects, HERE, 2)
    before = run_here(small_grid(tmp_path, low_images), tmp_path / "float")[0].records[0]
    tasks = [Task(cell, before.data) for cell in grid.cells if cell.method is not None]
    found = team.compute(tasks)
    (task, _) = next(found)
    assert task.cell.title == "minmax"
    numbers = [process.pid for _, process in _running(found)]
    assert len(numbers) == 1
    found.close()  # as when the loop around it is interrupted
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def _running(found):
    return found.gi_frame.f_locals["running"].values()


def test_a_network_that_cannot_be_sent(tmp_path: Path, low_images: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, images):
            return nn.functional.pixel_shuffle(self.conv(images), 2)

    own = replace(subject(tmp_path, low_images, "srresnet"), model=Model.wrap(Own(), 2))
    with pytest.raises(ArgumentError, match=r"Own cannot be given to another process .* that can be imported"):
        run_grid(plan([(own, [titled("minmax")])], "cpu"), tmp_path / "runs", HERE)


def test_a_script_without_a_guard_is_told(tmp_path: Path, low_images: Path) -> None:
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(
        f"from pathlib import Path\nfrom tests.bench.helpers import small_grid\n"
        f"from srquant.bench.running import run_grid\nfrom srquant.bench.measuring import Wishes\n"
        f"grid = small_grid(Path({str(tmp_path)!r}), Path({str(low_images)!r}), 'minmax')\n"
        f"run_grid(grid, Path({str(tmp_path / 'runs')!r}), Wishes(device='cpu'))\n"
    )
    root = Path(__file__).parent.parent.parent
    path = os.pathsep.join([str(root), str(root / "src")])
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode != 0
    assert "a script calls srquant.bench.run under if __name__ == '__main__':" in done.stderr
    assert not list((tmp_path / "runs").rglob("*.json"))
