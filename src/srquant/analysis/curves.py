"""Curves of training and of finetuning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srquant.analysis.figures import save_figure, write_csv
from srquant.learning.trainer import CurveRow
from srquant.model.record import Record
from srquant.support.errors import ArgumentError
from srquant.support.files import replacing
from srquant.support.settings import to_json


def write_curve(output: Path, curve: Sequence[CurveRow]) -> None:
    """Draw loss and validation PSNR over the steps, ``.png``, and keep the numbers, ``.json``, beside ``output``.

    Raises:
        OutputError: A file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    steps = [row.step for row in curve]
    for column, (title, values) in enumerate(
        (("loss (L1)", [p.loss for p in curve]), ("validation PSNR (dB)", [p.psnr for p in curve])), start=1
    ):
        axes = figure.add_subplot(1, 2, column)
        axes.plot(steps, values)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    save_figure(figure, output.with_suffix(".png"), dpi=120)
    with replacing(output.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps([to_json(row) for row in curve], indent=1) + "\n")


def draw_learning(output: Path, records: Mapping[str, Record]) -> None:
    """Draw each part of the losses over the epochs of finetuning, ``.png``, and keep the numbers, ``.csv``.

    Args:
        output: The picture.
        records: Of models that learned, by the titles of their lines. A part that several methods call alike shares a
            panel; that it means the same in all of them is not checked.

    Raises:
        ArgumentError: A model did not learn.
        OutputError: A file cannot be written.
    """
    from matplotlib.figure import Figure

    rows: list[tuple[str, int, str, str, float]] = []
    for title, record in records.items():
        if not record.curve:
            raise ArgumentError(f"{title} was made by {record.method}, which learns nothing; leave it out")
        rows += [(title, *row) for epoch in record.curve for row in _losses(epoch)]
    parts = list(dict.fromkeys(row[3] for row in rows))
    figure = Figure(figsize=(4.5 * len(parts), 3.2), layout="constrained")
    for column, part in enumerate(parts, start=1):
        axes = figure.add_subplot(1, len(parts), column)
        for title in records:
            line = [(number, value) for model, number, _, name, value in rows if (model, name) == (title, part)]
            if line:
                axes.plot(*zip(*line, strict=True), marker=".", label=title)
        axes.set_title(part)
        axes.set_xlabel("epoch")
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    save_figure(figure, output, dpi=120)
    write_csv(output, ("model", "epoch", "stage", "part", "loss"), rows)


def _losses(epoch: Mapping[str, Any]) -> list[tuple[int, str, str, float]]:
    return [(epoch["number"], epoch["stage"], part, value) for part, value in epoch["losses"].items()]
