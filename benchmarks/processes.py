"""Whole processes, from a float network to a quantized one: python -m benchmarks.processes NETWORK LOW-RESOLUTION.

Prints a Markdown table, row by row: seconds of each method with the papers' settings, and how many float steps
(forward, L1, backward to all weights, on a batch of two patches) take as long. A few of them are measured before and
after each process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.timing import markdown
from srquant import Calibration, Model, configure, load, quantize
from srquant.model.observing import to_network
from srquant.model.swapping import copy_network
from srquant.support.memory import keep_freed_memory

METHODS = ("minmax", "percentile", "mse", "plq", "oaptq", "srquant")
_LEARNING = ("oaptq", "srquant")


def float_steps(model: Model, patches: Calibration, count: int) -> list[float]:
    """Seconds of each step."""
    network = copy_network(model.network).requires_grad_(True)
    images = to_network(network, patches.batch([0, 1]))
    seconds: list[float] = []
    for _ in range(count + 1):
        start = time.perf_counter()
        network(images).abs().mean().backward()
        network.zero_grad()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", type=Path)
    parser.add_argument("images", type=Path, help="folder of calibration images, taken as they are")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--patches", type=int, default=100)
    parser.add_argument("--patch-size", type=int, default=96)
    parser.add_argument("--precision", default="bf16", help="of convolutions while learning: float32 or bf16")
    parser.add_argument("--steps", type=int, default=7, help="float steps before and after each process")
    options = parser.parse_args()
    keep_freed_memory()
    model = load(options.network)
    patches = Calibration.from_low_resolution(options.images, count=options.patches, size=options.patch_size)
    print(
        f"{options.network.name}, {len(patches)} patches of {patches.size}×{patches.size}, {options.bits} bits, "
        f"{options.precision}, {torch.get_num_threads()} threads\n",
        flush=True,
    )
    quantize(model, patches.at_most(2, 32), configure("minmax", options.bits), device="cpu")  # what is made once
    print(markdown(("method", "seconds", "float steps", "a float step (s)"), []), flush=True)
    for name in options.methods:
        settings = [f"finetuning.precision={options.precision}"] if name in _LEARNING else []
        before = float_steps(model, patches, options.steps)
        start = time.perf_counter()
        quantize(model, patches, configure(name, options.bits, settings=settings), device="cpu")
        seconds = time.perf_counter() - start
        step = statistics.median(before + float_steps(model, patches, options.steps))
        print(f"| {name} | {seconds:.1f} | {seconds / step:.0f} | {step:.3f} |", flush=True)


if __name__ == "__main__":
    main()
