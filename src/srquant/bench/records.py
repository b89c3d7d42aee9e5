"""What a bench keeps: one record a cell, one file a record.

A cell is one method, at some bits, on one network, scored on some data sets; or the float network itself. A folder of
runs holds ``records/*.json``, which this file reads and writes, ``models/*.safetensors`` where models are kept, and
``states/*.state`` of methods that are still learning.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from srquant.model.record import Coverage, LayerLosses
from srquant.support.errors import ArgumentError, OutputError, RecordWarning, SrquantError
from srquant.support.files import is_folder, is_temporary, replacing
from srquant.support.settings import Checked, from_json, to_json

FORMAT = 1
"""Of the records written here."""
RECORDS, MODELS, STATES = "records", "models", "states"
"""Folders in a folder of runs."""
FLOAT = "float"
"""Stands where a method's name does, for the float network itself."""

_Count = Annotated[int, Field(ge=0)]
_Seconds = Annotated[float, Field(ge=0)]


def _number(value: object) -> object:
    return math.inf if value == "inf" else value


Score = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(_number)]
"""Of one image. An infinite PSNR, that of two equal images, is the text "inf" in JSON, which has no such number."""


@dataclass(frozen=True)
class NetworkRecord(Checked):
    """Which float network."""

    name: str
    """Of the file of its weights."""
    kind: str
    """EDSR, SwinIR …"""
    published: str
    """What papers call a network of these hyper-parameters: EDSR-baseline, SwinIR-light …; empty if none does."""
    scale: Annotated[int, Field(ge=1)]
    parameters: _Count
    digest: str
    """Of what it computes."""


