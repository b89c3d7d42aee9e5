"""A grid from beginning to end: plan it, compute what is not there yet, write what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from srquant.api import pick_device
from srquant.bench.cells import Cell, Grid, plan
from srquant.bench.cluster import RayCluster
from srquant.bench.local import LocalProcesses
from srquant.bench.measuring import Outcome, Wishes, failed
from srquant.bench.provenance import commit
from srquant.bench.records import MODELS, RECORDS, STATES, CellRecord, Runs, in_order, record_path, scan, write_record
from srquant.bench.requests import (
    PatchSource,
    Sources,
    configured,
    grid_requests,
    opened,
    refuse_beside_suite,
    suite_requests,
)
from srquant.bench.suites import apply, suite_named
from srquant.bench.tasks import Task, Workers
from srquant.images.calibration import Calibration
from srquant.images.perceptual import further_scores
from srquant.learning.state import state_of
from srquant.methods import Method
from srquant.methods.base import EdgeProtocol
from srquant.methods.pipeline.unfinished import remove_state
from srquant.model import Model
from srquant.support.files import replacing, require_writable
from srquant.support.progress import Bar, bar
from srquant.support.settings import Threads, check

_Workers = Annotated[int, Field(ge=1, le=1024)]


def run(
    networks: Sequence[Model | Path | str],
    methods: Sequence[str | Method] | Mapping[str, Method] = (),
    *,
    suite: str | None = None,
    data: Sequence[Path | str],
    output: Path | str,
    bits: Sequence[str | int] = (),
    edges: EdgeProtocol | None = None,
    settings: Iterable[str] = (),
    calibration: Calibration | Path | str | None = None,
    calibration_hr: Path | str | None = None,
    patches: int | None = None,
    patch_size: int | None = None,
    seed: int = 0,
    scores: Iterable[str] = (),
    tile: int | None = None,
    overlap: int | None = None,
    workers: int = 1,
    threads: int | None = None,
    ray: str | None = None,
    device: str = "auto",
    keep_models: bool = False,
    sensitivities: bool = False,
) -> Runs:
    """Quantize networks by methods at some bits, score them all, and keep a record of each.

    A cell that the folder has already is not computed again, nor one twice; one that failed is tried again. A method
    that learns goes on where it stopped. Each cell is computed in a process of its own.

    >>> srquant.bench.run(["edsr_x4.pth"], ["minmax", "plq:quantile=0.995"], bits=[4, "8/6"], data=["Set5"],
    ...     calibration_hr="photos/", output="runs/")
    >>> srquant.bench.run(["edsr_x4.pth"], suite="oaptq-table4", data=["data/"], calibration_hr="DIV2K/",
    ...     output="runs/")

    Args:
        networks: Float models, or files of them.
        methods: Names, with fields after a colon, or configurations; or configurations by their titles.
        suite: Instead of methods, a paper's table, in :data:`srquant.bench.SUITES`: it says methods, bits, edges, data
            and patches itself.
        data: Folders of pairs, parents of several, or folders of HR images; of several scales if networks have several.
        output: The folder of runs: records, models, states.
        bits: Of activations and weights, ``4``, or ``8/6`` for weights/activations; what methods say themselves if
            empty.
        edges: ``8bit``, ``float`` or ``none``, for all methods.
        settings: Further ``field=value`` for every method that has the field.
        calibration: LR patches, or a folder of LR images.
        calibration_hr: Instead, a folder of photographs; methods that learn with ground truth learn from them.
        patches: How many patches of a folder; 100, or what the suite says, if None.
        patch_size: Their height and width; see :meth:`Calibration.from_low_resolution`.
        seed: Decides which patches.
        scores: Further ones: ``lpips``, ``dists``; see :mod:`srquant.images.perceptual`.
        tile: Score in tiles of this size; None enlarges each image at once.
        overlap: Of tiles; see :func:`srquant.evaluate`.
        workers: Cells computed at the same time.
        threads: Of each cell; all cores shared among the workers if None. Other numbers may change the last bits of
            scores, other numbers of workers never do.
        ray: Address of a Ray cluster to compute on (``auto``, ``host:6379``), or ``local`` for one of ``workers``
            processes that is started here; cells ask it for CPUs, a GPU and memory.
        device: Where to compute.
        keep_models: Whether quantized models are kept, in ``models/``.
        sensitivities: Whether each layer is quantized alone and scored on the first data set.

    Returns:
        The records of this grid, in the order of tables.

    Raises:
        SrquantError: What was given cannot be used; nothing was computed then. What goes wrong in a cell is its
            record's ``reason``.

    Warns:
        SuiteWarning: Something of the suite is not at hand; the message says how it is brought.
    """
    wishes = Wishes(device, shared_threads(workers, threads), keep_models, sensitivities)
    further = tuple(further_scores(scores))  # opened here, so that what is missing is said before anything is computed
    sources = Sources(data, PatchSource(calibration, calibration_hr, patches, patch_size, seed), further)
    if suite is None:
        titled = apply(list(configured(methods, bits, edges)), settings)
        requests = grid_requests(opened(networks), titled, sources, tile, overlap)
    else:
        refuse_beside_suite(suite, methods=methods, bits=bits, edges=edges, tile=tile, overlap=overlap)
        requests = suite_requests(suite_named(suite), opened(networks), sources, settings)
    if ray is None:
        return run_grid(plan(requests, pick_device(device).type), Path(output), wishes, workers)
    with RayCluster([subject for subject, _ in requests], wishes, ray, workers) as team:
        return run_grid(plan(requests, team.device), Path(output), wishes, workers, team)


def shared_threads(workers: int, threads: int | None) -> int:
    """Threads of each cell: those asked for, or a fair part of those that PyTorch may use here.

    Raises:
        ArgumentError: A number breaks its rule.
    """
    check("workers", workers, _Workers)
    check("threads", threads, Threads | None)
    return threads or max(1, torch.get_num_threads() // workers)


def run_grid(grid: Grid, folder: Path, wishes: Wishes, count: int = 1, team: Workers | None = None) -> Runs:
    """Compute the cells of a grid that a folder lacks.

    Args:
        grid: The cells.
        folder: The folder of runs.
        wishes: How cells are computed, and what is wanted of each.
        count: How many at the same time.
        team: Who computes; processes of this machine if None.

    Raises:
        OutputError: The folder cannot be written.
    """
    driver = _Driver(grid, folder, wishes)
    missing = [cell for cell in grid.cells if not driver.has(cell)]
    if missing:
        for path in (folder / RECORDS, record_path(folder, failed(missing[0], ""))):
            require_writable(path.with_suffix(".json"))
        team = team or LocalProcesses(grid.subjects, wishes, count)
        with bar("Cells", len(grid.cells), len(grid.cells) - len(missing)) as shown:
            driver.shown = shown
            driver.finish(team, [Task(cell) for cell in missing if cell.method is None])
            driver.finish(team, list(driver.tasks([cell for cell in missing if cell.method is not None])))
    asked = [replace(driver.records[cell.key], title=cell.title, order=cell.order) for cell in grid.cells]
    return Runs(folder, tuple(in_order(asked)))


class _Driver:
    """The one process that writes records.

    Args:
        grid: Whose cells are computed.
        folder: The folder of runs.
        wishes: What is wanted of each cell.
    """

    def __init__(self, grid: Grid, folder: Path, wishes: Wishes) -> None:
        self.shown: Bar | None = None
        self._grid, self._folder, self._wishes = grid, folder, wishes
        self._commit = commit()  # now: the sources may change while cells are computed
        self.records = {record.key: record for record in scan(folder)[0]} if folder.exists() else {}

    def has(self, cell: Cell) -> bool:
        """Whether nothing of a cell is left to be computed."""
        record = self.records.get(cell.key)
        if record is None or not record.done:
            return False
        if cell.method is None:
            return True
        kept = not self._wishes.keep_models or Runs(self._folder, ()).model_path(record) is not None
        return kept and (not self._wishes.sensitivities or bool(record.sensitivities))

    def tasks(self, cells: Sequence[Cell]) -> Iterator[Task]:
        """What is to be computed of cells whose float networks have been scored; the others fail for their reason."""
        for cell in cells:
            before = self._float(cell)
            if before is None or not before.done:
                reason = before.reason if before else "it was not scored"
                self._keep(Task(cell), Outcome(failed(cell, f"the float network could not be scored: {reason}")))
            else:
                yield Task(cell, before.data, self._state(cell))

    def finish(self, team: Workers, tasks: Sequence[Task]) -> None:
        """Have cells computed, and write each when it comes back."""
        for task, outcome in team.compute(tasks):
            self._keep(task, outcome)

    def _float(self, cell: Cell) -> CellRecord | None:
        wanted = {name: cell.identity[name] for name in ("srquant", "torch", "device", "network", "data")}
        return next((each for each in self.records.values() if each.identity == wanted), None)

    def _state(self, cell: Cell) -> Path:
        return state_of(self._folder / STATES / cell.key[:16])

    def _keep(self, task: Task, outcome: Outcome) -> None:
        cell, record = task.cell, replace(outcome.record, commit=self._commit)
        if outcome.model is not None:
            record = replace(record, model=f"{MODELS}/{record.file_name}.safetensors")
            path = self._folder / record.model
            require_writable(path)
            with replacing(path) as temporary:
                temporary.write_bytes(outcome.model)
        write_record(self._folder, record)
        self.records[record.key] = record
        if record.done and cell.method is not None:
            remove_state(self._state(cell), cell.method, self._grid.subjects[cell.subject].model)
            with suppress(OSError):  # others are learning, or none ever did
                (self._folder / STATES).rmdir()
        if self.shown is not None:
            self.shown.note(told(cell, record))
            self.shown.advance()


def told(cell: Cell, record: CellRecord) -> str:
    """A line about a cell that came back."""
    if not record.done:
        return f"{cell.name}: failed: {record.reason}"
    first = record.data[0]
    lost = "" if cell.method is None else f" ({first.mean() - first.float_mean():+z.2f})"
    time = "" if cell.method is None else f", {record.wall_seconds:.0f} s"
    return f"{cell.name}: {first.mean():.2f} dB{lost} on {first.name}{time}"
