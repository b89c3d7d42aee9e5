"""The steps that methods are made of: observe ranges, build quantized layers, finish the model."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from srquant.images.calibration import Calibration
from srquant.methods.base import Method, WeightSettings
from srquant.methods.plan import Plan
from srquant.model import Model
from srquant.model.layer import LearnableWeight, QuantLayer, finished
from srquant.model.multiplications import Kind, Multiplication, by_channel, flat, product_of
from srquant.model.observing import observe, require_finite, to_network
from srquant.model.record import Epoch, Record
from srquant.model.swapping import swap
from srquant.quantizers import Quantizer, Symmetric, Uniform
from srquant.quantizers.numerics.integers import Grid
from srquant.quantizers.numerics.sorted_values import thin
from srquant.quantizers.ranges import Bounds, BoundSearch, Extremes, LeastSquares, OfChannels, Quantiles, Range
from srquant.support.errors import ArgumentError
from srquant.support.progress import track
from srquant.support.settings import to_json
from srquant.support.tensors import vector_norm
from srquant.support.watching import hooks


class RangeOf(Protocol):
    """The rule for the activation range of a target."""

    def __call__(self, bits: int, /) -> Range:
        """The range for a bit width."""
        ...


_FEW = 4
"""Patches on which a network's handling of its image is looked at."""
_ROUNDING = 1e-5
"""In images of [0, 1]; the bytes of an image are 1/255 apart."""

Observed = dict[tuple[str, int], dict[str, Tensor]]
"""Bounds, shape ``()``, of each operand: point name and 0 (left) or 1 (right)."""


