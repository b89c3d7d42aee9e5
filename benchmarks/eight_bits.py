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

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.timing import markdown
from srquant import Calibration, Model, configure, load, quantize
from srquant.images import find_pairs
from srquant.images.bicubic import shrink_8bit
from srquant.images.drawings import drawing
from srquant.images.evaluation import enlarge, score
from srquant.support.tensors import planes

METHODS = {
    "srquant": configure("srquant", 8),
    "MinMax": configure("minmax", 8, settings=["weights.granularity=per_channel"]),
}
Pages = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
_FIRST_PAGE, _PAGES, _PAGE = 9000, 8, 256


@dataclass(frozen=True)
class Row:
    """What a method made of a network. Losses and agreements in dB: mean and worst picture."""

    network: str
    method: str
    photographs: tuple[float, float]
    drawings: tuple[float, float]
    agreement: tuple[float, float]
    """Of photographs, and of drawings: means."""
    worst_agreement: float
    coverage: float
    seconds: float


def pages(scale: int) -> Pages:
    """Drawn pages and what is left of them as LR images."""
    high = [planes(drawing(_FIRST_PAGE + number, _PAGE)).contiguous() for number in range(_PAGES)]
    return [(shrink_8bit(page, scale).permute(1, 2, 0).numpy(), page.permute(1, 2, 0).numpy()) for page in high]


def agreement(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    error = float(((one.astype(np.float64) - other) ** 2).mean())
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def rows(path: Path, options: argparse.Namespace) -> list[Row]:
    network = load(path)
    scale = network.scale
    photographs = [pair.read() for pair in find_pairs(options.data / f"Set5/x{scale}", scale)[0]]
    sets: dict[str, Pages] = {"photographs": photographs, "drawings": pages(scale)}

    def pictures(model: Model) -> dict[str, list[NDArray[np.uint8]]]:
        return {name: [enlarge(model, low, scale) for low, _ in pairs] for name, pairs in sets.items()}

    float_pictures = pictures(network)
    patches = Calibration.from_photographs(options.photographs, scale, count=options.patches)
    found: list[Row] = []
    for name, method in METHODS.items():
        start = time.process_time()
        quantized = quantize(network, patches, method, device="cpu")
        seconds = time.process_time() - start
        made = pictures(quantized)
        losses = {
            kind: [
                score(before, high, scale).psnr - score(after, high, scale).psnr
                for before, after, (_, high) in zip(float_pictures[kind], made[kind], pairs, strict=True)
            ]
            for kind, pairs in sets.items()
        }
        alike = {
            kind: [agreement(*both) for both in zip(float_pictures[kind], made[kind], strict=True)] for kind in sets
        }
        mean_and_worst = {kind: (float(np.mean(loss)), max(loss)) for kind, loss in losses.items()}
        assert quantized.record is not None
        found.append(
            Row(
                path.name,
                name,
                mean_and_worst["photographs"],
                mean_and_worst["drawings"],
                (float(np.mean(alike["photographs"])), float(np.mean(alike["drawings"]))),
                min(map(min, alike.values())),
                quantized.record.coverage,
                seconds,
            )
        )
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
        print(table([Row(**row) for row in json.loads(options.table.read_text())]))
        return
    if not options.networks:
        parser.error("give photographs, data and networks, or --table")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = [row for path in options.networks for row in rows(path, options)]
    if options.record:
        options.record.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")
    print(table(found))


def table(found: list[Row]) -> str:
    """All rows as Markdown."""
    titles = ("network", "method", "loss on Set5", "on drawn pages", "agreement", "worst", "quantized", "seconds")
    return markdown(titles, [line(row) for row in found])


def line(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    pairs = (f"{mean:.3f} ({worst:.3f})" for mean, worst in (row.photographs, row.drawings))
    alike = f"{row.agreement[0]:.1f}; {row.agreement[1]:.1f}"
    return (
        row.network,
        row.method,
        *pairs,
        alike,
        f"{row.worst_agreement:.1f}",
        f"{row.coverage:.1%}",
        f"{row.seconds:.0f}",
    )


if __name__ == "__main__":
    main()
