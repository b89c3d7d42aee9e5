"""What a page shows of the layers of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from srquant.analysis import Distribution, distributions, sensitivity
from srquant.images.calibration import SMALLEST_PATCH, Calibration
from srquant.images.pairs import Pair
from srquant.images.reading import read_size
from srquant.model import Model
from srquant.model.record import LayerLosses, Record
from srquant.pages.contents import Curve, LayerRow, Layers
from srquant.pages.wording import difference
from srquant.support.errors import ArgumentError

_BINS = 48
_PATCHES, _PATCH = 4, 48
"""Of which every value of each layer's input is counted, and their height and width at most."""


@dataclass(frozen=True)
class Seen:
    """The input of a layer in the float network, over all samples."""

    lower: float
    upper: float
    counts: tuple[int, ...]


def layers_of(
    title: str, model: Model, losses: Mapping[str, float] | None = None, seen: Mapping[str, Seen] | None = None
) -> Layers:
    """The layers of a quantized model: bits, ranges, and what was measured of them.

    Args:
        title: Of the model.
        model: Quantized.
        losses: PSNR in dB lost with one layer alone quantized, by layer.
        seen: Inputs in the float network, by layer.
    """
    rows: list[LayerRow] = []
    for layer in model.layers():
        knots = layer.left.knots().detach()
        bits = f"W{layer.right.bits}A{layer.left.bits}" if layer.weights else f"A{layer.left.bits}"
        ends = float(knots[..., 0].min()), float(knots[..., -1].max())
        own = (seen or {}).get(layer.name)
        extremes = None if own is None else (own.lower, own.upper)
        loss = (losses or {}).get(layer.name)
        rows.append(LayerRow(layer.name, bits, *ends, loss, extremes, () if own is None else own.counts))
    return Layers(title, tuple(rows), worst_layers(None if model.record is None else model.record.losses))


def worst_layers(losses: LayerLosses | None) -> str:
    """The layers that lose most, in a sentence; empty if that was not measured."""
    if losses is None or not losses.worst:
        return ""
    names = ", ".join(f"{loss.name} ({loss.alone:.1f} dB)" for loss in losses.worst)
    return (
        f"Quantized alone, these of {losses.layers} layers move the output furthest from the float network's: {names}; "
        f"all together: {losses.together:.1f} dB."
    )


def measured_losses(model: Model, quantized: Model, pairs: Sequence[Pair]) -> dict[str, float]:
    """PSNR in dB that is lost with one layer alone quantized, weights and activations, by layer.

    Raises:
        ArgumentError: ``quantized`` was not made of ``model``.
    """
    found = sensitivity(model, quantized, pairs, weights=True)
    losses = {name: difference(found.float_psnr, psnr) for name, psnr in found.layers.items()}
    return {name: loss for name, loss in losses.items() if loss is not None}


def measured_inputs(model: Model, images: Sequence[Path], shrink: int) -> dict[str, Seen]:
    """How the inputs of all layers of a float network are distributed on patches of pictures.

    Args:
        model: A float model.
        images: LR images, or photographs.
        shrink: 1 for LR images; the scale for photographs, from which they are made.

    Raises:
        ArgumentError: An LR image is smaller than 16 pixels.
    """
    sizes = tuple((height // shrink, width // shrink) for height, width in map(read_size, images))
    size = min(_PATCH, *(length for lengths in sizes for length in lengths))
    if size < SMALLEST_PATCH:
        raise ArgumentError(f"layers are looked at on LR images of at least 16x16 pixels; the smallest has {size}")
    count = max(_PATCHES, len(images))
    patches = Calibration(tuple(images), sizes, count=count, size=size, seed=0, shrink=shrink, wanted=size)
    rows = distributions(model, patches, bins=_BINS)
    return {layer: _together([row for row in rows if row.layer == layer]) for layer in {row.layer: 0 for row in rows}}


def _together(rows: Sequence[Distribution]) -> Seen:
    """One histogram of several samples; a bin of a sample counts where its middle lies."""
    lower, upper = min(row.lower for row in rows), max(row.upper for row in rows)
    counts = [0] * _BINS
    width = (upper - lower) / _BINS or 1.0
    for row in rows:
        step = (row.upper - row.lower) / len(row.counts)
        for number, count in enumerate(row.counts):
            middle = row.lower + (number + 0.5) * step
            counts[min(int((middle - lower) / width), _BINS - 1)] += count
    return Seen(lower, upper, tuple(counts))


def curve_of(title: str, number: int, curve: Sequence[Mapping[str, object]] | Record) -> Curve | None:
    """How a model's losses fell; None if it learned nothing.

    Args:
        title: Of the model.
        number: Which colour.
        curve: A row an epoch, or a record that has them.
    """
    epochs = curve.curve if isinstance(curve, Record) else curve
    losses: list[dict[str, float]] = [epoch["losses"] for epoch in epochs]  # pyright: ignore[reportAssignmentType]
    names = list(dict.fromkeys(name for epoch in losses for name in epoch))
    if not names:
        return None
    return Curve(title, number, {name: tuple(epoch.get(name) for epoch in losses) for name in names})
