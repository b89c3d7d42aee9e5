"""SwinIR-light ×4, float against integers, at the size of a tile: python -m benchmarks.transformers.

Prints a Markdown table; the rows take turns in one process. With --profile it prints where OpenVINO's time goes, by
kind of operator. The weights are random, drawn as for training: speed does not depend on them; how well files agree
with models is printed. With --files the exported files are kept, and used when they are there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnxruntime
import openvino
import torch
from torch import Tensor, nn

from benchmarks.timing import alternate, markdown, median_ratio
from srquant import Calibration, Model, configure, quantize
from srquant.engines.comparing import test_patch
from srquant.engines.onnx import write_onnx
from srquant.engines.operands import ExportSettings
from srquant.images.samples import PAIRS
from srquant.model.survey import survey
from srquant.networks.swinir import SwinIR, SwinIRConfig
from srquant.support.memory import keep_freed_memory

INTEGERS = ("grid=int8", "weights.granularity=per_channel")
MODELS = {
    "float": None,
    "W8A8": configure("minmax", 8, settings=[*INTEGERS]),
    "W8A8, attention float": configure("minmax", 8, settings=[*INTEGERS, "layers=*.scores=float,*.mix=float"]),
}


def network() -> Model:
    """SwinIR-light with weights as they are drawn for training, and norms that are not trivial."""
    torch.manual_seed(0)
    module = SwinIR(SwinIRConfig())
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                part.bias.normal_(0, 0.02)
            elif isinstance(part, nn.LayerNorm):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.1)
    return Model(module.eval().requires_grad_(False), "random")


def write_files(folder: Path, tile: int, precisions: list[str]) -> None:
    """Export what is not there yet, and say how well each file agrees with its model."""
    missing = {name: folder / f"{name}.onnx" for name in MODELS if not (folder / f"{name}.onnx").exists()}
    images = test_patch(tile, tile)
    for name, path in missing.items():
        method, model = MODELS[name], network()
        if method is None:
            write_onnx(model, path, ExportSettings((tile, tile)))
        else:
            pictures = PAIRS / "LR"
            patches = Calibration.from_low_resolution(pictures, count=8, size=48)
            model = quantize(model, patches, method, device="cpu")
            write_onnx(model, path, ExportSettings((tile, tile)))
        expected = model(images).double()
        runs = {f"OpenVINO {precision}": openvino_run(path, 1, precision) for precision in precisions}
        for engine, run in (runs | {"ONNX Runtime": onnxruntime_run(path, 1)}).items():
            error = (run(images).double() - expected).square().mean()
            print(f"{name}: {engine} agrees with the model to {-10 * error.log10():.1f} dB", flush=True)


def openvino_run(path: Path, threads: int, precision: str = "f32") -> Callable[[Tensor], Tensor]:
    request = compiled(path, threads, precision).create_infer_request()
    return lambda images: torch.from_numpy(request.infer([images.numpy()])[0])


def compiled(path: Path, threads: int, precision: str = "f32", *, counting: bool = False) -> openvino.CompiledModel:
    """As srquant.engines.runtimes.openvino does it, with a choice of precision and counters."""
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "PERF_COUNT": counting,
    }
    core = openvino.Core()
    return core.compile_model(core.read_model(path), "CPU", options)


def onnxruntime_run(path: Path, threads: int) -> Callable[[Tensor], Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@dataclass(frozen=True)
class Row:
    """A model in an engine."""

    model: str
    engine: str
    run: Callable[[Tensor], Tensor]

    @property
    def name(self) -> str:
        return f"{self.model}, {self.engine}"


def rows_of(folder: Path, threads: int, precisions: list[str], engines: list[str]) -> list[Row]:
    rows = []
    if "pytorch" in engines:
        rows.append(Row("float", "PyTorch", network()))
    for name in MODELS:
        path = folder / f"{name}.onnx"
        for precision in precisions if "openvino" in engines else ():
            rows.append(Row(name, f"OpenVINO {precision}", openvino_run(path, threads, precision)))
        if "onnxruntime" in engines:
            rows.append(Row(name, "ONNX Runtime", onnxruntime_run(path, threads)))
    return rows


def speeds(folder: Path, options: argparse.Namespace) -> str:
    images = torch.rand(1, 3, options.tile, options.tile)
    lines = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        rows = rows_of(folder, threads, options.precisions, options.engines)
        seconds = alternate({row.name: partial(row.run, images) for row in rows}, options.rounds)
        median = {name: statistics.median(values) for name, values in seconds.items()}
        best = min(
            (row.name for row in rows if row.model == "float" and "bf16" not in row.engine), key=median.__getitem__
        )
        best_bf16 = min((row.name for row in rows if row.model == "float"), key=median.__getitem__)
        for row in rows:
            size = (folder / f"{row.model}.onnx").stat().st_size if row.engine != "PyTorch" else None
            ratios = [f"{1 / median_ratio(seconds, row.name, base):.2f}" for base in (best, best_bf16)]
            cells = str(threads), row.model, row.engine, f"{median[row.name]:.3f}", *ratios
            lines.append((*cells, "" if size is None else f"{size:,}"))
    side = f"{options.tile}×{options.tile}"
    header = ("threads", "model", "engine", f"seconds, {side}", "× best f32 float", "× best float", "file, bytes")
    return markdown(header, lines)


def profile(folder: Path, options: argparse.Namespace) -> str:
    """Milliseconds by kind of operator, in the fastest of some runs; ``attention`` is what OpenVINO made one of."""
    images = torch.rand(1, 3, options.tile, options.tile).numpy()
    fastest: dict[str, dict[tuple[str, str], list[float]]] = {}
    for name in MODELS:
        model = compiled(folder / f"{name}.onnx", options.threads[0], options.precisions[0], counting=True)
        attentions = {
            node.get_friendly_name()
            for node in model.get_runtime_model().get_ops()
            if node.get_rt_info()["layerType"].value == "Subgraph"
            and "softmax" in node.get_rt_info()["originalLayersNames"].value
        }
        request = model.create_infer_request()
        runs = []
        for _ in range(options.rounds + 1):
            request.infer([images])
            times: dict[tuple[str, str], list[float]] = {}
            for info in request.profiling_info:
                milliseconds = 1000 * info.real_time.total_seconds()
                kind = "attention" if info.node_name in attentions else info.node_type
                if milliseconds:
                    times.setdefault((kind, info.exec_type), []).append(milliseconds)
            runs.append(times)
        fastest[name] = min(runs[1:], key=total)
    largest = Counter({kind: 0.0 for times in fastest.values() for kind in times})
    for times in fastest.values():
        largest |= Counter({kind: sum(values) for kind, values in times.items()})
    lines = [
        (
            *kind,
            *(f"{sum(times[kind]):.1f} ({len(times[kind])})" if kind in times else "" for times in fastest.values()),
        )
        for kind, most in largest.most_common()
        if most >= 0.5
    ]
    lines.append(("all", "", *(f"{total(times):.1f} ({sum(map(len, times.values()))})" for times in fastest.values())))
    return markdown(("operator", "kernel", *(f"{name}, ms (operators)" for name in MODELS)), lines)


def total(times: dict[tuple[str, str], list[float]]) -> float:
    return sum(sum(values) for values in times.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tile", type=int, default=80, help="height and width, a multiple of 8; 80 is the least")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engines", nargs="+", default=["pytorch", "openvino", "onnxruntime"])
    parser.add_argument("--precisions", nargs="+", default=["f32", "bf16"], help="of what OpenVINO computes in float")
    parser.add_argument("--files", type=Path, help="folder of the exported files")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = options.files or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        write_files(folder, options.tile, options.precisions)
        work = survey(network().network).multiply_adds * options.tile**2 / 1e9
        print(f"SwinIR-light ×4: {work:.2f} G multiply-adds; OpenVINO {openvino.__version__.split('-')[0]}\n")
        print(profile(folder, options) if options.profile else speeds(folder, options))


if __name__ == "__main__":
    main()
