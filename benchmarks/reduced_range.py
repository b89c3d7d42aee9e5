"""What weights of reduced range cost: python -m benchmarks.reduced_range PHOTOGRAPHS PAIRS NETWORK ...

Prints a Markdown table: each network quantized to W8A8 and written in full and in reduced range, and, as the other way
to weights that never saturate, quantized with weights of 6 bits and float edges. PSNR is that of the pairs, computed in
an engine whose products do not saturate on this processor; agreement is that with the 8-bit model on the test patch.
Seconds are those of one picture on one thread, the files of a network in turns; engines whose products saturate here
take part in them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from functools import partial
from pathlib import Path

import torch

from benchmarks.timing import alternate, markdown, median_ratio
from srquant import Calibration, Model, configure, evaluate, load, open_exported, quantize
from srquant.engines import TARGETS, saturates
from srquant.engines.comparing import psnr_on_patch
from srquant.engines.onnx import write_onnx
from srquant.engines.operands import ExportSettings
from srquant.support.errors import SaturationWarning
from srquant.support.memory import keep_freed_memory

W8A8 = configure("mse", 8, settings=["grid=int8", "weights.granularity=per_channel"])
W6A8 = configure("mse", 8, weight_bits=6, edges="float", settings=["grid=int8", "weights.granularity=per_channel"])
FORMS = FULL, REDUCED, SIX = ("W8A8, full", "W8A8, reduced", "W6A8, edges float")


def write_files(network: Model, photographs: Path, folder: Path) -> Model:
    """The three files; gives the 8-bit model."""
    patches = Calibration.from_photographs(photographs, network.scale, count=32)
    eight, six = (quantize(network, patches, method, device="cpu") for method in (W8A8, W6A8))
    write_onnx(eight, folder / f"{FULL}.onnx", ExportSettings(range="full"))
    write_onnx(eight, folder / f"{REDUCED}.onnx", ExportSettings(range="reduced"))
    write_onnx(six, folder / f"{SIX}.onnx", ExportSettings())
    return eight


def rows(path: Path, exact: str, options: argparse.Namespace) -> list[tuple[str, ...]]:
    network = load(path)
    width, height = map(int, options.size.split("x"))
    images = torch.rand(1, 3, height, width)
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        eight = write_files(network, options.photographs, folder)
        seconds = {engine: {} for engine in TARGETS}
        for engine in TARGETS:
            runs = {form: open_exported(folder / f"{form}.onnx", engine, 1) for form in FORMS}
            seconds[engine] = alternate({form: partial(run, images) for form, run in runs.items()}, options.rounds)
        for form in FORMS:
            run = open_exported(folder / f"{form}.onnx", exact)
            (scores,) = evaluate(run, options.pairs)
            times = (statistics.median(seconds[engine][form]) for engine in TARGETS)
            ratios = (median_ratio(seconds[engine], form, FULL) for engine in TARGETS)
            timed = (f"{time:.3f} ({ratio:.2f})" for time, ratio in zip(times, ratios, strict=True))
            lines.append((path.stem, form, f"{scores.psnr:.3f}", f"{psnr_on_patch(eight, run):.1f}", *timed))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path, help="for calibration")
    parser.add_argument("pairs", type=Path, help="a benchmark such as Set5")
    parser.add_argument("networks", type=Path, nargs="+")
    parser.add_argument("--size", default="160x90", help="width x height of the picture that is timed")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore", SaturationWarning)
    exact = [engine for engine in reversed(TARGETS) if not saturates(engine)]
    if not exact:
        parser.error(
            "products saturate in every engine here; PSNR of the full range needs a processor with VNNI or AMX"
        )
    keep_freed_memory()
    lines = [line for path in options.networks for line in rows(path, exact[0], options)]
    print(f"PSNR in {exact[0]}; products saturate in: {', '.join(filter(saturates, TARGETS)) or 'no engine'}\n")
    timed = (f"{engine}, s (× full)" for engine in TARGETS)
    print(markdown(("network", "model", f"{options.pairs.name}, dB", "agreement, dB", *timed), lines))


if __name__ == "__main__":
    main()
