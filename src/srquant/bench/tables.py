"""Tables of records: what each method loses, which is best, and what papers print beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from srquant.analysis.published import COSTS, PublishedRow, all_published
from srquant.bench.records import FLOAT, CellRecord, Runs
from srquant.bench.suites import Dialect, Suite, canonical
from srquant.support.settings import to_json

Which = Literal["same", "all", "none"]
"""Published rows beside ours: of the same methods, of all, or none."""
Better = Literal["higher", "lower"]
_PAPERS = {
    "minmax": "MinMax",
    "percentile": "Percentile",
    "mse": "MSE",
    "plq": "PLQ",
    "oaptq": "OAPTQ",
    "ptq4sr": "PTQ4SR",
    "adabm": "AdaBM",
    "dobi": "DOBI",
    "2dquant": "2DQuant",
    "pams": "PAMS",
    "daq": "DAQ",
    "ddtb": "DDTB",
    "odm": "ODM",
    FLOAT: FLOAT,
}
"""What papers call methods that are here."""
_SSIM = {"ssim": "SSIM", "ssim_adabm": "SSIM (AdaBM)"}
_USUAL = 3
"""Scores that every record has first: PSNR, and SSIM in both dialects."""
_MARKED = 2
"""Rows of one width, and different numbers among them, from which on the best are marked."""


@dataclass(frozen=True)
class Entry:
    """What stands in a place of a table.

    Args:
        text: As printed.
        value: The number, if it is one that is compared with those of other methods.
        place: 1 if it is the best of its group, 2 if the second best.
    """

    text: str = ""
    value: float | None = None
    place: int = 0


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        title: Above it.
        better: Which numbers are better, if they are compared.
    """

    title: str
    better: Better | None = None


@dataclass(frozen=True)
class Row:
    """A row.

    Args:
        entries: One a column.
        group: Rows of one group, of one width of codes, are compared.
        ours: Whether it was measured here; only such rows are marked.
    """

    entries: tuple[Entry, ...]
    group: str = ""
    ours: bool = True


@dataclass(frozen=True)
class Table:
    """A table of one network.

    Args:
        title: The network.
        notes: What holds for all rows, a line each.
        columns: Their titles.
        rows: In order.
        below: What could not be computed, a line each.
    """

    title: str
    notes: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    below: tuple[str, ...] = ()

    def marked(self) -> Table:
        """The same, with the best and second best of each group; what is equal as printed is equally good."""
        rows = list(self.rows)
        for group in dict.fromkeys(row.group for row in rows):
            own = [number for number, row in enumerate(rows) if row.group == group and row.ours]
            for place, column in enumerate(self.columns):
                if column.better is not None and len(own) >= _MARKED:
                    rows = _mark(rows, own, place, column.better)
        return replace(self, rows=tuple(rows))


def _mark(rows: list[Row], own: list[int], column: int, better: Better) -> list[Row]:
    found = {number: rows[number].entries[column] for number in own}
    values = {entry.text: entry.value for entry in found.values() if entry.value is not None}
    if len(values) < _MARKED:
        return rows
    best = sorted(values, key=lambda text: values[text] or 0.0, reverse=better == "higher")
    for number, entry in found.items():
        if entry.value is not None and entry.text in best[:2]:
            entries = list(rows[number].entries)
            entries[column] = replace(entry, place=1 + best.index(entry.text))
            rows[number] = replace(rows[number], entries=tuple(entries))
    return rows


@dataclass(frozen=True)
class _Field:
    """A column that is made of a record."""

    title: str
    of: Callable[[CellRecord], str]


def _scope(record: CellRecord) -> str:
    """What ``auto`` came to: products of two activations are quantized in transformers alone."""
    if record.scope != "auto":
        return record.scope
    return "transformer" if any(width.startswith("A") for width in record.layer_bits) else "all"


_FIELDS = (
    _Field("weights", lambda record: record.granularity.replace("_", " ")),
    _Field("edges", lambda record: record.edges),
    _Field("scope", _scope),
)
"""Which stand above the table where they are the same for all rows."""


def tables(
    runs: Runs, suite: Suite | None = None, dialect: Dialect | None = None, published: Which = "same"
) -> list[Table]:
    """A table for each network, with the best and second best marked.

    Args:
        runs: The records.
        suite: Only what belongs to this table of a paper, in its order, with all that it prints.
        dialect: Of SSIM; the suite's, or BasicSR's, if None.
        published: Which published rows stand beside ours.
    """
    dialect = dialect or (suite.dialect if suite else "ssim")
    make = _cost_table if suite is not None and suite.costs else _score_table
    return [make(group, suite, dialect, "all" if suite else published).marked() for group in grouped(runs, suite)]


