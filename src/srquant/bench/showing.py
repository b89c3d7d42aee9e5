"""Tables as text: Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from srquant.bench.records import CellRecord, DataScores, Runs, read_records
from srquant.bench.suites import Dialect, suite_named
from srquant.bench.tables import Entry, Table, Which, grouped, tables
from srquant.support.errors import ArgumentError
from srquant.support.settings import check

Format = Literal["markdown", "latex", "csv"]
_LATEX = {
    **{"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "−": "$-$", "…": r"\ldots{}"},
}


def show(
    runs: Runs | Path | str,
    format: Format = "markdown",
    *,
    suite: str | None = None,
    dialect: Dialect | None = None,
    published: Which = "same",
) -> str:
    """The records of a folder as tables, one for each network.

    PSNR in dB; losses are against each row's own float network, the worst picture's in brackets; the best number of
    each width is bold, the second best italic (underlined in LaTeX); published rows stand below with their sources.
    CSV has every number, unrounded, a row a record.

    Args:
        runs: The records, or the folder where they are.
        format: Of the text.
        suite: Only what belongs to this table of a paper, beside all that it prints.
        dialect: Of SSIM: ``ssim`` is BasicSR's, ``ssim_adabm`` AdaBM's; the suite's, or BasicSR's, if None.
        published: Published rows of the ``same`` methods, of ``all``, or ``none``.

    Raises:
        ArgumentError: The folder holds no records, or none of the suite.
    """
    check("format", format, Format)
    check("dialect", dialect, Dialect | None)
    check("published", published, Which)
    found = runs if isinstance(runs, Runs) else read_records(runs)
    chosen = None if suite is None else suite_named(suite)
    made = tables(found, chosen, dialect, published)
    if not made:
        raise ArgumentError(
            f"{found.folder} holds no records of {suite}; make them with: srquant bench run --suite {suite}"
        )
    if format == "csv":
        return to_csv(record for group in grouped(found, chosen) for record in group)
    return "\n".join(map(to_markdown if format == "markdown" else to_latex, made))


def to_markdown(table: Table) -> str:
    """A heading, what holds for all rows, and the table."""
    lines = [[column.title for column in table.columns], ["---"] * len(table.columns)]
    lines += [[_marked(entry, "**", "*") for entry in row.entries] for row in table.rows]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    above = [f"**{table.title}**", "", *(f"{note}." for note in table.notes), ""]
    below = ["", *(f"- {line}" for line in table.below)] if table.below else []
    return "\n".join([*above, *rows, *below]) + "\n"


def to_latex(table: Table) -> str:
    """A ``table`` for the package ``booktabs``."""
    lines = [
        r"\begin{table}",
        f"\\caption{{{_escaped(table.title)}. {_escaped('. '.join(table.notes))}.}}",
        f"\\begin{{tabular}}{{ll{'r' * (len(table.columns) - 2)}}}",
        r"\toprule",
        " & ".join(_escaped(column.title) for column in table.columns) + r" \\",
    ]
    group = None
    for row in table.rows:
        if row.group != group:
            lines.append(r"\midrule")
            group = row.group
        lines.append(" & ".join(map(_latex_entry, row.entries)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {line}" for line in table.below), r"\end{table}"]
    return "\n".join(lines) + "\n"


def to_csv(records: Iterable[CellRecord]) -> str:
    """Every number of every record, a row a record and data set."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        (
            *("network", "scale", "method", "title", "weight_bits", "activation_bits", "weights", "edges", "scope"),
            *("status", "reason", "quantized", "data", "images", "fab", "score", "mean", "float", "loss", "worst_loss"),
            *("process_seconds", "wall_seconds", "latency_ms", "peak_memory", "file_bytes", "stored_bits", "threads"),
            *("processor", "commit", "finished", "key"),
        )
    )
    for record in records:
        weights, _, activations = record.bits.removeprefix("W").partition("A")
        widths = (weights, activations) if activations else ("32", "32")
        own = (record.network.name, record.network.scale, record.method, record.title, *widths)
        own += (record.granularity, record.edges, record.scope, record.status, record.reason, record.coverage)
        cost = (record.process_seconds, record.wall_seconds, record.latency, record.peak_memory, record.file_bytes)
        cost += (record.stored_bits, record.threads, record.processor, record.commit, record.finished, record.key)
        scores = [_score_columns(each, score) for each in record.data for score in each.scores]
        for row in scores or [("",) * 8]:
            writer.writerow((*own, *row, *cost))
    return text.getvalue()


def _score_columns(data: DataScores, score: str) -> tuple[object, ...]:
    means = data.mean(score), data.float_mean(score)
    fab = "" if data.fab is None else data.fab
    return data.name, len(data.images), fab, score, *means, means[1] - means[0], max(data.losses(score))


def _marked(entry: Entry, best: str, second: str) -> str:
    mark = {1: best, 2: second}.get(entry.place, "")
    return f"{mark}{entry.text}{mark}"


def _latex_entry(entry: Entry) -> str:
    command = {1: r"\textbf", 2: r"\underline"}.get(entry.place)
    return f"{command}{{{_escaped(entry.text)}}}" if command else _escaped(entry.text)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
