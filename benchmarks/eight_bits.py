"""What eight bits cost.

``python -m benchmarks.eight_bits PHOTOGRAPHS DATA NETWORK ... --record FILE`` measures,
``python -m benchmarks.eight_bits --table FILE`` prints the table of a record again.

Each network is quantized to W8A8 by our recipe and by MinMax (weights per channel, activations per tensor), calibrated
on photographs. The Markdown table: the loss on DATA/Set5 (PSNR on Y, border
of the scale cut) and on drawn pages that no calibration saw, mean and worst picture; the agreement with the float
network's pictures in dB, which is what counts where a network was trained with a discriminator; the part of the
multiply-adds that is quantized, and processor seconds.
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
from srquant import Calibration, configure, load, quantize

METHODS = {
    "srquant": configure("srquant", 8),
    "MinMax": configure("minmax", 8, settings=["weights.granularity=per_channel"]),
}


@dataclass(frozen=True)
class Row:
    """What a method made of a network."""

    network: str
    method: str
    losses: Losses
    coverage: float
    seconds: float


def rows(path: Path, options: argparse.Namespace) -> list[Row]:
    network = load(path)
    judge = Judge(network, options.data)
    patches = Calibration.from_photographs(options.photographs, network.scale, count=options.patches)
    found: list[Row] = []
    for name, method in METHODS.items():
        start = time.process_time()
        quantized = quantize(network, patches, method, device="cpu")
        seconds = time.process_time() - start
        assert quantized.record is not None
        found.append(Row(path.name, name, judge.losses(quantized), quantized.record.coverage, seconds))
        print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("networks", type=Path, nargs="*")
    parser.add_argument("--patches", type=int, default=32)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        print(table(read(options.table)))
        return
    if not options.networks:
        parser.error("give photographs, data and networks, or --table")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = [row for path in options.networks for row in rows(path, options)]
    if options.record:
        options.record.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")
    print(table(found))


def read(record: Path) -> list[Row]:
    """The rows of a record."""
    return [Row(**{**row, "losses": Losses(**row["losses"])}) for row in json.loads(record.read_text())]


def table(found: list[Row]) -> str:
    """All rows as Markdown."""
    return markdown(("network", "method", *TITLES, "quantized", "seconds"), [line(row) for row in found])


def line(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    return (row.network, row.method, *row.losses.cells(), f"{row.coverage:.1%}", f"{row.seconds:.0f}")


if __name__ == "__main__":
    main()
