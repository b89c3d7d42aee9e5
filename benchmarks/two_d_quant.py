"""DOBI against float passes and a DQC step against a float step: python -m benchmarks.two_d_quant PHOTOGRAPHS.

Prints two Markdown tables. The network is SwinIR-light ×4, with random weights unless a file is given: times do not
depend on them. DOBI and float passes over the same patches alternate; every DQC step is followed at once by a float
step (forward, L1, backward to all weights) on a batch of the same shape, and its ratio is the median over the pairs.
The float network's outputs are kept (``cache``), so one row is of steps that compute them and one of steps that do not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.timing import alternate, markdown, median_ratio
from srquant import Calibration, Model, load
from srquant.learning import loop
from srquant.learning.settings import LearningSettings
from srquant.methods import DOBI, TwoDQuant
from srquant.model.observing import to_network
from srquant.model.swapping import copy_network
from srquant.networks.swinir import SwinIR, SwinIRConfig
from srquant.support.memory import keep_freed_memory


class Enough(Exception):  # noqa: N818
    """All pairs are measured."""


def float_passes(model: Model, patches: Calibration, batch: int) -> None:
    with torch.inference_mode():
        for images in patches.batches(batch):
            model.network(to_network(model.network, images))


def search(model: Model, patches: Calibration, rounds: int) -> str:
    batch = DOBI().observation.batch
    tasks = {"float passes": lambda: float_passes(model, patches, batch)}
    tasks |= {f"DOBI, {bits} bits": lambda bits=bits: DOBI(bits=bits).quantize(model, patches) for bits in (2, 4, 8)}
    seconds = alternate(tasks, rounds)
    rows = [
        (name, f"{statistics.median(times):.2f}", f"{median_ratio(seconds, name, 'float passes'):.2f}")
        for name, times in seconds.items()
    ]
    return markdown((f"{len(patches)} patches of {patches.size}×{patches.size}", "seconds", "× float passes"), rows)


def steps(model: Model, patches: Calibration, batch: int, pairs: int, cache: int) -> list[tuple[float, float]]:
    network = copy_network(model.network).requires_grad_(True)
    images = patches.batch([index % len(patches) for index in range(batch)])
    learn = loop.Loop.learn
    seconds: list[tuple[float, float]] = []

    def timed(run: loop.Loop) -> dict[str, float]:
        if len(seconds) > pairs:
            raise Enough
        start = time.perf_counter()
        losses = learn(run)
        middle = time.perf_counter()
        network(to_network(network, images)).abs().mean().backward()
        network.zero_grad()
        seconds.append((middle - start, time.perf_counter() - middle))
        return losses

    settings = LearningSettings(steps=1000, batch=batch, rate=1e-2, schedule="cosine", precision="float32", cache=cache)
    loop.Loop.learn = timed
    try:
        TwoDQuant(patches=1, finetuning=settings).quantize(model, patches)
    except Enough:
        pass
    finally:
        loop.Loop.learn = learn
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--network", type=Path, help="Float weights; a SwinIR-light of random weights if not given.")
    parser.add_argument("--patches", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2, help="Patches of a DQC step.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--tiny", action="store_true", help="Two small blocks, to try the script.")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    config = SwinIRConfig(channels=12, depths=(2,), heads=(2,)) if options.tiny else SwinIRConfig()
    made = Model(SwinIR(config).eval().requires_grad_(False), "SwinIR, random weights")
    model = made if options.network is None else load(options.network)
    patches = Calibration.from_photographs(
        options.photographs, model.scale, count=options.patches, size=options.size
    ).at_most(options.patches, options.size)
    list(patches.batches(16))  # read and shrink the photographs once
    print(f"{model.source}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(search(model, patches, options.rounds), "\n")
    few = patches.at_most(options.batch, options.size)
    rows = []
    for title, cache in (("teacher computed", 0), ("teacher kept", 1024)):
        pairs = steps(model, few, options.batch, options.pairs, cache)
        own, plain = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        rows.append((title, f"{own:.2f}", f"{plain:.2f}", f"{ratio:.2f}"))
    print(markdown((f"DQC, batch {options.batch}", "step (s)", "float step (s)", "ratio"), rows))


if __name__ == "__main__":
    main()
