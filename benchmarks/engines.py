"""Integers against floats in PyTorch, ONNX Runtime and OpenVINO: python -m benchmarks.engines NETWORK PHOTOGRAPHS.

Prints two Markdown tables: one picture at once, and a folder from disk to disk (decoding, tiles, encoding). The rows of
a size take turns in one process. Multiply-adds are counted; the peak they are compared with is given (per core, in 10^9
multiply-adds a second; the defaults are what products of 1024×1024 matrices reached in PyTorch on a machine with AMX).
OpenVINO's bfloat16 is a row of its own: it is no longer float32, and no engine's default here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import alternate, markdown, median_ratio
from benchmarks.transformers import openvino_run
from srquant import Calibration, Model, configure, load, open_exported, quantize
from srquant.api import tiling
from srquant.engines import TARGETS
from srquant.engines.exported import Exported
from srquant.engines.onnx import write_onnx
from srquant.engines.operands import ExportSettings
from srquant.images import Layout, Picture, read_picture, write_picture
from srquant.images.bicubic import resize
from srquant.images.listing import list_images
from srquant.images.tiling import Tiling
from srquant.images.upscaling import upscale_tree
from srquant.model.survey import survey
from srquant.support.memory import keep_freed_memory

METHODS = {
    "W8A8": configure("mse", 8, settings=["grid=int8", "weights.granularity=per_channel"]),
    "W4A4 PLQ": configure("plq", 4, settings=["grid=int8", "bounds=least_squares", "weights.granularity=per_channel"]),
}


@dataclass(frozen=True)
class Row:
    """A model in an engine."""

    model: str
    engine: str
    run: Model | Exported

    @property
    def name(self) -> str:
        return f"{self.model}, {self.engine}"

    @property
    def arithmetic(self) -> str:
        if self.engine == "PyTorch" or self.model == "float":
            return "float32"
        return "bfloat16" if self.model == "bfloat16" else "int8"


def write_files(network: Model, models: Mapping[str, Model], folder: Path, tile: tuple[int, int] | None) -> None:
    write_onnx(network, folder / "float.onnx", ExportSettings(tile))
    for name, model in models.items():
        write_onnx(model, folder / f"{name}.onnx", ExportSettings(tile))


def open_rows(network: Model, models: Mapping[str, Model], folder: Path, threads: int) -> list[Row]:
    """Every model in every engine."""
    torch.set_num_threads(threads)
    rows = [Row("float", "PyTorch", network)]
    rows += [Row(f"{name}, simulated", "PyTorch", model) for name, model in models.items()]
    for name in ("float", *models):
        for engine in TARGETS.values():
            rows.append(Row(name, engine.title, open_exported(folder / f"{name}.onnx", engine.name, threads)))
    exported = open_exported(folder / "float.onnx", "openvino", threads)
    bf16 = replace(exported, run=openvino_run(folder / "float.onnx", threads, "bf16"))
    return [*rows, Row("bfloat16", "OpenVINO", bf16)]


def table(rows: list[Row], seconds: Mapping[str, list[float]], columns: Callable[[Row], tuple[str, ...]]) -> list:
    """Median time, and the ratio to the fastest float row and to W8A8 in OpenVINO."""
    median = {row.name: statistics.median(seconds[row.name]) for row in rows}
    best = min((row.name for row in rows if row.model == "float"), key=lambda name: median[name])
    lines = []
    for row in rows:
        faster = 1 / median_ratio(seconds, row.name, best)
        against = median_ratio(seconds, row.name, "W8A8, OpenVINO")
        lines.append(
            (row.model, row.engine, f"{median[row.name]:.3f}", f"{faster:.2f}", f"{against:.2f}", *columns(row))
        )
    return lines


def pictures(network: Model, models: Mapping[str, Model], options: argparse.Namespace) -> str:
    work = survey(network.network).multiply_adds
    lines = []
    for size in options.sizes:
        width, height = map(int, size.split("x"))
        images = torch.rand(1, 3, height, width)
        with tempfile.TemporaryDirectory() as folder:
            write_files(network, models, Path(folder), (height, width) if options.fixed else None)
            for threads in options.threads:
                rows = open_rows(network, models, Path(folder), threads)
                seconds = alternate({row.name: partial(row.run, images) for row in rows}, options.rounds)

                def speed(row: Row, threads: int = threads, pixels: int = height * width) -> tuple[str, str]:
                    rate = work * pixels / statistics.median(seconds[row.name]) / 1e9  # noqa: B023
                    peak = getattr(options, f"{row.arithmetic}_peak")
                    return f"{rate:.0f}", f"{rate / (threads * peak):.0%}"

                lines += [(size, str(threads), *line) for line in table(rows, seconds, speed)]
    header = ("LR size", "threads", "model", "engine", "seconds", "× best float", "/ W8A8 OpenVINO")
    return markdown((*header, "G multiply-adds/s", "of peak"), lines)


def folder_of_low_images(photographs: Path, target: Path, scale: int, count: int) -> None:
    """LR pictures of photographs."""
    for path in list_images(photographs)[:count]:
        pixels = read_picture(path).pixels[..., :3]
        low = resize(torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float(), 1 / scale)
        small = low.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        write_picture(target / f"{path.stem}.png", Picture(np.ascontiguousarray(small), Layout()))


def folders(network: Model, models: Mapping[str, Model], options: argparse.Namespace) -> str:
    lines = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_files(network, models, root, None)
        (root / "low").mkdir()
        folder_of_low_images(options.photographs, root / "low", network.scale, options.pictures)
        for threads in options.threads:
            rows = [row for row in open_rows(network, models, root, threads) if "simulated" not in row.model]

            def run(upscaler: Callable[[Tensor], Tensor], cut: Tiling) -> None:
                upscale_tree(upscaler, root / "low", root / "high", network.scale, cut)

            tasks = {row.name: partial(run, row.run, tiling(row.run, 192)) for row in rows}
            tasks["no network"] = partial(run, remembered(rows[-1].run), tiling(network, 192))
            seconds = alternate(tasks, options.rounds)
            lines += [(str(threads), *line) for line in table(rows, seconds, lambda _: ())]
            lines.append((str(threads), "no network", "", f"{statistics.median(seconds['no network']):.3f}", "", ""))
    header = ("threads", "model", "engine", f"seconds, {options.pictures} pictures", "× best float", "/ W8A8 OpenVINO")
    return markdown(header, lines)


def remembered(upscaler: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Computes every tile once: what is left then is decoding and encoding."""
    known: dict[bytes, Tensor] = {}

    def run(images: Tensor) -> Tensor:
        key = images.numpy().tobytes()
        if key not in known:
            known[key] = upscaler(images)
        return known[key]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["160x90", "320x180"], help="width x height")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=8, help="of the folder")
    parser.add_argument("--fixed", action="store_true", help="files of one size instead of any size")
    parser.add_argument("--int8-peak", type=float, default=695, help="of one core in int8")
    parser.add_argument("--bfloat16-peak", type=float, default=569, help="of one core in bfloat16")
    parser.add_argument("--float32-peak", type=float, default=77, help="of one core in float32")
    options = parser.parse_args()
    keep_freed_memory()
    network = load(options.network)
    patches = Calibration.from_photographs(options.photographs, network.scale, count=16)
    models = {name: quantize(network, patches, method, device="cpu") for name, method in METHODS.items()}
    print(f"{options.network.name}, torch {torch.__version__}\n")
    print(pictures(network, models, options), "\n")
    print(folders(network, models, options))


if __name__ == "__main__":
    main()
