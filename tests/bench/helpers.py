"""A small grid, computed in this process, where a test can look at it and disturb it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.conftest import small_networks
from tests.images.test_pairs import make_pair

from srquant import MinMax, configure
from srquant.bench.cells import DataSet, Grid, Subject, plan
from srquant.bench.measuring import Outcome, Wishes, measure
from srquant.bench.records import CellRecord, Runs
from srquant.bench.running import run_grid
from srquant.bench.tasks import Task
from srquant.images import Calibration, find_pairs
from srquant.methods import Method
from srquant.model import Model

PATIENCE = 120
"""Seconds that are waited for what another process shall do."""
TIMES = ("process_seconds", "wall_seconds", "scoring_seconds", "latency", "peak_memory", "finished")
"""What no two runs have in common."""


def subject(folder: Path, low: Path, network: str = "edsr") -> Subject:
    """A small network with two patches and one pair."""
    model = Model(small_networks()[network], f"{network}.pth")
    data = folder / f"Set5/x{model.scale}"
    if not data.exists():
        make_pair(data, "1", model.scale)
    patches = Calibration.from_low_resolution(low, count=2, size=24)
    return Subject(model, patches, tuple(DataSet(each) for each in find_pairs(data, model.scale)))


def small_grid(folder: Path, low: Path, *methods: str, network: str = "edsr") -> Grid:
    """Methods, as ``plq:quantile=0.9``, on one small network."""
    return plan([(subject(folder, low, network), [titled(text) for text in methods])], "cpu")


def titled(text: str) -> tuple[str, Method]:
    name, _, fields = text.partition(":")
    return text, configure(name, settings=[each for each in fields.split(",") if each])


@dataclass
class Here:
    """Computes in this process, and notes what."""

    grid: Grid
    wishes: Wishes
    before: Callable[[Task], Any] = lambda task: None
    computed: list[str] = field(default_factory=list)

    def compute(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
        for task in tasks:
            self.before(task)
            self.computed.append(task.cell.title)
            given = self.grid.subjects[task.cell.subject]
            yield task, measure(task.cell, given, self.wishes, task.float_data, task.state)


def run_here(grid: Grid, folder: Path, **wishes: Any) -> tuple[Runs, list[str]]:
    """The runs, and the titles of the cells that were computed."""
    asked = Wishes(device="cpu", **wishes)
    team = Here(grid, asked)
    return run_grid(grid, folder, asked, team=team), team.computed


def without_times(records: Sequence[CellRecord]) -> list[CellRecord]:
    return [replace(record, **dict.fromkeys(TIMES[:-1], 0), finished="") for record in records]


@dataclass(frozen=True, kw_only=True)
class Fatal(MinMax):
    """Ends its process, as the system does, unless a file is there."""

    name = "fatal"
    number: int = 9
    unless: str = ""
    wait: float = 0.0

    def quantize(self, model, data, /, state=None):
        if not (self.unless and Path(self.unless).exists()):
            if self.unless:
                Path(self.unless).touch()
            time.sleep(self.wait)
            os.kill(os.getpid(), self.number)
            os._exit(3)
        return super().quantize(model, data, state)


@dataclass(frozen=True, kw_only=True)
class Lingering(MinMax):
    """Writes the number of its raylet into a file and waits, if nobody did so before."""

    name = "lingering"
    file: str = ""

    def quantize(self, model, data, /, state=None):
        if not Path(self.file).exists():
            temporary = Path(self.file).with_suffix(".part")
            temporary.write_text(str(os.getppid()))
            temporary.rename(self.file)
            time.sleep(PATIENCE)
        return super().quantize(model, data, state)
