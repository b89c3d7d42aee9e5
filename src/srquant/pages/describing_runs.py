"""What a page says of the records of a bench."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from srquant.bench import tables as bench_tables
from srquant.bench.records import FLOAT, CellRecord, Runs
from srquant.bench.suites import suite_named
from srquant.pages.contenders import flat
from srquant.pages.contents import (
    Axis,
    Cell,
    Column,
    Curve,
    LayerRow,
    Layers,
    Page,
    Point,
    Provenance,
    Row,
    Series,
    Table,
    TradeOff,
)
from srquant.pages.layers import curve_of, worst_layers
from srquant.pages.wording import NOTHING, duration, finite, listed, number, size
from srquant.support.versions import __version__
from srquant.support.wording import counted

_COSTS = (
    Axis("weight_bits", "bits of the weights", digits=0),
    Axis("activation_bits", "bits of the activations", digits=0),
    Axis("bytes", "size of the file (kB)", logarithmic=True, digits=1),
    Axis("seconds", "processor time of quantizing (s)", logarithmic=True, digits=1),
    Axis("latency", "time of a 96×96 picture, simulated (ms)", digits=1),
    Axis("fab", "mean bits of features (FAB)"),
)
_SCORES = {
    "psnr": Axis("psnr", "PSNR (dB)"),
    "ssim": Axis("ssim", "SSIM", digits=4),
    "ssim_adabm": Axis("ssim_adabm", "SSIM (AdaBM)", digits=4),
    "lpips": Axis("lpips", "LPIPS (less is better)", digits=4, less_is_better=True),
    "dists": Axis("dists", "DISTS (less is better)", digits=4, less_is_better=True),
}

_TEXTS = {"nan": NOTHING, "inf": "∞"}

_PROTOCOL = ("edges", "granularity", "scope")
"""Of a record, what a method may be run with more than once."""

Groups = Sequence[Sequence[CellRecord]]
"""Records by network."""


def quantized_in(records: Iterable[CellRecord]) -> list[CellRecord]:
    """Those with scores that are not the float network's."""
    return [record for record in records if record.done and record.method != FLOAT]


def title_of(record: CellRecord) -> str:
    """Of a model, as W4A4 behind its method."""
    return f"{record.title} {record.bits}" if record.method != FLOAT else FLOAT


def distinct(records: Sequence[CellRecord]) -> list[CellRecord]:
    """Records of a network under titles that tell those of one width apart.

    Where a method was run more than once at a width, its title says in what it differs: edges, granularity of the
    weights, scope; and the beginning of the key where that is the same too.
    """

    def clashing(own: Sequence[CellRecord]) -> set[str]:
        counts = Counter((record.title, record.bits) for record in own if record.method != FLOAT)
        return {title for (title, _), count in counts.items() if count > 1}

    def by_protocol(record: CellRecord) -> CellRecord:
        same = [other for other in records if other.title == record.title]
        differ = [name for name in _PROTOCOL if len({getattr(other, name) for other in same}) > 1]
        words = ", ".join(f"{name} {getattr(record, name)}" for name in differ)
        return replace(record, title=f"{record.title} ({words})") if words else record

    titles = clashing(records)
    told = [by_protocol(record) if record.title in titles else record for record in records]
    titles = clashing(told)
    return [replace(each, title=f"{each.title} {each.key[:6]}") if each.title in titles else each for each in told]


def network_title(record: CellRecord) -> str:
    """Of a network: what papers call it, or its file."""
    return f"{record.network.published or Path(record.network.name).stem} ×{record.network.scale}"


def colours(groups: Groups) -> dict[str, int]:
    """Numbers of colours by the titles of methods, the same for all networks and widths."""
    titles = dict.fromkeys(record.title for records in groups for record in quantized_in(records))
    return {title: number for number, title in enumerate(titles)}


def describe(groups: Groups, suite: str | None = None) -> Page:
    """All of a page but pictures and layers.

    Args:
        groups: Records by network, as :func:`srquant.bench.tables.grouped` gives them.
        suite: Only what belongs to this table of a paper, with all that it prints.
    """
    numbers = colours(groups)
    failed = [record for records in groups for record in records if not record.done]
    networks = [network_title(records[0]) for records in groups]
    return Page(
        title=f"{f'{suite}: ' if suite else 'Bench of '}{listed(networks)}",
        result=result_of(groups),
        remarks=tuple(f"Not computed: {title_of(each)} of {each.network.name}: {each.reason}" for each in failed),
        tables=tuple(_tables(groups, suite, numbers)),
        trade_offs=tuple(trade_off for records in groups if (trade_off := _trade_off(records, numbers)).series),
        curves=tuple(_curves(groups, numbers)),
        provenance=tuple(_provenance(each, several=len(groups) > 1) for records in groups for each in records),
        made_by=f"srquant {__version__}",
    )


