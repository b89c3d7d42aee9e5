"""Which layers suffer from quantization: PSNR with one layer at a time quantized.

Source: OAPTQ §3.3, fig. 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from srquant.images.evaluation import luma_psnr
from srquant.images.pairs import Pair
from srquant.model import Model
from srquant.model.layer import CodedWeight, QuantLayer
from srquant.model.multiplications import kind_of
from srquant.model.preparing import prepare
from srquant.model.replaying import Replays
from srquant.model.swapping import quant_layers, swap
from srquant.quantizers.channel_factor import Scaled, times_factor
from srquant.support.errors import ArgumentError
from srquant.support.progress import bar


@dataclass(frozen=True)
class Sensitivity:
    """Mean PSNR over images, luma, in dB, the border cropped.

    Args:
        float_psnr: Of the float network.
        all_psnr: With all layers quantized, in the same sense as one is.
        layers: With one layer quantized, by name, in the order in which the layers run.
        images: How many images.
    """

    float_psnr: float
    all_psnr: float
    layers: dict[str, float]
    images: int

    def most_sensitive(self) -> list[str]:
        """Names of the layers, the one that costs most first."""
        return sorted(self.layers, key=lambda name: self.layers[name])


def sensitivity(
    model: Model, quantized: Model, pairs: Sequence[Pair], *, weights: bool = False, largest: int = 192
) -> Sensitivity:
    """Score the float network with the activations of one layer at a time quantized, as the paper's text has it.

    What runs before that layer gives what it gave in the float network and is not computed again, so n layers cost
    about n/2 passes.

    Args:
        model: The float model.
        quantized: Made of it by any method.
        pairs: Images to score on.
        weights: Quantize the layer's weight too.
        largest: Of larger LR images, the middle of this height and width is taken: outputs of all layers are kept.

    Raises:
        ArgumentError: ``quantized`` was not made of ``model``.
    """
    layers = quant_layers(quantized.network)
    if quantized.record is None or model.record is not None:
        raise ArgumentError("sensitivity needs a float model and a quantized one made of it")
    network, _, _, survey = prepare(model.network, "folded" if quantized.record.folds else "float")
    order = [each.name for each in survey.multiplications]
    if not layers.keys() <= set(order):
        raise ArgumentError(f"{quantized.source} was not made of this network: its layers have other names")
    if not weights:
        layers = {name: _of_activations(layer, network.get_submodule(name)) for name, layer in layers.items()}
        quantized = Model(swap(network, layers), model.source)
    replays = Replays(network, order)
    student = Model(network, model.source)
    scores: dict[str, list[float]] = {name: [] for name in ("float", "all", *layers)}
    with bar("Measuring sensitivity", len(pairs) * len(layers)) as shown:
        for pair in pairs:
            low, high = _middle(*pair.read(), largest, pair.scale)
            replays.record()
            scores["float"].append(luma_psnr(student, low, high, model.scale))
            scores["all"].append(luma_psnr(quantized, low, high, model.scale))
            for name in replays.each_alone(layers):
                scores[name].append(luma_psnr(student, low, high, model.scale))
                shown.advance(1, name)
    means = {name: fmean(values) if all(map(math.isfinite, values)) else math.inf for name, values in scores.items()}
    return Sensitivity(means.pop("float"), means.pop("all"), means, len(pairs))


class _FloatWeight(nn.Module):
    """In the place of a quantized weight, the float one."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())

    def forward(self) -> Tensor:
        return self.get_buffer("weight")


def _of_activations(layer: QuantLayer, module: nn.Module) -> QuantLayer:
    """A quantized layer with the weight of a float module; a product of two activations as it is."""
    kind = kind_of(module)
    weight = None if kind is None else kind.weight_of(module)
    if weight is None:
        return layer
    if isinstance(layer.left, Scaled):
        weight = times_factor(weight, layer.left.factor)
    bias = cast(Tensor | None, module.bias)
    return QuantLayer(layer.product, layer.left, cast(CodedWeight, _FloatWeight(weight)), bias)


def _middle(
    low: NDArray[np.uint8], high: NDArray[np.uint8], largest: int, scale: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    sizes = [min(length, largest) for length in low.shape[:2]]
    starts = [(length - kept) // 2 for length, kept in zip(low.shape[:2], sizes, strict=True)]
    (top, left), (height, width) = starts, sizes
    few = low[top : top + height, left : left + width]
    return few, high[scale * top : scale * (top + height), scale * left : scale * (left + width)]
