"""A step of OAPTQ's finetuning against a float step: python -m benchmarks.finetuning NETWORK PHOTOGRAPHS.

Prints a Markdown table: one row for each stage of algorithm 1. Every step is followed at once by a float step (forward,
L1, backward to all weights) on a batch of the same shape; the ratio is the median over the pairs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.timing import markdown, peak_memory
from srquant import Calibration, Model, load
from srquant.learning import loop
from srquant.learning.settings import LearningSettings
from srquant.methods import OAPTQ
from srquant.model.observing import to_network
from srquant.model.swapping import copy_network
from srquant.support.memory import keep_freed_memory

PREPARE = """
import sys, torch
from srquant import Calibration, load
from srquant.support.memory import keep_freed_memory
from srquant.learning.settings import (LearningSettings)
from srquant.methods import OAPTQ
from srquant.model.observing import to_network
keep_freed_memory()
model = load(sys.argv[1])
patches = Calibration.from_photographs(sys.argv[2], model.scale, count=2)
"""
FLOAT = """
network = model.network.requires_grad_(True)
for _ in range(3):
    network(to_network(network, patches.batch([0, 1]))).abs().mean().backward()
"""
STUDENT = """
OAPTQ(finetuning=LearningSettings(epochs=3)).quantize(model, patches)
"""


class Enough(Exception):  # noqa: N818
    """All pairs are measured."""


def steps(model: Model, patches: Calibration, pairs: int, precision: str) -> dict[str, list[tuple[float, float]]]:
    network = copy_network(model.network).requires_grad_(True)
    learn = loop.Loop.learn
    seconds: dict[str, list[tuple[float, float]]] = {}

    def float_step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = network(to_network(network, patches.batch([0, 1])))
        output.float().abs().mean().backward()
        network.zero_grad()

    def timed(run: loop.Loop) -> dict[str, float]:
        stage = run.stages[run.step // run.draws.batches % len(run.stages)].name
        if all(len(seconds.get(s.name, ())) > pairs for s in run.stages):
            raise Enough
        start = time.perf_counter()
        losses = learn(run)
        middle = time.perf_counter()
        float_step()
        seconds.setdefault(stage, []).append((middle - start, time.perf_counter() - middle))
        return losses

    loop.Loop.learn = timed
    try:
        OAPTQ(finetuning=LearningSettings(epochs=1000, precision=precision)).quantize(model, patches)
    except Enough:
        pass
    finally:
        loop.Loop.learn = learn
    return {name: rows[1:] for name, rows in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    keep_freed_memory()
    model = load(options.network)
    patches = Calibration.from_photographs(options.photographs, model.scale, count=6)
    print(f"{options.network.name}, batch 2, {patches.size}x{patches.size}, {torch.get_num_threads()} threads\n")
    rows = []
    for precision in ("float32", "bf16"):
        for stage, pairs in steps(model, patches, options.pairs, precision).items():
            own, plain = (statistics.median(times) for times in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            rows.append((precision, stage, f"{own:.3f}", f"{plain:.3f}", f"{ratio:.2f}"))
    print(markdown(("precision", "learned", "step (s)", "float step (s)", "ratio"), rows), "\n")
    names = str(options.network), str(options.photographs)
    tasks = {"float step": FLOAT, "OAPTQ": STUDENT}
    peaks = [(title, f"{peak_memory(PREPARE + code, *names):.0f}") for title, code in tasks.items()]
    print(markdown(("batch 2", "peak MiB"), peaks))


if __name__ == "__main__":
    main()
