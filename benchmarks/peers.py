"""Eight bits by the engines' own quantizers and by ours, side by side.

``python -m benchmarks.peers PHOTOGRAPHS DATA NETWORK ... --record FILE`` measures and adds to the record,
``python -m benchmarks.peers --table FILE`` prints the table of a record again.

All get the same calibration patches and the same float network, written as ONNX by srquant's exporter. ONNX Runtime:
static quantization by MinMax, unsigned activations, signed weights with a scale for each channel, as QuantizeLinear and
DequantizeLinear. NNCF: its OpenVINO backend, the mixed preset, and its transformer model where the network has
attention products. "Ours" are the patches that srquant adds by itself: drawings and saturated ones. Each file runs in
the engine that the column names, in one thread; networks that need it in tiles, and then so does the float network
that they are compared with. Losses as in :mod:`benchmarks.losses`; processor seconds of quantizing. What a quantizer
or an engine cannot do is a row that says why.

Needs the extras ``peers`` and ``spandrel``.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.losses import TITLES, Judge, Losses
from benchmarks.timing import markdown
from srquant import Calibration, Model, configure, load, quantize
from srquant.api import tiling
from srquant.engines import saturates, target_named
from srquant.engines.exported import Contract, Exported
from srquant.engines.onnx import write_onnx
from srquant.engines.operands import ExportSettings
from srquant.images.covering import Covering
from srquant.images.tiling import Tiling
from srquant.model.preparing import prepare

Patches = Calibration | Covering


@dataclass(frozen=True)
class Row:
    """What a quantizer made of a network, or why it could not."""

    network: str
    quantizer: str
    patches: str
    runs_in: str
    losses: Losses | None
    seconds: float | None
    failure: str = ""


@dataclass(frozen=True)
class Task:
    """A float network, as a model and as a file."""

    network: Model
    file: Path
    contract: Contract
    has_attention: bool

    @classmethod
    def of(cls, network: Model, folder: Path, size: int) -> Task:
        """Any size where one file can serve all, else tiles as large as the patches; norms folded, branches fused."""
        file, prepared = folder / "float.onnx", prepare(network.network)
        written = Model(prepared.network, network.source)
        contract = write_onnx(written, file, ExportSettings())
        if contract.tile is not None:
            contract = write_onnx(written, file, ExportSettings((size, size)))
        kinds = {each.kind.name for each in prepared.survey.multiplications}
        return cls(network, file, contract, "matmul" in kinds)

    @property
    def tiling(self) -> Tiling | None:
        """How pictures are cut, for every row."""
        return None if self.contract.tile is None else tiling(self.exported(lambda images: images), 192)

    def exported(self, run: Callable[[Tensor], Tensor]) -> Exported:
        """A file of this network in an engine; tiles at the border are filled up."""
        return Exported(self.contract, self.file.name, "", run)

    def opened(self, content: bytes, engine: str) -> Exported:
        return self.exported(target_named(engine).compiled(content, self.file.name, 1))


def by_srquant(task: Task, patches: Patches) -> bytes:
    assert isinstance(patches, Calibration)
    quantized = quantize(task.network, patches, configure("srquant", 8), device="cpu")
    target = task.file.with_name("srquant.onnx")
    write_onnx(quantized, target, ExportSettings(task.contract.tile))
    return target.read_bytes()


def by_onnxruntime(task: Task, patches: Patches) -> bytes:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader:
        """Patches one by one, as ONNX Runtime asks for them."""

        def __init__(self) -> None:
            self.left = _inputs(patches)

        def get_next(self) -> dict[str, Any] | None:
            images = next(self.left, None)
            return None if images is None else {"images": images.numpy()}

    prepared, target = (task.file.with_name(name) for name in ("prepared.onnx", "onnxruntime.onnx"))
    quant_pre_process(task.file, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=saturates("onnxruntime"),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    return target.read_bytes()


def by_nncf(task: Task, patches: Patches) -> Any:
    """The quantized model as OpenVINO has it."""
    import nncf
    import openvino

    return nncf.quantize(
        openvino.Core().read_model(task.file),
        nncf.Dataset([images.numpy() for images in _inputs(patches)]),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if task.has_attention else None,
        subset_size=len(patches),
    )


def _inputs(patches: Patches) -> Iterator[Tensor]:
    return (patches.patch(number)[None].contiguous() for number in range(len(patches)))


def in_openvino(model: Any) -> Callable[[Tensor], Tensor]:
    """What runs a model of OpenVINO's own, in one thread and with floats as floats."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    return lambda images: torch.from_numpy(request.infer([images.numpy()])[0].copy())


def rows(path: Path, options: argparse.Namespace) -> Iterator[Row]:
    """All quantizers on one network."""
    network = load(path)
    patches = Calibration.from_photographs(options.photographs, network.scale, count=options.patches)
    covering = Covering(patches)
    with tempfile.TemporaryDirectory() as folder:
        task = Task.of(network, Path(folder), patches.size)
        judge = Judge(network, options.data, task.tiling)

        def row(quantizer: str, given: str, engine: str, run: Callable[[Task, Patches], Exported]) -> Row:
            start, described = time.process_time(), (path.name, quantizer, given, engine)
            try:
                exported = run(task, covering if given == "ours" and quantizer != "srquant" else patches)
                seconds = time.process_time() - start
                return Row(*described, judge.losses(exported), seconds)
            except Exception as error:
                # Whatever stops one of them is its result.
                return Row(*described, None, None, f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")

        yield row("srquant", "ours", "OpenVINO", lambda task, of: task.opened(by_srquant(task, of), "openvino"))
        for given in ("photographs", "ours"):
            engine = "ONNX Runtime"
            yield row(engine, given, engine, lambda task, of: task.opened(by_onnxruntime(task, of), "onnxruntime"))
            yield row("NNCF", given, "OpenVINO", lambda task, of: task.exported(in_openvino(by_nncf(task, of))))


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
    logging.disable(logging.WARNING)
    found: list[Row] = read(options.record) if options.record and options.record.exists() else []
    for path in options.networks:
        found = [row for row in found if row.network != path.name]
        for row in rows(path, options):
            print(row, flush=True)
            found.append(row)
        if options.record:
            temporary = options.record.with_suffix(".part")
            temporary.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")
            temporary.replace(options.record)
    print(table(found))


def read(record: Path) -> list[Row]:
    """The rows of a record."""
    content = json.loads(record.read_text())
    return [Row(**row | {"losses": row["losses"] and Losses(**row["losses"])}) for row in content]


def table(found: list[Row]) -> str:
    """All rows as Markdown."""
    titles = ("network", "quantizer", "patches", "runs in", *TITLES, "seconds")
    return markdown(titles, [line(row) for row in found])


def line(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    described = row.network, row.quantizer, row.patches, row.runs_in
    if row.losses is None:
        return (*described, row.failure, *[""] * len(TITLES))
    return (*described, *row.losses.cells(), f"{row.seconds:.0f}")


if __name__ == "__main__":
    main()