def mean_of(record: CellRecord, *, of_float: bool = False) -> float | None:
    """Mean PSNR over the data sets, in dB; None where a score is missing or no number."""
    means = [scores.float_mean() if of_float else scores.mean() for scores in record.data]
    return fmean(means) if means and not any(map(math.isnan, means)) else None


def result_of(groups: Groups) -> str:
    """The sentence that a reader takes home: at the narrowest width that methods share, who loses least."""
    done = [quantized_in(records) for records in groups]
    widths = list(dict.fromkeys(record.bits for own in done for record in own))
    scored = {
        width: [best for own in done if (best := _ranked([record for record in own if record.bits == width]))]
        for width in widths
    }
    shared = [width for width in widths if any(len(ranked) > 1 for ranked in scored[width])]
    width = next(reversed(shared or [width for width in widths if scored[width]]), None)
    if width is None:
        floats = counted(sum(len(records) for records in groups), "record")
        return f"{floats}, and no scores of a quantized network yet."
    if len(scored[width]) == 1:
        return _result_of_one(scored[width][0], groups)
    winners = list(dict.fromkeys(ranked[0][1].title for ranked in scored[width]))
    losses = [(ranked[0][1], ranked[0][0]) for ranked in scored[width]]
    if len(winners) == 1:
        parts = [f"{number(loss)} dB on {network_title(record)}" for record, loss in losses]
        return f"At {width}, {winners[0]} loses least: {listed(parts)}."
    parts = [f"{record.title} on {network_title(record)} ({number(loss)} dB)" for record, loss in losses]
    return f"At {width}, these lose least: {listed(parts)}."


def _ranked(records: Sequence[CellRecord]) -> list[tuple[float, CellRecord]]:
    """Losses in dB against the float network, the smallest first."""
    both = [(mean_of(record, of_float=True), mean_of(record), record) for record in records]
    known = [(before - after, each) for before, after, each in both if before is not None and after is not None]
    return sorted(((loss, each) for loss, each in known if math.isfinite(loss)), key=lambda pair: pair[0])


def _result_of_one(ranked: Sequence[tuple[float, CellRecord]], groups: Groups) -> str:
    (loss, best), *others = ranked
    before = next((each for records in groups for each in records if each.method == FLOAT and each.done), None)
    smaller = ""
    if before is not None and best.file_bytes and before.network == best.network and before.file_bytes:
        smaller = f", in a file {before.file_bytes / best.file_bytes:.1f} times smaller"
    where = listed([scores.name for scores in best.data])
    verb = "loses" if loss >= 0 else "gains"
    sentence = (
        f"At {best.bits}, {best.title} {verb} {number(abs(loss))} dB {'of' if loss >= 0 else 'on'} the "
        f"{number(mean_of(best, of_float=True))} dB of {network_title(best)} on {where}{smaller}"
    )
    last = f"; the next, {others[0][1].title}, is {number(others[0][0] - loss)} dB behind" if others else ""
    return f"{sentence}{last}."


def _tables(groups: Groups, suite: str | None, numbers: dict[str, int]) -> Iterator[Table]:
    chosen = None if suite is None else suite_named(suite)
    for records in groups:
        for table in bench_tables.tables(Runs(Path(), tuple(records)), chosen):
            yield _table(table, numbers)


def _table(table: bench_tables.Table, numbers: dict[str, int]) -> Table:
    """A bench's table, its first two columns as the name of the row."""
    columns: list[Column] = []
    group = ""
    for column in table.columns[2:]:
        name, is_first = re.subn(" PSNR$", "", column.title)
        group = name if is_first else "" if column.title in ("seconds", "bytes", "source") else group
        title = "PSNR (dB)" if is_first else column.title
        columns.append(Column(title, group, column.better == "lower" or title in ("loss (worst)", "seconds", "bytes")))
    rows: list[Row] = []
    for row in table.rows:
        title, bits, *entries = row.entries
        cells = tuple(Cell(_TEXTS.get(entry.text, entry.text), _value(entry), entry.place) for entry in entries)
        rows.append(Row(title.text, bits.text, cells, numbers.get(title.text) if row.ours else None))
    note = ". ".join((*table.notes, "Losses are against each row’s own float network, the worst picture’s in brackets"))
    return Table(table.title, tuple(columns), tuple(rows), f"{note}.")


