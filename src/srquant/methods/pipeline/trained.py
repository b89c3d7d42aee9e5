"""What methods have in common that train weights and quantizers with ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from srquant.images.calibration import Calibration
from srquant.learning.photographs import Photographs
from srquant.learning.settings import TruthSettings
from srquant.methods.base import EdgeProtocol, Method, Needs, WeightSettings
from srquant.methods.pipeline.plan import Plan
from srquant.methods.pipeline.work import Work, training
from srquant.model.layer import FollowingWeight, LearnableWeight, QuantLayer
from srquant.model.multiplications import turned
from srquant.model.swapping import copy_network
from srquant.networks.base import SRNetwork
from srquant.quantizers import Quantizer
from srquant.support.errors import ArgumentError

_BATCHES = 4
"""Of crops, on which a start is measured."""


@dataclass(frozen=True, kw_only=True)
class Trained(Method):
    """Trains the weights of the float network and the quantizers together, with photographs as ground truth.

    Batch normalisations that stay float keep their means and variances; their factors and offsets are trained.
    """

    needs: ClassVar[Needs] = "pairs"

    edges: EdgeProtocol = "float"
    training: TruthSettings = field(default_factory=TruthSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights != WeightSettings():
            raise ArgumentError(f"weights.…: {self.name} has a quantizer of weights of its own; leave these fields out")

    def open(self, folder: Path | str, scale: int) -> Photographs:
        return Photographs.of(folder, scale, self.training.patch)

    def patches_of(self, data: Photographs) -> Calibration:
        """LR patches on which ranges are measured before the first step."""
        settings = self.training
        data.require(settings.patch)
        return data.calibration(_BATCHES * settings.batch, settings.patch, settings.seed)

    def work(self, patches: Calibration, layers: int, multiply_adds: float) -> Work:
        return super().work(patches, layers, multiply_adds) + training(self.training)


def float_parameters(student: SRNetwork, layers: Mapping[str, QuantLayer]) -> dict[str, nn.Parameter]:
    """What a float network has too: weights and biases, of quantized layers and of all others, by name."""
    inside = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    found = {name: parameter for name, parameter in student.named_parameters() if id(parameter) not in inside}
    for name, layer in layers.items():
        if isinstance(layer.right, LearnableWeight):
            found[f"{name}.right.weight"] = layer.right.weight
        if layer.bias is not None:
            found[f"{name}.bias"] = layer.bias
    return found


def activation_quantizers(layers: Mapping[str, QuantLayer]) -> dict[str, Quantizer]:
    """The quantizers of activations, by name."""
    sides = {"left": True, "right": False}
    return {
        f"{name}.{side}": quantizer
        for name, layer in layers.items()
        for side, always in sides.items()
        if always or isinstance(layer.right, Quantizer)
        for quantizer in [layer.quantizers()[side]]
    }


def parameters_of(quantizers: Mapping[str, Quantizer]) -> dict[str, nn.Parameter]:
    """All their parameters, by name."""
    return {
        f"{name}.{bound}": value
        for name, quantizer in quantizers.items()
        for bound, value in quantizer.named_parameters()
    }


def weight_factors(layers: Mapping[str, QuantLayer]) -> dict[str, nn.Parameter]:
    """Factors on the measured bounds of weights, by name."""
    rights = {name: layer.right for name, layer in layers.items()}
    return {
        f"{name}.right.factor": right.factor for name, right in rights.items() if isinstance(right, FollowingWeight)
    }


@torch.no_grad()
def trained(plan: Plan, student: SRNetwork, layers: Mapping[str, QuantLayer]) -> Plan:
    """The plan with the float network that has the student's weights: what its layers are put into."""
    network = copy_network(plan.network)
    learned = float_parameters(student, layers)
    for name, parameter in network.named_parameters():
        if name in learned:
            parameter.copy_(learned[name])
    for name, layer in layers.items():
        module: Any = network.get_submodule(name)
        if isinstance(layer.right, LearnableWeight):
            module.weight.copy_(turned(layer.right.weight, layer.product.inputs_first))
        if layer.bias is not None:
            module.bias.copy_(layer.bias)
    return replace(plan, network=network)


def after_long_skip(plan: Plan) -> str:
    """The first multiplication behind the body: its input is the sum after the network's long skip."""
    behind = ("upsampler", "last")
    return next(each.name for each in plan.survey.multiplications if each.role in behind)
