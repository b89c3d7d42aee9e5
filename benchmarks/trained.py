"""What methods gain that train with ground truth, over their own start.

``python -m benchmarks.trained PHOTOGRAPHS --method pams --record FILE`` measures,
``python -m benchmarks.trained --table FILE`` prints the table of a record again.

Each method quantizes the embedded network at four bits, as it is by default but for a small budget: 2,000 steps of 4
crops of LR 32×32, where the papers take tens of thousands of 8 or 16 crops of 48×48. Its start is what one step leaves
at a rate of next to nothing: the float weights, and the quantizers as the method sets them before it learns. Scores are
PSNR on Y of 12 photographs that were held out of the training; processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.timing import markdown
from srquant import Model, Photographs, configure, load, quantize
from srquant.learning.trainer import validation_psnr
from srquant.networks.samples import EDSR_X4

_HELD = 12
"""Photographs that nothing is learned from."""


@dataclass(frozen=True)
class Row:
    """What a method made of the embedded network: PSNR on Y in dB."""

    method: str
    bits: int
    steps: int
    batch: int
    patch: int
    float_network: float
    start: float
    end: float
    seconds: float


def row(method: str, options: argparse.Namespace) -> Row:
    network = load(EDSR_X4)
    pairs = Photographs.of(options.photographs, network.scale, options.patch)
    training, held = pairs.split(_HELD)
    small = [f"training.batch={options.batch}", f"training.patch={options.patch}", *options.set]

    def score(model: Model) -> float:
        return validation_psnr(model.network, held)

    def learned(*settings: str) -> Model:
        configuration = configure(method, options.bits, settings=[*small, *settings])
        return quantize(network, training, configuration, device="cpu")

    start = score(learned("training.steps=1", "training.rate=1e-30"))
    began = time.process_time()
    end = learned(f"training.steps={options.steps}")
    seconds = time.process_time() - began
    return Row(
        method, options.bits, options.steps, options.batch, options.patch, score(network), start, score(end), seconds
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--set", action="append", default=[], help="Further fields of the methods.")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        print(table(read(options.table)))
        return
    if not options.photographs or not options.method:
        parser.error("give photographs and a method, or --table")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = read(options.record) if options.record and options.record.exists() else []
    for method in options.method:
        found.append(row(method, options))
        print(found[-1], flush=True)
        if options.record:
            options.record.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")
    print(table(found))


def read(path: Path) -> list[Row]:
    """The rows of a record."""
    return [Row(**each) for each in json.loads(path.read_text())]


def table(found: list[Row]) -> str:
    """All rows as Markdown."""
    titles = ("method", "bits", "steps", "float (dB)", "start (dB)", "end (dB)", "gain (dB)", "seconds")
    return markdown(titles, [line(each) for each in found])


def line(each: Row) -> tuple[str, ...]:
    """A row of the table."""
    scores = (each.float_network, each.start, each.end, each.end - each.start)
    steps = f"{each.steps:,} of {each.batch}×{each.patch}×{each.patch}"
    return (each.method, str(each.bits), steps, *(f"{score:.2f}" for score in scores), f"{each.seconds:.0f}")


if __name__ == "__main__":
    main()
