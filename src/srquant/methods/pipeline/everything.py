"""Learning everything at once: levels, bounds, weights and biases, each in steps of its own size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from srquant.learning.stages import Group, Stage
from srquant.methods.base import Factor
from srquant.model.layer import LearnableWeight, QuantLayer
from srquant.quantizers import Quantizer
from srquant.support.settings import Checked

_FEW = 4
"""Bits; with more, each level hardly matters."""
_FINE = 0.2
"""Factor on the rate of weights of more bits."""


@dataclass(frozen=True)
class Rates(Checked):
    """Factors on the learning rate; 0 leaves alone."""

    bounds: Factor = 1.0
    """Of bounds and levels, whose steps are relative."""
    weights: Factor = 3.0
    """Of weights, in units of their mean magnitude in the layer."""
    biases: Factor = 0.01
    """Of biases, in units of the root mean square of the layer's output. GPTQ has set them; steps as large as those of
    weights would shake the picture's brightness."""


def everything(layers: Mapping[str, QuantLayer], output_sizes: Mapping[str, float], rates: Rates) -> tuple[Stage, ...]:
    """One stage that learns all there is to learn; none where that is nothing.

    Args:
        layers: The quantized layers.
        output_sizes: Root mean squares of their outputs.
        rates: Factors.
    """
    bounds: dict[str, nn.Parameter] = {}
    groups: list[Group] = []
    for name, layer in layers.items():
        for operand, quantizer in layer.quantizers().items():
            if quantizer.bits <= _FEW:
                bounds |= {f"{name}.{operand}.{bound}": value for bound, value in _learned(quantizer).items()}
        right = layer.right
        if isinstance(right, LearnableWeight) and rates.weights:
            size = float(right.weight.detach().abs().mean()) * (1.0 if right.quantizer.bits <= _FEW else _FINE)
            groups.append(Group({f"{name}.right.weight": right.weight}, factor=rates.weights * size))
        if layer.bias is not None and rates.biases:
            groups.append(Group({f"{name}.bias": layer.bias}, factor=rates.biases * output_sizes[name]))
    if bounds and rates.bounds:
        groups.append(Group(bounds, relative=True, factor=rates.bounds))
    return (Stage("all", tuple(groups)),) if groups else ()


def _learned(quantizer: Quantizer) -> dict[str, nn.Parameter]:
    return {bound: value for bound, value in quantizer.named_parameters() if bound != quantizer.apart}