def observe_ranges(
    plan: Plan,
    calibration: Calibration,
    method: Method,
    range_of: RangeOf,
    outputs: Callable[[str, Tensor], None] | None = None,
) -> Observed:
    """Run the calibration patches through the float network once, measure a range in every batch, and average.

    The first batch counts in full; later ones enter a moving average. Memory does not grow with the patches.

    Args:
        plan: The network and its targets.
        calibration: LR patches.
        method: Says how batches are averaged.
        range_of: The range to measure.
        outputs: Called with the name and the output of every target, batch by batch.
    """
    settings = method.observation
    ranges = {target.point.name: range_of(target.activation_bits) for target in plan.targets}
    kinds: dict[str, Kind] = {target.point.name: target.point.kind for target in plan.targets}
    averages: Observed = {}

    def look(name: str, place: int, operand: Tensor) -> None:
        rows = by_channel(operand, kinds[name]) if isinstance(ranges[name], OfChannels) else flat(operand)
        measured = {bound: value[0] for bound, value in ranges[name](rows).items()}
        require_finite(name, measured.values())
        old = averages.get((name, place), measured)
        averages[name, place] = {
            bound: torch.lerp(value, old[bound], settings.momentum) for bound, value in measured.items()
        }

    batches = track(calibration.batches(settings.batch), "Calibrating", -(-len(calibration) // settings.batch))
    observe(plan.network, plan.names, batches, look, outputs)
    return averages


def image_offsets(plan: Plan, calibration: Calibration) -> dict[str, Tensor]:
    """What is added to each channel of the image before a first convolution, where its input is otherwise the image.

    Args:
        plan: The network and its targets.
        calibration: Four patches of it are looked at.

    Returns:
        By the target's name, ``3 1 1``, in the network's value range.
    """
    network = plan.network
    images = to_network(network, calibration.batch(range(min(_FEW, len(calibration)))))
    offsets: dict[str, Tensor] = {}

    def look(name: str, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        if operands[0].shape == images.shape:
            added = operands[0] - images
            offset = added.mean((0, 2, 3))[:, None, None]
            if bool((added - offset).abs().max() <= _ROUNDING * network.value_range):
                offsets[name] = offset

    first = [target.point.name for target in plan.targets if target.point.role == "first"]
    with hooks(network, {name: partial(look, name) for name in first}), torch.no_grad():
        network(images)
    return offsets


class OutputSizes:
    """How large and how varied each target's output is; :func:`observe_ranges` calls it batch by batch."""

    def __init__(self) -> None:
        self._deviations: dict[str, float] = {}
        self._squares: dict[str, float] = {}
        self._images: dict[str, int] = {}

    def __call__(self, name: str, output: Tensor) -> None:
        axes = tuple(range(1, output.ndim))
        square = vector_norm(output, axes).square() / output[0].numel()
        deviation = (square - output.mean(dim=axes).square()).clamp(min=0).sqrt()
        # Window attention cuts one image into many rows; every row then counts as an image.
        self._deviations[name] = self._deviations.get(name, 0.0) + float(deviation.sum())
        self._squares[name] = self._squares.get(name, 0.0) + float(square.sum())
        self._images[name] = self._images.get(name, 0) + len(output)

    def deviations(self) -> dict[str, float]:
        """Mean over images of the standard deviation of each output, in the order in which the targets ran."""
        return {name: total / self._images[name] for name, total in self._deviations.items()}

    def root_mean_square(self, name: str) -> float:
        """Of one output, over all images."""
        return math.sqrt(self._squares[name] / self._images[name])


class RangeOfOperand(Protocol):
    """The rule for the range of an operand, which may depend on what the operand is."""

    def __call__(self, bits: int, origin: str, /) -> Range:
        """The range for a bit width and the operator whose output the operand is (``Point.origins``)."""
        ...


def observe_at_once(
    plan: Plan, calibration: Calibration, batch: int, range_of: RangeOfOperand, samples: int = 1 << 17
) -> Observed:
    """Run the calibration patches through the float network once, and measure each range on the values of all patches.

    The patches pass in batches. Of each batch both extremes of an operand and an even sample of its values are kept
    (all values, if all patches together have few), so that memory depends on the network, not on the patches: at most
    eleven times ``samples`` values for each operand, and less than twice where there are many to choose from.

    Args:
        plan: The network and its targets.
        calibration: LR patches.
        batch: How many pass together.
        range_of: The range to measure.
        samples: Values of an operand that are enough.
    """
    pieces: dict[tuple[str, int], list[Tensor]] = {}
    part = 0

    def look(name: str, place: int, operand: Tensor) -> None:
        row = flat(operand)
        extremes = list(Extremes()(row).values())
        require_finite(name, extremes)
        kept = thin(row, max(samples * part // len(calibration), 1))
        ends = extremes if kept.shape[1] < row.shape[1] else []
        pieces.setdefault((name, place), []).append(torch.cat((kept[0], *ends)))

    def batches() -> Iterator[Tensor]:
        nonlocal part
        for images in calibration.batches(batch):
            part = len(images)
            yield images

    observe(plan.network, plan.names, track(batches(), "Calibrating", -(-len(calibration) // batch)), look)
    observed: Observed = {}
    for target in plan.targets:
        for place, origin in enumerate(target.point.origins):
            rows = torch.cat(pieces.pop((target.point.name, place)))[None]
            bounds = range_of(target.activation_bits, origin)(rows)
            observed[target.point.name, place] = {name: value[0] for name, value in bounds.items()}
    return observed


def weight_quantizer(weight: Tensor, bits: int, settings: WeightSettings, grid: Grid = "free") -> Quantizer:
    """The quantizer of a weight, its bounds found on the weight itself."""
    rows = weight.detach().flatten(1) if settings.per_channel else weight.detach().reshape(1, -1)
    bounds: Bounds
    if settings.range == "least_squares":
        bounds = LeastSquares(bits, settings.symmetric)(rows)
    elif settings.range == "bound_search":  # of mirrored values both ends stay mirrored
        bounds = BoundSearch(bits)(torch.cat((rows, -rows), 1) if settings.symmetric else rows)
    elif settings.range == "quantiles":
        bounds = Quantiles()(rows.abs() if settings.symmetric else rows)
    else:
        bounds = Extremes()(rows.abs() if settings.symmetric else rows)
    shaped = {name: value if settings.per_channel else value[0] for name, value in bounds.items()}
    if settings.symmetric:
        return Symmetric(bits, shaped["upper"], grid)
    return Uniform(bits, **shaped, grid=grid)


class QuantizerOf(Protocol):
    """Makes an activation quantizer."""

    def __call__(self, bits: int, bounds: Mapping[str, Tensor], /) -> Quantizer:
        """The quantizer of a bit width and bounds."""
        ...


def build_layers(plan: Plan, observed: Observed, method: Method, quantizer_of: QuantizerOf) -> dict[str, QuantLayer]:
    """A quantized layer, its weight still float inside, for every target.

    Raises:
        ArgumentError: The method's grid is int8, and its quantizers do not lie on integers.
    """
    layers: dict[str, QuantLayer] = {}
    for target in plan.targets:
        name = target.point.name
        module = cast(Multiplication, plan.network.get_submodule(name))
        left = quantizer_of(target.activation_bits, observed[name, 0])
        if isinstance(module, nn.Conv2d | nn.Linear):
            weights = weight_quantizer(module.weight, target.weight_bits, method.weights, method.grid)
            layers[name] = QuantLayer(product_of(module), left, LearnableWeight(module.weight, weights), module.bias)
        else:
            right = quantizer_of(target.activation_bits, observed[name, 1])
            layers[name] = QuantLayer(product_of(module), left, right, None)
    if method.grid == "int8":
        for name, layer in layers.items():
            for quantizer in layer.quantizers().values():
                if quantizer.integer_grid() is None:
                    raise ArgumentError(
                        f"grid=int8: {name} gets a {quantizer.name} quantizer from {method.name}, which is not on "
                        f"integers; use grid=free, or another method"
                    )
    return layers


def finish(
    model: Model,
    plan: Plan,
    layers: Mapping[str, QuantLayer],
    method: Method,
    calibration: Calibration,
    curve: Sequence[Epoch] = (),
) -> Model:
    """The quantized model: weights as codes, bounds fixed, provenance written down.

    Args:
        model: The float model.
        plan: What was quantized.
        layers: The quantized points.
        method: Whose configuration is written down.
        calibration: Described in the record.
        curve: The epochs of finetuning, if there was any.
    """
    network = swap(plan.network, {name: finished(layer) for name, layer in layers.items()})
    record = Record(
        method=method.name,
        settings=cast(dict[str, Any], to_json(method)),
        calibration=calibration.describe(),
        source=model.source,
        multiply_adds=plan.survey.multiply_adds,
        share=plan.share,
        kept=plan.kept,
        folds=plan.folds,
        versions=_versions(),
        curve=tuple(to_json(epoch) for epoch in curve),
    )
    return Model(network, model.source, record)


def _versions() -> dict[str, str]:
    try:
        own = version("srquant")
    except PackageNotFoundError:
        own = "not installed"
    return {"srquant": own, "torch": torch.__version__, "python": platform.python_version()}