def grouped(runs: Iterable[CellRecord], suite: Suite | None = None) -> list[list[CellRecord]]:
    """The records of each network on the same data; only those of a suite, under its titles and in its order."""
    groups: dict[tuple[str, str, str], list[CellRecord]] = {}
    for record in runs:
        key = record.network.name, record.network.digest, record.identity.get("data", "")
        groups.setdefault(key, []).append(record)
    return [own for group in groups.values() if (own := group if suite is None else belonging(group, suite))]


def belonging(records: Sequence[CellRecord], suite: Suite) -> list[CellRecord]:
    """The records of a suite, under its titles and in its order; those of float networks first.

    They are known by their configuration, or by their title and protocol where some other field was set.
    """
    network = records[0].network
    if (network.published, network.scale) not in suite.networks:
        return []
    titles = list(suite.rows)
    configured = [(title, to_json(method)) for title, method in suite.methods()[0]]
    own: list[CellRecord] = []
    for record in records:
        same = [title for title, settings in configured if settings == record.settings]
        if same or (record.title in titles and record.edges == suite.edges):
            own.append(replace(record, title=same[0] if same else record.title))
    own.sort(key=lambda record: (_width_of(record, suite), titles.index(record.title)))
    return [*(record for record in records if record.method == FLOAT), *own] if own else []


def _width_of(record: CellRecord, suite: Suite) -> int:
    widths = [f"W{weights}A{activations}" for weights, activations in suite.bits]
    return widths.index(record.bits) if record.bits in widths else len(widths)


def _score_table(records: Sequence[CellRecord], suite: Suite | None, dialect: Dialect, published: Which) -> Table:
    done = [record for record in records if record.done]
    sets = list(dict.fromkeys(scores.name for record in done for scores in record.data))
    quantized = [record for record in done if record.method != FLOAT]
    kept = [field for field in _FIELDS if len({field.of(record) for record in quantized}) > 1]
    adaptive = any(scores.fab is not None for record in done for scores in record.data)
    columns = [Column("method"), Column("bits"), *(Column(field.title) for field in kept), Column("quantized")]
    columns += [Column("FAB", None)] if adaptive else []
    further = list(dict.fromkeys(name for record in done for each in record.data for name in each.scores))[_USUAL:]
    for name in sets:
        columns += [Column(f"{name} PSNR", "higher"), Column("loss (worst)"), Column(_SSIM[dialect], "higher")]
        columns += [Column(score.upper(), "lower") for score in further]
    columns += [Column("seconds"), Column("bytes")]
    rows = [_score_row(record, kept, sets, (dialect, *further), adaptive=adaptive) for record in done]
    beside = _published(records, suite, published, sets)
    if beside:
        columns.append(Column("source"))
        rows = [replace(row, entries=(*row.entries, Entry("measured here"))) for row in rows]
        rows += [_published_row(row, beside, len(kept), sets, len(further), adaptive=adaptive) for row in beside]
    order = list(dict.fromkeys(row.group for row in rows))
    rows.sort(key=lambda row: order.index(row.group))
    constant = [field for field in _FIELDS if field not in kept]
    notes = _notes(records, [f"{field.title} {field.of(quantized[0])}" for field in constant] if quantized else [])
    below = [f"{record.title} {record.bits}: not computed: {record.reason}" for record in records if not record.done]
    return Table(_title(records[0]), tuple(notes), tuple(columns), tuple(rows), tuple(below))


def _score_row(
    record: CellRecord, kept: Sequence[_Field], sets: Sequence[str], scored: Sequence[str], *, adaptive: bool
) -> Row:
    is_float = record.method == FLOAT
    entries = [Entry(record.title), Entry("" if is_float else record.bits), *(Entry(f.of(record)) for f in kept)]
    entries.append(Entry("" if is_float else f"{record.coverage:.1%}"))
    if adaptive:
        bits = [scores.fab for scores in record.data if scores.fab is not None]
        entries.append(Entry(f"{sum(bits) / len(bits):.2f}" if bits else ""))
    for name in sets:
        scores = record.on(name)
        if scores is None:
            entries += [Entry()] * (2 + len(scored))
            continue
        lost = "" if is_float else f"{scores.float_mean() - scores.mean():.2f} ({max(scores.losses()):.2f})"
        entries += [_number(scores.mean(), 2), Entry(lost)]
        entries += [_number(scores.mean(each), 4) if each in scores.scores else Entry() for each in scored]
    entries += [Entry("" if is_float else f"{record.process_seconds:.0f}"), Entry(f"{record.file_bytes:,}")]
    return Row(tuple(entries), record.bits, not is_float)


def _number(value: float, digits: int) -> Entry:
    return Entry(f"{value:.{digits}f}", value)


