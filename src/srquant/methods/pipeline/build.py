"""Quantized layers: quantizers with the bounds that were found around a network's own products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from srquant.methods.base import Method, WeightSettings
from srquant.methods.pipeline.observe import Observed
from srquant.methods.pipeline.plan import Plan
from srquant.model.layer import FollowingWeight, LearnableWeight, QuantLayer
from srquant.quantizers import PerChannel, PerTensor, Quantizer, Symmetric, Uniform
from srquant.quantizers.numerics.integers import Grid
from srquant.quantizers.ranges import RANGES
from srquant.support.errors import ArgumentError


def weight_quantizer(weight: Tensor, bits: int, settings: WeightSettings, grid: Grid = "free") -> Quantizer:
    """The quantizer of a weight, its bounds found on the weight itself.

    Args:
        weight: Output channels first.
        bits: 2 to 8.
        settings: Which rule finds the bounds, and which values share them.
        grid: Where levels lie.
    """
    granularity = PerChannel() if settings.granularity == "per_channel" else PerTensor()
    rows = granularity.rows(weight.detach())
    bounds = RANGES.named(settings.range).of_weights(rows, bits, symmetric=settings.symmetric)
    lower, upper = (granularity.bounds(bounds[name]) for name in ("lower", "upper"))
    return Symmetric(bits, upper, grid) if settings.symmetric else Uniform(bits, lower, upper, grid)


QuantizerOf = Callable[[int, Mapping[str, Tensor]], Quantizer]
"""Makes an activation quantizer of a number of bits and bounds."""
WeightQuantizerOf = Callable[[int, Tensor], Quantizer]
"""Makes the quantizer of a weight of a number of bits and the weight, output channels first."""


@dataclass(frozen=True)
class Following:
    """How the bounds of weights that are trained follow them; see :class:`~srquant.model.layer.FollowingWeight`.

    Args:
        measure: The bounds of a weight of a number of bits, by the quantizer's names for them.
        straight: Whether gradients go straight through everywhere.
    """

    measure: Callable[[int, Tensor], Mapping[str, Tensor]]
    straight: bool = False


def build_layers(
    plan: Plan,
    observed: Observed,
    method: Method,
    quantizer_of: QuantizerOf,
    weight_quantizer_of: WeightQuantizerOf | None = None,
    following: Following | None = None,
) -> dict[str, QuantLayer]:
    """A quantized layer, its weight still float inside, for every target.

    Args:
        plan: The network and its targets.
        observed: Bounds of activations.
        method: Says where levels lie, and how weights are quantized.
        quantizer_of: Makes the quantizers of activations.
        weight_quantizer_of: Makes those of weights; None makes them as ``method.weights`` says.
        following: Weights will be trained, and their bounds follow them so; None leaves bounds as they are.

    Raises:
        ArgumentError: The method's grid is int8, and its quantizers do not lie on integers.
    """
    layers: dict[str, QuantLayer] = {}

    def of_weight(bits: int, weight: Tensor) -> Quantizer:
        if weight_quantizer_of is not None:
            return weight_quantizer_of(bits, weight)
        return weight_quantizer(weight, bits, method.weights, method.grid)

    for target in plan.targets:
        name = target.multiplication.name
        module, kind = plan.network.get_submodule(name), target.multiplication.kind
        left = quantizer_of(target.activation_bits, observed[name, "left"])
        weight = kind.weight_of(module)
        if weight is None:
            right = quantizer_of(target.activation_bits, observed[name, "right"])
        else:
            quantizer = of_weight(target.weight_bits, weight.detach())
            right = LearnableWeight(weight, quantizer)
            if following is not None:
                measure = partial(following.measure, target.weight_bits)
                right = FollowingWeight(weight, quantizer, measure, straight=following.straight)
        layers[name] = QuantLayer(kind.product_of(module), left, right, kind.bias_of(module))
    if method.grid == "int8":
        for name, layer in layers.items():
            for quantizer in layer.quantizers().values():
                if quantizer.integer_grid() is None:
                    raise ArgumentError(
                        f"grid=int8: {name} gets a {quantizer.name} quantizer from {method.name}, which is not on "
                        f"integers; use grid=free, or another method"
                    )
    return layers
