"""DDTB, dynamic dual trainable bounds: two learned bounds, which a gate moves for each image where ranges vary most.

Source: Zhong et al., "Dynamic Dual Trainable Bounds for Ultra-low Precision Super-Resolution Networks", ECCV 2022;
released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from srquant.images.calibration import Calibration
from srquant.learning.order import once_each
from srquant.learning.photographs import Photographs
from srquant.learning.settings import TruthSettings
from srquant.learning.stages import Group, Stage
from srquant.learning.truth import learn_from_truth
from srquant.learning.truth_losses import PixelsAndMap
from srquant.methods.base import Factor, ObservationSettings, Quantile
from srquant.methods.pipeline.build import Following, build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import Observed
from srquant.methods.pipeline.plan import Plan, make_plan
from srquant.methods.pipeline.trained import (
    Trained,
    activation_quantizers,
    after_long_skip,
    float_parameters,
    parameters_of,
    trained,
)
from srquant.methods.pipeline.unfinished import unfinished
from srquant.methods.pipeline.variation import Variation
from srquant.model import Model
from srquant.model.layer import QuantLayer
from srquant.model.swapping import swap
from srquant.networks.base import SRNetwork
from srquant.quantizers import GatedUniform, Quantizer, Uniform
from srquant.quantizers.gated_uniform import ternary, two_bits
from srquant.quantizers.ranges import quantile

_PAPER = TruthSettings(steps=60_000, epochs=60)
_HIDDEN = 32
"""Channels inside a gate."""
_UNGATED = 5
"""Epochs before gates are learned."""
_FAR = 10.0
"""Where the release starts bounds at more than two bits, in a network whose images lie in 0…255."""


@dataclass(frozen=True, kw_only=True)
class DDTB(Trained):
    """Two learned bounds of each activation, with a zero; the layers whose ranges vary most have a gate for each image.

    Bounds start at the 1st and 99th percentile of the first batch, and are learned in steps 100 times as large as those
    of weights. Weights are clipped to their own 1st and 99th percentile in each step.
    Layers are ranked by the variance, over batches, of their input's maximum plus that of its minimum, in the float
    network; the first 30 % have a gate, which is learned from the sixth of 60 epochs on. The loss is that of PAMS;
    Adam, rates halved every ten epochs. The first convolution, the one after the body, the upsampler's and the last
    stay float.

    Gates follow the image: a model with gates cannot be exported, one without (``gated=0``, ``grid=int8``) can.

    Source: Zhong et al., "Dynamic Dual Trainable Bounds for Ultra-low Precision Super-Resolution Networks", ECCV 2022,
    section 3; released code.
    Differs: the release starts bounds at ±10 where there are more than two bits, which fits no network but its own
    (``start=released``). It quantizes the two addends of each residual sum of EDSR instead of the input of the
    convolution that reads the sum; here every operand of a multiplication is quantized. It ranks layers in a first
    epoch in float; here that is done before the first step, on some batches. It trains gates to give 1 in epochs 2 to
    5; here they do so from the start. Batch normalisations in gates keep the statistics that they begin with. Only
    convolutions have gates. Steps of bounds are those of networks whose images lie in 0…255, and as much smaller as
    images are. It gates 10 % in SRResNet and 50 % in RDN, whose bounds start at percentiles 5 and 95 and whose weights
    are not clipped.
    """

    name = "ddtb"

    gated: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Part of the layers that have gates."""
    maps: Factor = 1000.0
    """Weight of the distance of features; 0 leaves the float network out."""
    range_rate: Annotated[float, Field(ge=0, le=1_000_000)] = 100.0
    """Learning rate of bounds, as a multiple of that of weights."""
    start: Literal["percentiles", "released"] = "percentiles"
    """Where bounds start: at percentiles of the first batch; ``released`` at ±10 where there are more than two bits."""
    quantile: Quantile = 0.99
    """Of the first batch."""
    weight_quantile: Quantile = 0.99
    """Of weights, what is not clipped; 1 clips none."""
    observation: ObservationSettings = field(default_factory=lambda: ObservationSettings(batch=16))
    training: TruthSettings = _PAPER

    def patches_of(self, data: Photographs) -> Calibration:
        """Sixteen batches, over which ranges vary."""
        data.require(self.training.patch)
        return data.calibration(16 * self.observation.batch, self.training.patch, self.training.seed)

    def quantize(self, model: Model, data: Photographs, /, state: Path | str | None = None) -> Model:
        plan, patches = make_plan(model, self), self.patches_of(data)
        following = Following(self.measure)
        bounds = self.first_bounds(plan, Variation.of(plan, patches, self.observation.batch, self.quantile))
        layers = build_layers(plan, bounds, self, self.activation_quantizer, self.weight_quantizer, following)
        student = swap(plan.network, layers)
        loss = PixelsAndMap(after_long_skip(plan) if self.maps else None, self.maps)
        kept, stages = unfinished(state, self, None, model), self.stages(student, layers)
        order = once_each(_UNGATED)
        curve = learn_from_truth(student, plan.network, data, stages, order, loss, self.training, kept)
        return finish(model, trained(plan, student, layers), layers, self, patches, curve)

    def first_bounds(self, plan: Plan, found: Variation) -> Observed:
        """Bounds of each activation; those of layers that vary most with a gate that gives 1."""
        bits = {target.multiplication.name: target.activation_bits for target in plan.targets}
        far = torch.tensor(_FAR * plan.network.value_range / 255, device=next(plan.network.parameters()).device)
        bounds: Observed = {
            place: {"lower": -far, "upper": far} if self.start == "released" and bits[place[0]] > 2 else dict(first)
            for place, first in found.first.items()
        }
        draw = torch.Generator().manual_seed(self.training.seed)
        for name in found.most(self.gated):
            bounds[name, "left"] |= gate(found.means[name], draw)
        return bounds

    def activation_quantizer(self, bits: int, bounds: Mapping[str, Tensor]) -> Quantizer:
        """With a gate where there is one among the bounds."""
        if "excite" in bounds:
            return GatedUniform(bits, **bounds)
        return Uniform(bits, bounds["lower"], bounds["upper"], "int8")

    def weight_quantizer(self, bits: int, weight: Tensor) -> Quantizer:
        """Between percentiles, with a zero."""
        bounds = self.measure(bits, weight)
        return Uniform(bits, bounds["lower"], bounds["upper"], "int8")

    def measure(self, _bits: int, weight: Tensor) -> Mapping[str, Tensor]:
        """The percentiles of a weight."""
        row = weight.detach().reshape(1, -1)
        ends = {"lower": 1 - self.weight_quantile, "upper": self.weight_quantile}
        return {name: quantile(row, part)[0] for name, part in ends.items()}

    def stages(self, student: SRNetwork, layers: Mapping[str, QuantLayer]) -> tuple[Stage, Stage]:
        """Weights and bounds; then gates too."""
        found = parameters_of(activation_quantizers(layers))
        ranges = {name: value for name, value in found.items() if name.endswith((".lower", ".upper"))}
        gates = {name: value for name, value in found.items() if name not in ranges}
        both = (
            Group(float_parameters(student, layers)),
            Group(ranges, factor=self.range_rate * student.value_range / 255),
        )
        return Stage("bounds", both), Stage("gates", (*both, Group(gates)))


def gate(means: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
    """What a gate begins with: random weights, statistics of images, and an output of zeros.

    Args:
        means: Over pixels, of the channels of some images: ``n c``.
        draw: Of the weights.
    """
    squeeze = torch.randn(_HIDDEN, means.shape[1], generator=draw).to(means)
    hidden = two_bits(means) @ ternary(squeeze).T
    scale = (hidden.var(0, correction=0) + 1e-5).rsqrt()
    excite = torch.zeros(2, _HIDDEN).to(means)
    return {"squeeze": squeeze, "scale": scale, "offset": -hidden.mean(0) * scale, "excite": excite}