@dataclass(frozen=True)
class DataScores(Checked):
    """Scores on one data set, image by image, in the order of ``images``.

    Score names are ``psnr`` (dB), ``ssim`` (BasicSR's dialect), ``ssim_adabm`` (AdaBM's), and those of further scores.
    """

    name: str
    images: tuple[str, ...]
    """File names of the HR images."""
    scores: dict[str, tuple[Score, ...]]
    float_scores: dict[str, tuple[Score, ...]]
    """Of the float network, by the same names."""
    low_is_made: bool = False
    """Whether LR images were made from HR by MATLAB's bicubic."""
    scored: dict[str, int] = field(default_factory=dict[str, int])
    """How images were enlarged, where not each at once: ``tile`` and ``overlap``."""
    image_bits: tuple[float, ...] = ()
    """Where bits adapt: the mean bits of each image's features; their mean is FAB (feature average bits)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for values in (
            *self.scores.values(),
            *self.float_scores.values(),
            *([self.image_bits] * bool(self.image_bits)),
        ):
            if len(values) != len(self.images) or not values:
                raise ArgumentError(f"{self.name} has {len(self.images)} images and {len(values)} values of a score")

    def mean(self, score: str = "psnr") -> float:
        """Over the images."""
        return fmean(self.scores[score])

    def float_mean(self, score: str = "psnr") -> float:
        """Of the float network, over the images."""
        return fmean(self.float_scores[score])

    def losses(self, score: str = "psnr") -> tuple[float, ...]:
        """What each image loses against the float network; 0 where both are infinite."""
        both = zip(self.float_scores[score], self.scores[score], strict=True)
        return tuple(0.0 if before == after else before - after for before, after in both)

    @property
    def fab(self) -> float | None:
        """Feature average bits: mean bits over the images; None where bits do not adapt."""
        return fmean(self.image_bits) if self.image_bits else None


@dataclass(frozen=True, kw_only=True)
class CellRecord(Checked):
    """One cell: what was asked for, what came out, what it took, and where."""

    format: Literal[1] = FORMAT
    key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest of all that decides the cell (``identity``)."""
    status: Literal["done", "failed"]
    reason: str = ""
    """Why it failed, a line."""
    title: str
    """As it was asked for: ``plq:quantile=0.99``, ``PLQ+SAFT``; ``float``."""
    order: _Count
    """Its number in the grid that it was first asked for in; tables keep this order."""
    network: NetworkRecord
    method: str
    """Name of the method; ``float`` for the float network."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """The method's resolved configuration."""
    identity: dict[str, str]
    """Digests and versions that decide the cell, by what they are of."""
    calibration: str
    """The calibration patches, in words."""
    data: tuple[DataScores, ...] = ()
    """Empty if the cell failed."""
    notes: tuple[str, ...] = ()
    """What was warned of."""

    coverage: Coverage = 0.0
    """Part of the multiply-adds whose operands are both quantized."""
    layer_bits: dict[str, int] = field(default_factory=dict[str, int])
    """How many layers have which bits, as ``{"W4A4": 32, "W8A8": 4}``."""
    losses: LayerLosses | None = None
    """The layers that lose most."""
    sensitivities: dict[str, float] = field(default_factory=dict[str, float])
    """PSNR in dB with one layer alone quantized, by layer, where that was measured."""
    curve: tuple[dict[str, Any], ...] = ()
    """Of learning: a row an epoch, see :class:`srquant.model.record.Epoch`."""

    process_seconds: _Seconds = 0.0
    """Processor time of quantizing, all threads together."""
    wall_seconds: _Seconds = 0.0
    """Of quantizing; of a cell that went on from a state, since then."""
    scoring_seconds: _Seconds = 0.0
    """Wall time of scoring."""
    latency: _Seconds = 0.0
    """Milliseconds of an LR image of 96×96, simulated in PyTorch, the least of three."""
    peak_memory: _Count = 0
    """Bytes of the process at most; 0 where the system does not say."""
    file_bytes: _Count = 0
    """Of the model's file."""
    stored_bits: _Count = 0
    """Counted: codes, float parameters, bounds."""
    speed_up: _Seconds = 1.0
    """By operations, see :func:`srquant.bench.measuring.speed_up`."""
    model: str = ""
    """Path of the kept model in the folder of runs; empty if it was not kept."""

    versions: dict[str, str] = field(default_factory=dict[str, str])
    processor: str = ""
    device: str = "cpu"
    threads: Annotated[int, Field(ge=1)] = 1
    """That computed."""
    seed: _Count = 0
    """Of the calibration patches; a method's own stand in its settings."""
    commit: str = ""
    """Of srquant's sources, with a plus sign if they were changed; empty where there is no checkout."""
    finished: str = ""
    """When, UTC, ISO 8601."""

    @property
    def done(self) -> bool:
        """Whether there are scores."""
        return self.status == "done"

    @property
    def bits(self) -> str:
        """As W4A4, or float."""
        if self.method == FLOAT:
            return FLOAT
        activation = self.settings["bits"]
        weight = self.settings.get("weight_bits")
        return f"W{activation if weight is None else weight}A{activation}"

    @property
    def edges(self) -> str:
        """``8bit``, ``float`` or ``none``; empty for the float network."""
        return str(self.settings.get("edges", ""))

    @property
    def scope(self) -> str:
        """``all``, ``transformer`` or ``auto``; empty for the float network."""
        return str(self.settings.get("scope", ""))

    @property
    def granularity(self) -> str:
        """``per_tensor`` or ``per_channel``, of weights; empty for the float network."""
        return str(self.settings.get("weights", {}).get("granularity", ""))

    def on(self, data: str) -> DataScores | None:
        """Scores on a data set, by its name."""
        return next((scores for scores in self.data if scores.name == data), None)

    @property
    def file_name(self) -> str:
        """Of the record, without an ending; that of a kept model too."""
        stem = re.sub(r"[^A-Za-z0-9]+", "_", Path(self.network.name).stem)[:40]
        method = re.sub(r"[^A-Za-z0-9]+", "_", self.method)[:40]
        width = "" if self.method == FLOAT else f"-{self.bits.lower()}"
        return f"{stem}-{method}{width}-{self.key[:12]}"


