"""Training curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from srquant.files import replacing
from srquant.settings import to_json
from srquant.training import Point


def write_curve(output: Path, curve: Sequence[Point]) -> None:
    """Draw loss and validation PSNR over the steps, ``.png``, and keep the numbers, ``.json``, beside ``output``.

    Raises:
        OutputError: A file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    steps = [point.step for point in curve]
    for place, (title, values) in enumerate(
        (("loss (L1)", [p.loss for p in curve]), ("validation PSNR (dB)", [p.psnr for p in curve])), start=1
    ):
        axes = figure.add_subplot(1, 2, place)
        axes.plot(steps, values)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    with replacing(output.with_suffix(".png")) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})
    with replacing(output.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps([to_json(point) for point in curve], indent=1) + "\n")
