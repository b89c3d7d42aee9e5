"""One cell, computed: quantize, score, and note what it took."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch

from srquant.analysis.sensitivity import sensitivity
from srquant.api import pick_device, quantize, tiling
from srquant.bench.cells import Cell, DataSet, Subject
from srquant.bench.provenance import device_name, forget_peak, peak_memory, processor
from srquant.bench.records import FLOAT, CellRecord, DataScores
from srquant.images.evaluation import Scores, evaluate
from srquant.images.perceptual import further_scores
from srquant.model import Model
from srquant.model.observing import first_checked
from srquant.model.preparing import prepare
from srquant.support import errors
from srquant.support.errors import SrquantError, first_line
from srquant.support.settings import to_json
from srquant.support.versions import versions

_LATENCY = 96
"""Height and width of the LR image that is timed."""
_TIMED = 3


@dataclass(frozen=True)
class Wishes:
    """How cells are computed, which decides no score, and what is wanted of each.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` …
        threads: Of a cell. Other numbers may change the last bits of sums.
        keep_models: Whether the quantized model is wanted.
        sensitivities: Whether each layer is quantized alone and scored on the first data set.
    """

    device: str = "auto"
    threads: int = 1
    keep_models: bool = False
    sensitivities: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Args:
        record: Done, or failed.
        model: Content of the quantized model's file, if it was wanted.
    """

    record: CellRecord
    model: bytes | None = None


def measure(
    cell: Cell, subject: Subject, wishes: Wishes, float_data: Sequence[DataScores] = (), state: Path | None = None
) -> Outcome:
    """Compute a cell. Whatever goes wrong is the record's ``reason``; an interruption ends it.

    Args:
        cell: What to compute.
        subject: Its network.
        wishes: How.
        float_data: Scores of the float network; of a float cell, none.
        state: Where a method that learns keeps its run.
    """
    torch.set_num_threads(wishes.threads)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            device = pick_device(wishes.device)
            outcome = _measure(cell, subject, wishes, float_data, state, device)
        except Exception as error:  # whatever a method or a network of somebody else's may raise
            reason = first_line(error) if isinstance(error, SrquantError) else f"{type(error).__name__}: {error}"
            outcome = Outcome(failed(cell, reason.splitlines()[0]))
    own = [str(each.message) for each in said if each.category.__module__ == errors.__name__]
    record = replace(outcome.record, notes=tuple(dict.fromkeys(own)), threads=wishes.threads)
    return replace(outcome, record=record)


def failed(cell: Cell, reason: str) -> CellRecord:
    """The record of a cell without scores."""
    method = cell.method
    return CellRecord(
        key=cell.key,
        status="failed",
        reason=reason,
        title=cell.title,
        order=cell.order,
        network=cell.network,
        method=FLOAT if method is None else method.name,
        settings={} if method is None else to_json(method),
        identity=cell.identity,
        calibration=cell.calibration,
        seed=cell.seed,
        versions=versions(),
        processor=processor(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _measure(
    cell: Cell,
    subject: Subject,
    wishes: Wishes,
    float_data: Sequence[DataScores],
    state: Path | None,
    device: torch.device,
) -> Outcome:
    model, made = subject.model.to(device), subject.model.to(device)
    forget_peak(device)
    wall, process = time.perf_counter(), time.process_time()
    if cell.method is not None:
        given = cell.given or subject.given_to(cell.method)
        made = quantize(subject.model, given, cell.method, state=state, device=wishes.device).to(device)
    wall, process = time.perf_counter() - wall, time.process_time() - process
    peak = peak_memory(device)
    start = time.perf_counter()
    data = tuple(score(made, each, float_data) for each in subject.data)
    scoring = time.perf_counter() - start
    content = _file_of(made)
    record = replace(
        failed(cell, ""),
        status="done",
        data=data,
        process_seconds=process if cell.method else 0.0,
        wall_seconds=wall if cell.method else 0.0,
        scoring_seconds=scoring,
        latency=_latency(made),
        peak_memory=peak if cell.method else peak_memory(device),
        file_bytes=len(content),
        stored_bits=made.sizes().stored_bits,
        device=device_name(device),
    )
    if made.record is None:
        return Outcome(record)
    record = replace(
        record,
        coverage=made.record.coverage,
        layer_bits=_layer_bits(made),
        losses=made.record.losses,
        curve=made.record.curve,
        speed_up=speed_up(model, made),
        sensitivities=_sensitivities(model, made, subject) if wishes.sensitivities else {},
    )
    return Outcome(record, content if wishes.keep_models else None)


def score(model: Model, data: DataSet, float_data: Sequence[DataScores] = ()) -> DataScores:
    """Scores on a data set, beside those of the float network; of the float network itself, its own."""
    upscaler = first_checked(model.network, model) if model.record is None else model
    cut = None if data.tile is None else tiling(model, data.tile)
    if cut is not None and data.overlap is not None:
        cut = replace(cut, overlap=data.overlap)
    (found,) = evaluate(upscaler, [data.folder], model.scale, cut, further_scores(data.further, model.device))
    scores = columns(found)
    before = next((each.scores for each in float_data if each.name == found.name), scores)
    return DataScores(
        name=found.name,
        images=tuple(image.name for image in found.images),
        scores=scores,
        float_scores=before,
        low_is_made=found.low_is_made,
        scored=data.scored,
        image_bits=found.image_bits,
    )


def columns(scores: Scores) -> dict[str, tuple[float, ...]]:
    """Every score by name, image by image."""
    named = [image.named() for image in scores.images]
    return {name: tuple(float(each[name]) for each in named) for name in named[0]}


def speed_up(model: Model, quantized: Model) -> float:
    """Multiply-adds of a float model over those of a quantized one, one of b bits counted as b/32.

    Of a layer whose operands have other bits the larger number counts. Source: 2DQuant, its speed-up ratio. All
    convolutions are counted rightly: its own 5.08 for SwinIR-light ×2 at 2 bits counts the convolution after the body
    as 3·C² instead of 9·C² and an upsampler of 3 channels; rightly it is 4.65.
    """
    bits = {layer.name: max(layer.left.bits, layer.right.bits) for layer in quantized.layers()}
    if quantized.record is None:
        return 1.0
    survey = prepare(model.network, "folded" if quantized.record.folds else "float").survey
    saved = sum(each.multiply_adds * (1 - bits.get(each.name, 32) / 32) for each in survey.multiplications)
    return survey.multiply_adds / (survey.multiply_adds - saved)


def _layer_bits(model: Model) -> dict[str, int]:
    counts: dict[str, int] = {}
    for layer in model.layers():
        width = f"W{layer.right.bits}A{layer.left.bits}" if layer.weights else f"A{layer.left.bits}"
        counts[width] = counts.get(width, 0) + 1
    return counts


def _sensitivities(model: Model, made: Model, subject: Subject) -> dict[str, float]:
    return sensitivity(model, made, subject.data[0].folder.pairs, weights=True).layers


def _file_of(model: Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return model.to("cpu").save(Path(folder) / "model.safetensors").read_bytes()


def _latency(model: Model) -> float:
    """Milliseconds of an LR image of 96×96, the least of three."""
    images = torch.full((1, 3, _LATENCY, _LATENCY), 0.5)
    times: list[float] = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        cast(Any, model(images)).cpu()
        times.append(1000 * (time.perf_counter() - start))
    return min(times)
