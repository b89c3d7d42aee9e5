"""Simulated W4A4 inference and calibration against float: python benchmarks/simulation.py NETWORK PHOTOGRAPHS.

Prints two Markdown tables. Times alternate in one process; peak memory is of a fresh process each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.timing import alternate, markdown, median_ratio, peak_memory
from srquant import Calibration, Model, configure, load, quantize
from srquant.model.observing import to_network
from srquant.support.memory import keep_freed_memory

METHODS = ("minmax", "percentile", "mse", "plq")
OPEN = """
import sys, torch
from srquant import Calibration, configure, load, quantize
from srquant.support.memory import keep_freed_memory
keep_freed_memory()
"""
CALIBRATE = (
    OPEN
    + """
model = load(sys.argv[1])
patches = Calibration.from_photographs(sys.argv[2], model.scale, count=32)
"""
)


def inference(network: Path, photographs: Path, rounds: int) -> str:
    model = load(network)
    few = Calibration.from_photographs(photographs, model.scale, count=8)
    models = {"float": model}
    models |= {name: quantize(model, few, configure(name), device="cpu") for name in ("minmax", "plq")}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {name: m.save(Path(folder) / f"{name}.safetensors") for name, m in models.items()}
        for height, width in ((90, 160), (192, 192), (180, 320)):
            images = torch.rand(1, 3, height, width)
            seconds = alternate({name: partial(m, images) for name, m in models.items()}, rounds)
            for name in models:
                peak = peak_memory(OPEN + f"load(sys.argv[1])(torch.rand(1, 3, {height}, {width}))", str(files[name]))
                median, ratio = statistics.median(seconds[name]), median_ratio(seconds, name, "float")
                rows.append((f"{width}×{height}", name, f"{median:.3f}", f"{ratio:.2f}", f"{peak:.0f}"))
    return markdown(("LR size", "model (W4A4)", "seconds", "× float", "peak MiB"), rows)


def float_passes(model: Model, patches: Calibration) -> None:
    with torch.inference_mode():
        for batch in patches.batches(16):
            model.network(to_network(model.network, batch))


def calibration(network: Path, photographs: Path, rounds: int) -> str:
    model = load(network)
    patches = Calibration.from_photographs(photographs, model.scale, count=32)
    list(patches.batches(16))  # read and shrink the photographs once
    tasks = {"float passes": lambda: float_passes(model, patches)}
    tasks |= {name: lambda name=name: quantize(model, patches, configure(name), device="cpu") for name in METHODS}
    seconds = alternate(tasks, rounds)
    rows = []
    for name in tasks:
        body = (
            "with torch.inference_mode():\n    for b in patches.batches(16): model(b)"
            if name == "float passes"
            else f"quantize(model, patches, configure({name!r}))"
        )
        peak = peak_memory(CALIBRATE + body, str(network), str(photographs))
        rows.append(
            (
                name,
                f"{statistics.median(seconds[name]):.2f}",
                f"{median_ratio(seconds, name, 'float passes'):.2f}",
                f"{peak:.0f}",
            )
        )
    return markdown(("32 patches, batches of 16", "seconds", "× float passes", "peak MiB"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    keep_freed_memory()
    print(f"{options.network.name}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(inference(options.network, options.photographs, options.rounds), "\n")
    print(calibration(options.network, options.photographs, options.rounds))


if __name__ == "__main__":
    main()
