"""Several methods on one network, scored on the same data: a table that survives interruptions.

Every row says what it needs to be compared fairly: bits, edges, granularity of the weights, data, seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from pydantic import ConfigDict

from srquant.analysis.published import all_published
from srquant.images.calibration import Calibration
from srquant.images.evaluation import evaluate
from srquant.images.pairs import PairFolder
from srquant.learning.identity import digest_of_network
from srquant.learning.state import state_of
from srquant.methods import OAPTQ, PLQ, Method, MinMax
from srquant.methods.pipeline.unfinished import remove_state
from srquant.model import Model
from srquant.model.observing import first_checked
from srquant.model.preparing import prepare
from srquant.support.digests import digest_of_settings
from srquant.support.errors import ArgumentError
from srquant.support.files import replacing
from srquant.support.locking import locked
from srquant.support.progress import bar
from srquant.support.settings import from_json, stored_as, to_json
from srquant.support.versions import versions


@dataclass(frozen=True)
class BenchmarkRow:
    """One method's result.

    Args:
        name: Title of the row.
        method: The method's name; empty for the float network.
        settings: Its resolved configuration.
        seconds: Calibration and finetuning, on this machine.
        coverage: Of the multiply-adds, those with quantized operands; the others stayed float.
        scores: PSNR in dB, and SSIM in both dialects, for each data set.
        identity: Digests of all that decides them, which the title does not; a row of other inputs is measured anew.
        latency: Milliseconds of an LR image of 96×96, simulated, on this machine, the least of three; 0 if unmeasured.
        storage: Bits of weights and everything else that is kept, in numbers of 32 bits (OAPTQ's table 5, in K).
        speed_up: By operations: multiply-adds over those left if one of b bits counts b/32, as 2DQuant has it, but with
            all convolutions counted rightly (its own 5.08 for SwinIR-light ×2 at 2 bits counts the convolution after
            the body as 3·C² instead of 9·C² and an upsampler of 3 channels; rightly it is 4.65).
    """

    __pydantic_config__: ClassVar[ConfigDict] = stored_as(coverage="share")

    name: str
    method: str
    settings: dict[str, Any]
    seconds: float
    coverage: float
    scores: dict[str, dict[str, float]]
    identity: dict[str, str] = field(default_factory=dict[str, str])
    latency: float = 0.0
    storage: float = 0.0
    speed_up: float = 1.0

    @property
    def key(self) -> tuple[str, Mapping[str, str]]:
        """Tells rows of one file apart."""
        return self.name, self.identity

    @property
    def bits(self) -> str:
        """As W4A4."""
        if not self.method:
            return "float"
        activation = self.settings["bits"]
        weight = self.settings["weight_bits"]
        return f"W{activation if weight is None else weight}A{activation}"

    @property
    def granularity(self) -> str:
        """Of the weights' bounds."""
        if not self.method:
            return ""
        return str(self.settings["weights"]["granularity"]).replace("_", " ")


@dataclass(frozen=True)
class Benchmark:
    """A table: what was measured on what."""

    network: str
    calibration: str
    rows: tuple[BenchmarkRow, ...]

    def markdown(self, published: Mapping[str, Mapping[str, Sequence[float | None]]] | None = None) -> str:
        """The table, with SSIM in both dialects, and published PSNR beside the measured where there is any."""
        sets = list(self.rows[0].scores)
        header = ["", "bits", "weights", "edges", "quantized", "seconds", "ms", "K of 32 bits", "operations"]
        for name in sets:
            header += [f"{name} PSNR", "SSIM", "(AdaBM)"] + (["(published)"] if published else [])
        lines = [header, ["---"] * len(header)]
        for row in self.rows:
            cells = [row.name, row.bits, row.granularity, row.settings.get("edges", "")]
            cells += [f"{row.coverage:.0%}", f"{row.seconds:.0f}"] if row.method else ["", ""]
            cells += [f"{row.latency:.0f}", f"{row.storage:.1f}", f"{row.speed_up:.2f}×"]
            for name in sets:
                score = row.scores[name]
                cells += [f"{score['psnr']:.2f}", f"{score['ssim']:.4f}", f"{score['ssim_adabm']:.4f}"]
                if published:
                    known = published.get(row.name, {}).get(name)
                    cells.append(f"{known[0]:.2f}" if known else "")
            lines.append(cells)
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"{self.network}; {self.calibration}; last iterate, no ensemble\n\n{table}\n"


def ablation_of_the_paper() -> dict[str, Mapping[str, Sequence[float | None]]]:
    """OAPTQ's table 4, by the names of :func:`ablation`: EDSR-baseline ×4, W4A4; it has no PLQ+VFT."""
    return {row.method: row.scores for row in all_published() if row.source == "OAPTQ, table 4"}


def ablation(method: OAPTQ) -> dict[str, Method]:
    """The rows of OAPTQ table 4: piecewise-linear quantizer off and on × no, vanilla, sensitivity-aware finetuning.

    Args:
        method: The last row; the others differ from it in what they leave out.
    """
    common: dict[str, Any] = {field.name: getattr(method, field.name) for field in fields(Method)}
    untrained = {field.name: getattr(method, field.name) for field in fields(PLQ)}
    return {
        "MinMax": MinMax(**common),
        "VFT": replace(method, quantizer="uniform", sensitivity="uniform"),
        "SAFT": replace(method, quantizer="uniform"),
        "PLQ": PLQ(**untrained),
        "PLQ+VFT": replace(method, sensitivity="uniform"),
        "PLQ+SAFT": method,
    }


def run_benchmark(
    model: Model, calibration: Calibration, folders: Sequence[PairFolder], methods: Mapping[str, Method], output: Path
) -> Benchmark:
    """Quantize a network by several methods and score them all, the float network first.

    Rows that ``output`` holds already are not measured again if all that decides them is the same: the weights, the
    pictures to calibrate and to score on, the configuration, the kind of device and the versions of srquant and torch.
    Rows of other inputs stay in the file, and are not in the table that is returned. A method that learns goes on where
    it stopped. Several processes may fill one file.

    Args:
        model: A float model, on the device to compute on.
        calibration: LR patches.
        folders: Benchmark sets.
        methods: By the title of their row.
        output: A ``.json`` file, written after every row.

    Raises:
        ArgumentError: ``output`` holds a table of another network or calibration.
    """
    table = _Table(output, model.source, calibration.describe(), [folder.name for folder in folders])
    table.read()
    inputs = _identify(model, calibration, folders)
    with bar("Methods", len(methods) + 1) as shown:
        for name, method in {"float": None, **methods}.items():
            settings = {} if method is None else cast(dict[str, Any], json.loads(json.dumps(to_json(method))))
            identity = {**inputs, "configuration": digest_of_settings("" if method is None else method.name, settings)}
            state = state_of(output.with_name(f"{output.name}.{digest_of_settings(identity)[:8]}"))
            row = next((row for row in table.read() if row.identity == identity), None)
            if row is None:
                row = replace(_measure(method, settings, model, calibration, folders, state), identity=identity)
            row = replace(row, name=name)
            table.add(row)
            if method is not None:
                remove_state(state, method, model)
            first = next(iter(row.scores))
            shown.note(f"{name}: {row.scores[first]['psnr']:.2f} dB on {first}, {row.seconds:.0f} s")
            shown.advance()
    return Benchmark(model.source, calibration.describe(), tuple(table.own))


class _Table:
    """The file of a benchmark, which other processes may fill too.

    Args:
        path: Of the file.
        network: What it must be of.
        calibration: On which patches.
        sets: Names of the data sets in every row.
    """

    def __init__(self, path: Path, network: str, calibration: str, sets: Sequence[str]) -> None:
        self._path, self._network, self._calibration, self._sets = path, network, calibration, list(sets)
        self.own: list[BenchmarkRow] = []
        """Rows of this process, in its order."""

    def read(self) -> list[BenchmarkRow]:
        """All rows in the file.

        Raises:
            ArgumentError: It is no table, or one of something else.
        """
        if not self._path.exists():
            return []
        try:
            found = from_json(Benchmark, self._path.read_bytes())
        except ArgumentError as error:
            raise ArgumentError(f"{self._path} is there and is no table of this command; give another name") from error
        same = (found.network, found.calibration) == (self._network, self._calibration)
        if not same or any(list(row.scores) != self._sets for row in found.rows):
            raise ArgumentError(
                f"{self._path} holds a table of another network, calibration or data; give another name, or remove it"
            )
        return list(found.rows)

    def add(self, row: BenchmarkRow) -> None:
        """Write a row of this process: its rows come first, those of others stay."""
        self.own.append(row)
        with locked(self._path.parent):
            others = [old for old in self.read() if all(old.key != new.key for new in self.own)]
            table = Benchmark(self._network, self._calibration, (*self.own, *others))
            with replacing(self._path) as temporary:
                temporary.write_text(json.dumps(to_json(table), indent=1) + "\n")


def _identify(model: Model, calibration: Calibration, folders: Sequence[PairFolder]) -> dict[str, str]:
    """Digests of all that decides the rows, but for what is done in each."""
    return {
        "srquant": versions()["srquant"],
        "torch": torch.__version__,
        "device": model.device.type,
        "network": digest_of_network(model.network),
        "calibration": calibration.digest(),
        "data": digest_of_settings([folder.digest() for folder in folders]),
    }


def _measure(
    method: Method | None,
    settings: dict[str, Any],
    model: Model,
    calibration: Calibration,
    folders: Sequence[PairFolder],
    state: Path,
) -> BenchmarkRow:
    start = time.perf_counter()
    quantized = model if method is None else method.quantize(model, calibration, state)
    seconds = 0.0 if method is None else time.perf_counter() - start
    upscaler = first_checked(model.network, model) if method is None else quantized
    scores = evaluate(upscaler, folders, model.scale)
    table = {row.name: {"psnr": row.psnr, "ssim": row.ssim, "ssim_adabm": row.ssim_adabm} for row in scores}
    coverage = quantized.record.coverage if quantized.record is not None else 0.0
    name = "" if method is None else method.name
    latency, storage = _latency(quantized), quantized.sizes().stored_bits / 32_000
    row = BenchmarkRow("", name, settings, seconds, coverage, table)
    return replace(row, latency=latency, storage=storage, speed_up=speed_up(model, quantized))


def speed_up(model: Model, quantized: Model) -> float:
    """Multiply-adds of a float model over those of a quantized one, one of b bits counted as b/32.

    Of a layer whose operands have other bits the larger number counts. Source: 2DQuant, its speed-up ratio.
    """
    bits = {layer.name: max(layer.left.bits, layer.right.bits) for layer in quantized.layers()}
    if quantized.record is None:
        return 1.0
    survey = prepare(model.network, "folded" if quantized.record.folds else "float").survey
    saved = sum(each.multiply_adds * (1 - bits.get(each.name, 32) / 32) for each in survey.multiplications)
    return survey.multiply_adds / (survey.multiply_adds - saved)


def _latency(model: Model) -> float:
    """Milliseconds of an LR image of 96×96, the least of three."""
    images = torch.full((1, 3, 96, 96), 0.5)
    times: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        model(images).cpu()
        times.append(1000 * (time.perf_counter() - start))
    return min(times)
