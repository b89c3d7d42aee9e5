"""Figures of the analyses, each with its numbers beside it as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from srquant.analysis import BoundPercentiles, Clipped, Distribution, Sensitivity
from srquant.analysis.pictures import Panel, side_by_side
from srquant.images.picture import Layout, Picture
from srquant.images.writing import write_picture
from srquant.support.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Window = tuple[int, int, int]
"""Top, left and size of a crop, in HR pixels."""

_FLOAT, _DENSE, _OUTLIER = "#444444", "#3b6fb6", "#c8502d"
_SHOWN_LAYERS, _SHOWN_SAMPLES = 16, 3
_MARKERS = "ov^sDPX*"


def draw_sensitivity(output: Path, result: Sensitivity, *, ordered: bool = False) -> None:
    """Bars of PSNR with one layer at a time quantized, ``.png``, and the numbers, ``.csv``.

    Args:
        output: The picture.
        result: From :func:`srquant.analysis.sensitivity`.
        ordered: The layer that costs most first, instead of the network's order.

    Raises:
        OutputError: A file cannot be written.
    """
    from matplotlib.figure import Figure

    names = result.most_sensitive() if ordered else list(result.layers)
    drops = [result.float_psnr - result.layers[name] for name in names]
    figure = Figure(figsize=(max(6.0, 0.22 * len(names)), 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(len(names)), drops, color=_OUTLIER)
    _name_columns(axes, names, 7)
    axes.set_ylabel("loss of PSNR (dB)")
    axes.set_title(
        f"one layer quantized at a time; float {result.float_psnr:.2f} dB, all layers {result.all_psnr:.2f} dB "
        f"({result.images} images)",
        fontsize=9,
    )
    save_figure(figure, output)
    rows = [(name, f"{result.layers[name]:.4f}", f"{drop:.4f}") for name, drop in zip(names, drops, strict=True)]
    write_csv(output, ("layer", "psnr", "loss"), rows)


def draw_distributions(output: Path, rows: Sequence[Distribution]) -> None:
    """Histograms of up to sixteen layers over their breakpoints, skewness and range of all layers, ``.png``; ``.csv``.

    Args:
        output: The picture.
        rows: From :func:`srquant.analysis.distributions`.

    Raises:
        OutputError: A file cannot be written.
    """
    from matplotlib.figure import Figure

    layers = list(dict.fromkeys(row.layer for row in rows))
    by_layer = {layer: [row for row in rows if row.layer == layer] for layer in layers}
    breakpoints = {layer: float(np.mean([row.breakpoint for row in own])) for layer, own in by_layer.items()}
    count = min(_SHOWN_LAYERS, len(layers))
    shown = [layers[number * (len(layers) - 1) // max(count - 1, 1)] for number in range(count)]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.1 * lines + 4.2), layout="constrained")
    upper, lower = cast("list[SubFigure]", figure.subfigures(2, 1, height_ratios=(2.1 * lines, 4.2)))
    for number, layer in enumerate(shown):
        axes = upper.add_subplot(lines, columns, number + 1)
        for row in by_layer[layer][:_SHOWN_SAMPLES]:
            edges = np.linspace(row.lower, row.upper, len(row.counts) + 1)
            axes.stairs(np.maximum(row.counts, 0.5), edges, color=_DENSE, alpha=0.6)
        for bound in (-breakpoints[layer], breakpoints[layer]):
            if by_layer[layer][0].lower <= bound <= by_layer[layer][0].upper:
                axes.axvline(bound, color=_OUTLIER, linestyle="--", linewidth=1)
        axes.set_yscale("log")
        axes.set_title(layer, fontsize=8 if len(layer) < 32 else 6)
        axes.tick_params(labelsize=7)
    upper.suptitle(f"operands of layers, {_SHOWN_SAMPLES} samples; dashed: breakpoint", fontsize=9)
    for number, title in enumerate(("range", "skewness"), start=1):
        axes = lower.add_subplot(2, 1, number)
        for column, layer in enumerate(layers):
            for row in by_layer[layer]:
                values = [row.lower, row.upper] if title == "range" else [row.skewness]
                marker = None if title == "range" else "_"
                axes.plot([column] * len(values), values, color=_DENSE, alpha=0.5, linewidth=1.5, marker=marker)
            if title == "range":
                axes.plot([column] * 2, [-breakpoints[layer], breakpoints[layer]], "_", color=_OUTLIER)
        axes.set_ylabel(title, fontsize=8)
        _name_columns(axes, layers if number == 2 else [""] * len(layers), 5)
    save_figure(figure, output)
    header = ("layer", "sample", "lower", "upper", "mean", "deviation", "skewness", "breakpoint")
    write_csv(output, header, [[getattr(row, name) for name in header] for row in rows])


def draw_bounds(output: Path, rows: Sequence[BoundPercentiles]) -> None:
    """How much each model's bounds cut off each tensor, above and below, ``.png``; the percentiles, ``.csv``.

    Args:
        output: The picture.
        rows: From :func:`srquant.analysis.bound_percentiles`.

    Raises:
        OutputError: A file cannot be written.
    """
    from matplotlib.figure import Figure

    kinds = [kind for kind in ("activation", "weight") if any(row.kind == kind for row in rows)]
    tensors = {kind: list(dict.fromkeys(row.tensor for row in rows if row.kind == kind)) for kind in kinds}
    width = max(7.0, 0.12 * max(len(names) for names in tensors.values()))
    figure = Figure(figsize=(width, 3.6 * len(kinds)), layout="constrained")
    for number, kind in enumerate(kinds, start=1):
        axes = figure.add_subplot(len(kinds), 1, number)
        columns = {name: column for column, name in enumerate(tensors[kind])}
        for model_number, model in enumerate(dict.fromkeys(row.model for row in rows)):
            own = [row for row in rows if row.model == model and row.kind == kind]
            marks = axes.plot(
                2 * [columns[row.tensor] for row in own],
                [*(row.above for row in own), *(-row.below for row in own)],
                linestyle="",
                marker=_MARKERS[model_number % len(_MARKERS)],
                markersize=3,
            )
            marks[0].set_label(model)
        axes.axhline(0, color=_FLOAT, linewidth=0.8)
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set_ylabel("% below · % above", fontsize=8)
        axes.set_title(f"values of {kind}s beyond the bounds", fontsize=9)
        _name_columns(axes, list(columns), 4)
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(figure, output)
    header = ("model", "tensor", "kind", "bits", "lower", "upper", "lower_percentile", "upper_percentile")
    table = [(*(getattr(row, name) for name in header[:6]), row.below, 100 - row.above) for row in rows]
    write_csv(output, header, table)


def draw_outliers(
    output: Path, high: NDArray[np.uint8], results: Sequence[Clipped], window: Window, zoom: int = 2
) -> None:
    """Crops of a picture with more and more outliers clipped, ``.png``, and the numbers, ``.csv``.

    Args:
        output: The picture.
        high: The HR image, uint8 ``h w 3``.
        results: From :func:`srquant.analysis.clip_outliers`.
        window: What is shown.
        zoom: Screen pixels for each pixel.

    Raises:
        OutputError: A file cannot be written.
    """
    panels = [Panel(_cut(high, window), ("original",))]
    for row in results:
        title = f"{100 * row.share:g} % clipped" if row.share else "float"
        panels.append(Panel(_cut(row.pixels, window), (title, f"{row.psnr:.2f} dB", f"colours {row.shift:.1f} off")))
    write_picture(output, Picture(side_by_side(panels, zoom), Layout()))
    write_csv(output, ("share", "psnr", "delta_e"), [(r.share, f"{r.psnr:.4f}", f"{r.shift:.4f}") for r in results])


def draw_comparison(
    output: Path,
    high: NDArray[np.uint8],
    results: Sequence[tuple[str, NDArray[np.uint8], float]],
    window: Window,
    zoom: int = 2,
) -> None:
    """One crop of several models' outputs side by side, labelled with the PSNR of the whole picture.

    Args:
        output: The picture.
        high: The HR image, uint8 ``h w 3``.
        results: Title, output and PSNR in dB of each model.
        window: What is shown.
        zoom: Screen pixels for each pixel.

    Raises:
        OutputError: The file cannot be written.
    """
    panels = [Panel(_cut(high, window), ("original",))]
    panels += [Panel(_cut(pixels, window), (title, f"{score:.2f} dB")) for title, pixels, score in results]
    write_picture(output, Picture(side_by_side(panels, zoom), Layout()))


def _cut(pixels: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
    top, left, size = window
    return pixels[top : top + size, left : left + size]


def _name_columns(axes: Axes, names: Sequence[str], size: int) -> None:
    """Write a name under each column, and draw lines to compare them by."""
    axes.set_xlim(-1, len(names))
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(axis="y", alpha=0.3)


def save_figure(figure: Figure, output: Path, dpi: int = 150) -> None:
    """Write a figure, all or nothing."""
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={"Software": None})


def write_csv(output: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write the numbers of a figure beside it, ``.csv``, all or nothing."""
    with replacing(output.with_suffix(".csv")) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