def _value(entry: bench_tables.Entry) -> float | None:
    """The number of an entry, or the one that its text begins with."""
    if entry.value is not None:
        return None if math.isnan(entry.value) else entry.value
    found = re.match(r"-?[\d,]*\.?\d+", entry.text)
    return float(found[0].replace(",", "")) if found else None


def _trade_off(records: Sequence[CellRecord], numbers: dict[str, int]) -> TradeOff:
    own = quantized_in(records)
    sets = list(
        dict.fromkeys((scores.name, score) for record in own for scores in record.data for score in scores.scores)
    )
    qualities = tuple(_quality(name, score) for name, score in sets)
    series = tuple(
        Series(title, numbers[title], tuple(_point(record) for record in own if record.title == title))
        for title in dict.fromkeys(record.title for record in own)
    )
    levels = {
        f"{scores.name} {score}": finite(scores.float_mean(score))
        for record in own
        for scores in record.data
        for score in scores.float_scores
    }
    return TradeOff(network_title(records[0]), _COSTS, qualities, series, levels)


def _quality(data: str, score: str) -> Axis:
    """The axis of a score on a data set; of a score that is not known here, by its own name."""
    known = _SCORES.get(score, Axis(score, score, digits=4))
    return replace(known, key=f"{data} {score}", title=f"{data}: {known.title}")


def _point(record: CellRecord) -> Point:
    weight, _, activation = record.bits.removeprefix("W").partition("A")
    adaptive = [scores.fab for scores in record.data if scores.fab is not None]
    numbers: dict[str, float | None] = {
        "weight_bits": float(weight),
        "activation_bits": float(activation),
        "bytes": record.file_bytes / 1000 or None,
        "seconds": record.process_seconds or None,
        "latency": record.latency or None,
        "fab": fmean(adaptive) if adaptive else None,
    }
    for scores in record.data:
        for score in scores.scores:
            numbers[f"{scores.name} {score}"] = finite(scores.mean(score))
    return Point(record.bits, numbers)


def layers_of_record(record: CellRecord) -> Layers:
    """What a record says of layers: losses where each was quantized alone, and those that lose most."""
    best = max(record.sensitivities.values(), default=0.0)
    rows = tuple(
        LayerRow(name, "", math.nan, math.nan, best - psnr if math.isfinite(best - psnr) else None)
        for name, psnr in record.sensitivities.items()
    )
    said = [worst_layers(record.losses)]
    if rows:
        said.append(f"Losses are against the layer that loses least, with which the network has {number(best)} dB.")
    return Layers(title_of(record), rows, " ".join(filter(None, said)))


def _curves(groups: Groups, numbers: dict[str, int]) -> Iterator[Curve]:
    for records in groups:
        for record in quantized_in(records):
            where = f", {network_title(record)}" if len(groups) > 1 else ""
            curve = curve_of(f"{title_of(record)}{where}", numbers[record.title], record.curve)
            if curve is not None:
                yield curve


def _provenance(record: CellRecord, *, several: bool) -> Provenance:
    facts = {
        "network": f"{record.network.kind} ×{record.network.scale}, {record.network.parameters:,} parameters",
        "weights": record.network.name,
        "not computed": record.reason,
        "method": record.method if record.method != FLOAT else "",
        "calibrated on": record.calibration,
        "quantized": f"{record.coverage:.1%} of the multiply-adds" if record.coverage else "",
        "layers": ", ".join(f"{count} of {width}" for width, count in record.layer_bits.items()),
        "scored on": ", ".join(f"{scores.name} ({len(scores.images)})" for scores in record.data),
        "file": size(record.file_bytes) if record.file_bytes else "",
        "processor time": duration(record.process_seconds) if record.process_seconds else "",
        "peak memory": size(record.peak_memory) if record.peak_memory else "",
        "computed on": f"{record.processor or record.device}, {counted(record.threads, 'thread')}",
        "made with": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "commit": record.commit,
        "seed of the patches": str(record.seed) if record.method != FLOAT else "",
        "finished": record.finished,
        "warnings": " ".join(record.notes),
        "key": record.key,
    }
    title = f"{title_of(record)}, {network_title(record)}" if several else title_of(record)
    return Provenance(title, tuple((name, value) for name, value in facts.items() if value), flat(record.settings))