@dataclass(frozen=True)
class Runs:
    """The records of a folder of runs.

    Args:
        folder: Where they are.
        records: In the order of tables: by network, then as they were asked for.
    """

    folder: Path
    records: tuple[CellRecord, ...]

    def __iter__(self) -> Iterator[CellRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def done(self) -> tuple[CellRecord, ...]:
        """Those with scores."""
        return tuple(record for record in self.records if record.done)

    @property
    def failed(self) -> tuple[CellRecord, ...]:
        """Those without."""
        return tuple(record for record in self.records if not record.done)

    def float_of(self, record: CellRecord) -> CellRecord | None:
        """The float network's own record, on the same data."""
        same = (other for other in self.done if other.method == FLOAT and other.network == record.network)
        return next((other for other in same if other.identity["data"] == record.identity["data"]), None)

    def model_path(self, record: CellRecord) -> Path | None:
        """Where the kept model is; None if it was not kept, or is gone."""
        path = self.folder / record.model
        return path if record.model and path.is_file() else None


def record_path(folder: Path, record: CellRecord) -> Path:
    """Where a record belongs."""
    return folder / RECORDS / f"{record.file_name}.json"


def write_record(folder: Path, record: CellRecord) -> Path:
    """Write a record, all or nothing, in place of an earlier one of the same cell. Each field is a line.

    Raises:
        OutputError: It cannot be written.
    """
    path = record_path(folder, record)
    content: Mapping[str, Any] = to_json(record)
    lines = (f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in content.items())
    with replacing(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return path


def read_record(path: Path) -> CellRecord:
    """Read one record.

    Raises:
        ArgumentError: The file is damaged, no record, or of a newer format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror or error}") from error
    newer = re.match(rb'\s*\{\s*"format":\s*(\d{1,9})\b', content)
    if newer and int(newer[1]) > FORMAT:
        raise ArgumentError(
            f"{path} was written by a newer version of srquant (records of format {int(newer[1])}, this one reads "
            f"{FORMAT}); update srquant"
        )
    try:
        return from_json(CellRecord, content)
    except SrquantError as error:
        raise ArgumentError(f"{path} is damaged or no record of a bench: {error}") from error


def read_records(folder: Path | str) -> Runs:
    """All records of a folder of runs, or of a folder of records alone.

    Raises:
        ArgumentError: There is no such folder, or nothing in it can be read as a record.

    Warns:
        RecordWarning: A file is damaged and passed over; the bench computes its cell anew.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise ArgumentError(f"{folder} is no folder; give one that srquant bench run has written")
    found, failures = scan(folder)
    if not found:
        because = f": {failures[0]}" if failures else ""
        raise ArgumentError(f"{folder} holds no records of a bench{because}; srquant bench run writes them")
    for failure in failures:
        warnings.warn(f"passed over: {failure}", RecordWarning, stacklevel=2)
    return Runs(folder, tuple(in_order(found)))


def scan(folder: Path) -> tuple[list[CellRecord], list[ArgumentError]]:
    """Records of a folder that may have none, and what is wrong with files that are none.

    Raises:
        OutputError: The folder cannot be listed.
    """
    inside = folder / RECORDS
    try:
        paths = sorted((inside if is_folder(inside) else folder).glob("*.json"))
    except OSError as error:
        raise OutputError(f"cannot list {folder}: {error.strerror or error}") from error
    found: dict[str, CellRecord] = {}
    failures: list[ArgumentError] = []
    for path in paths:
        if is_temporary(path):
            continue
        try:
            record = read_record(path)
        except ArgumentError as error:
            failures.append(error)
        else:
            known = found.get(record.key)
            if known is None or (record.done, record.finished) > (known.done, known.finished):
                found[record.key] = record
    return list(found.values()), failures


def in_order(records: Iterable[CellRecord]) -> Sequence[CellRecord]:
    """By network, the float one first, more bits before fewer, and then as asked for."""

    def place(record: CellRecord) -> tuple[Any, ...]:
        activation = 99 if record.method == FLOAT else int(record.settings["bits"])
        weight = 99 if record.method == FLOAT else int(record.settings.get("weight_bits") or activation)
        network = (record.network.name, record.network.scale, record.network.digest)
        return (*network, -activation, -weight, record.order, record.title, record.key)

    return sorted(records, key=place)
