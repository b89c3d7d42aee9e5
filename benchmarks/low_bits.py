"""What two, three and four bits cost, by effort.

``python -m benchmarks.low_bits PHOTOGRAPHS DATA NETWORK ... --bits 4 --record FILE`` measures,
``python -m benchmarks.low_bits --table FILE`` prints the table of a record again.

Each network is quantized by our recipe as it is by default, calibrated on patches of photographs. The Markdown table:
weights and activations have so many bits, the first, upsampler and last convolutions eight, and the few layers that
cost most eight too (8 % of the multiply-adds at most); the mean bits of activations, weighed by multiply-adds, say what
that comes to. Losses as in :mod:`benchmarks.losses`; processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.losses import TITLES, Judge, Losses
from benchmarks.timing import markdown
from srquant import Calibration, Model, configure, load, quantize
from srquant.model.preparing import prepare


@dataclass(frozen=True)
class Row:
    """What our recipe made of a network."""

    network: str
    bits: int
    effort: str
    mean_bits: float
    losses: Losses
    seconds: float


def mean_bits(model: Model, network: Model) -> float:
    """Bits of activations, the mean over quantized multiply-adds."""
    work = {each.name: each.multiply_adds for each in prepare(network.network).survey.multiplications}
    layers = [(work[layer.name], layer.left.bits) for layer in model.layers() if layer.name in work]
    return sum(part * bits for part, bits in layers) / sum(part for part, _ in layers)


def rows(path: Path, options: argparse.Namespace) -> list[Row]:
    network = load(path)
    judge = Judge(network, options.data)
    patches = Calibration.from_photographs(options.photographs, network.scale, count=options.patches)
    found: list[Row] = []
    for bits in options.bits:
        for effort in options.effort:
            start = time.process_time()
            quantized = quantize(network, patches, configure("srquant", bits, effort=effort), device="cpu")
            seconds = time.process_time() - start
            mean = mean_bits(quantized, network)
            found.append(Row(path.name, bits, effort, mean, judge.losses(quantized), seconds))
            print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("networks", type=Path, nargs="*")
    parser.add_argument("--bits", type=int, action="append")
    parser.add_argument("--effort", action="append")
    parser.add_argument("--patches", type=int, default=100)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    options.bits, options.effort = options.bits or [4], options.effort or ["standard"]
    if options.table:
        print(table(read(options.table)))
        return
    if not options.networks:
        parser.error("give photographs, data and networks, or --table")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = read(options.record) if options.record and options.record.exists() else []
    for path in options.networks:
        found += rows(path, options)
        if options.record:
            options.record.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")
    print(table(found))


def read(path: Path) -> list[Row]:
    """The rows of a record."""
    return [Row(**{**row, "losses": Losses(**row["losses"])}) for row in json.loads(path.read_text())]


def table(found: list[Row]) -> str:
    """All rows as Markdown."""
    titles = ("network", "bits", "effort", "mean bits", *TITLES, "seconds")
    return markdown(titles, [line(row) for row in found])


def line(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    mean = f"{row.mean_bits:.2f}"
    return (row.network, str(row.bits), row.effort, mean, *row.losses.cells(), f"{row.seconds:.0f}")


if __name__ == "__main__":
    main()