def _published(
    records: Sequence[CellRecord], suite: Suite | None, which: Which, sets: Sequence[str]
) -> list[PublishedRow]:
    """The rows of papers that stand beside records, and those of the float networks they are of."""
    network = records[0].network
    rows = [row for row in all_published() if (row.network, row.scale) == (network.published, network.scale)]
    wanted = {canonical(name) for name in sets}
    rows = [row for row in rows if wanted & row.scores.keys()]
    if suite is not None:
        return [row for row in rows if row.source == suite.source]
    if which == "none":
        return []
    widths = {record.bits for record in records if record.method != FLOAT}
    methods = {_PAPERS.get(record.method) for record in records}
    own = [row for row in rows if row.bits in widths and (which == "all" or row.method in methods)]
    sources = {row.source for row in own}
    order = list(dict.fromkeys(row.method for row in own if row.method not in methods))
    order = [*dict.fromkeys(_PAPERS.get(record.method) for record in records), *order]
    own.sort(key=lambda row: order.index(row.method))
    return [*(row for row in rows if row.method == FLOAT and row.source in sources), *own]


def _published_row(
    row: PublishedRow, beside: Iterable[PublishedRow], kept: int, sets: Sequence[str], further: int, *, adaptive: bool
) -> Row:
    before = next((each for each in beside if each.source == row.source and each.method == FLOAT), None)
    is_float = row.method == FLOAT
    entries = [Entry(row.method), Entry("" if is_float else row.bits), *([Entry()] * kept), Entry()]
    entries += [Entry()] if adaptive else []
    for name in map(canonical, sets):
        score = row.scores.get(name)
        if score is None:
            entries += [Entry()] * (3 + further)
            continue
        known = before is not None and not is_float and name in before.scores
        lost = f"{before.scores[name][0] - score[0]:.2f}" if known and before is not None else ""
        entries += [Entry(f"{score[0]:.2f}"), Entry(lost), Entry("" if score[1] is None else f"{score[1]:.4g}")]
        entries += [Entry()] * further
    source = f"{row.source} ({row.note})" if row.note else row.source
    return Row((*entries, Entry(), Entry(), Entry(source)), row.bits, ours=False)  # neither seconds nor bytes


def _cost_table(records: Sequence[CellRecord], suite: Suite | None, dialect: Dialect, published: Which) -> Table:
    assert suite is not None
    titles = ("seconds", "latency (ms)", "K of 32 bits", "bytes of the file", "MiB at most")
    columns = [Column("method"), Column("bits"), *(Column(title, "lower") for title in titles), Column("source")]
    rows: list[Row] = []
    for record in records:
        if record.done:
            memory = record.peak_memory / 2**20
            numbers = [
                _number(record.process_seconds, 0) if record.method != FLOAT else Entry(),
                _number(record.latency, 0),
                _number(record.stored_bits / 32_000, 1),
                Entry(f"{record.file_bytes:,}", record.file_bytes),
                Entry(f"{memory:,.0f}", memory),
            ]
            bits = Entry("" if record.method == FLOAT else record.bits)
            entries = (Entry(record.title), bits, *numbers, Entry("measured here"))
            rows.append(Row(entries, record.bits, record.method != FLOAT))
    for cost in COSTS:
        numbers = (Entry(f"{cost.process_seconds:.0f}"), Entry(f"{cost.latency:.0f}"), Entry(), Entry(), Entry())
        source = f"{suite.source}, on an RTX 2080 Ti"
        rows.append(Row((Entry(cost.method), Entry("W4A4"), *numbers, Entry(source)), "W4A4", ours=False))
    below = [f"{record.title} {record.bits}: not computed: {record.reason}" for record in records if not record.done]
    notes = [*_notes(records, []), "seconds of quantizing, all threads together; latency of an LR image of 96×96"]
    return Table(_title(records[0]), tuple(notes), tuple(columns), tuple(rows), tuple(below))


def _title(record: CellRecord) -> str:
    network = record.network
    published = f" ({network.published}, of another training than the papers')" if network.published else ""
    return f"{network.name} ×{network.scale}{published}"


def _notes(records: Sequence[CellRecord], constant: Sequence[str]) -> list[str]:
    """What holds for all rows."""
    patches = dict.fromkeys(record.calibration for record in records if record.calibration)
    where = dict.fromkeys(f"{record.processor or record.device}, {_threads(record)}" for record in records)
    made = dict.fromkeys(scores.name for record in records for scores in record.data if scores.low_is_made)
    tiled = dict.fromkeys(
        f"{scores.name} in tiles of {scores.scored['tile']}"
        for record in records
        for scores in record.data
        if "tile" in scores.scored
    )
    notes = ["; ".join([*constant, *(f"calibrated on {each}" for each in patches)])] if patches else []
    notes += [f"LR of {', '.join(made)} made by MATLAB's bicubic"] if made else []
    return [*notes, *tiled, *where]


def _threads(record: CellRecord) -> str:
    return f"{record.threads} {'thread' if record.threads == 1 else 'threads'}"
