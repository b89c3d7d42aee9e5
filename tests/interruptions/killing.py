"""Commands in processes of their own that are killed at a chosen moment, as the system's lack of memory would.

Starting Python and importing PyTorch takes seconds. One server process imports everything once and is forked for every
run (:mod:`multiprocessing`'s ``forkserver``); it runs nothing itself, so no threads are lost by forking.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import matplotlib.figure
import tifffile
import torch
import torch._dynamo
from PIL import Image

import srquant.analysis.curves
import srquant.bench.running
import srquant.learning.state
import srquant.learning.trainer
from srquant.cli import main as cli
from srquant.quantizers.numerics import kernels

_LOADED = (matplotlib.figure, imagecodecs, tifffile, torch._dynamo, kernels, srquant.bench.running)
"""Imported here so that no run has to do it."""
_SAVE_EVERY = 3
"""Steps between two savings; a minute would be longer than the whole run of a small network."""
_PATIENCE = 120
"""Seconds after which a run is taken for hanging."""

torch.set_num_threads(1)
Image.init()


@dataclass(frozen=True)
class Moment:
    """When a run dies: after so many seconds, or at its so-many-th renaming of a finished file, before or after it."""

    seconds: float | None = None
    renaming: int | None = None
    after: bool = False

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.seconds:.2f} s"
        return f"{'after' if self.after else 'before'} renaming {self.renaming}"


@dataclass(frozen=True)
class Run:
    """How a run ended: its exit code (−9 if it was killed), seconds, and how many finished files it renamed."""

    code: int
    seconds: float
    renamings: int


def run(words: Sequence[object], log: Path, moment: Moment | None = None) -> Run:
    """Run a command, or kill it at a moment. What it prints, and its renamings, go into files beside ``log``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    counted = log.with_suffix(".renamings")
    counted.write_bytes(b"")
    process = context.Process(target=_run, args=(list(map(str, words)), log, counted, moment))
    process.start()
    while not log.exists():  # imported and about to start
        assert process.is_alive(), f"ended with {process.exitcode} before it started"
        time.sleep(0.005)
    started = time.perf_counter()
    if moment is not None and moment.seconds is not None:
        process.join(moment.seconds)
        process.kill()
    process.join(_PATIENCE)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"hangs: {log.read_text()}")
    seconds = time.perf_counter() - started
    log.unlink()
    assert process.exitcode is not None
    return Run(process.exitcode, seconds, len(counted.read_bytes()))


def _run(words: list[str], log: Path, counted: Path, moment: Moment | None) -> None:
    _count_renamings(counted, moment)
    # A clock that every look at moves on by a second: a step looks once.
    srquant.learning.state.time = SimpleNamespace(monotonic=itertools.count().__next__)
    srquant.learning.state.SAVE_EVERY = _SAVE_EVERY
    # Curves hold seconds, which no two runs have in common.
    srquant.learning.trainer.time = SimpleNamespace(monotonic=lambda: 0.0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["srquant", *words]
    cli.main()


def _count_renamings(counted: Path, moment: Moment | None) -> None:
    """Write a byte for every renaming, and die at the chosen one."""
    real = Path.replace

    def replace(source: Path, target: Path) -> Path:
        with counted.open("ab") as file:
            file.write(b".")
        dies = moment is not None and moment.renaming == counted.stat().st_size
        if dies and not moment.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(source, target)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Path.replace = replace
