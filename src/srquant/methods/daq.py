"""DAQ, distribution-aware quantization: each channel of each image has levels of its own.

Source: Hong et al., "DAQ: Channel-Wise Distribution-Aware Quantization for Deep Image Super-Resolution Networks", WACV
2022; released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from srquant.learning.order import alternating
from srquant.learning.photographs import Photographs
from srquant.learning.settings import TruthSettings
from srquant.learning.stages import Group, Stage
from srquant.learning.truth import learn_from_truth
from srquant.learning.truth_losses import PixelsAndMap
from srquant.methods.base import Width
from srquant.methods.pipeline.build import Following, build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import Plan, make_plan
from srquant.methods.pipeline.trained import Trained, float_parameters, trained
from srquant.methods.pipeline.unfinished import unfinished
from srquant.model import Model
from srquant.model.swapping import swap
from srquant.quantizers import DistributionAware, Quantizer, Symmetric
from srquant.quantizers.distribution_aware import STEPS
from srquant.quantizers.ranges import MinMaxRange
from srquant.support.errors import ArgumentError

_PAPER = TruthSettings(steps=60_000, epochs=60, decay=1.0)


@dataclass(frozen=True, kw_only=True)
class DAQ(Trained):
    """Levels of activations from the mean and spread of each channel in each image; nothing of them is learned.

    Weights have levels ``±(k + ½)·c_b·σ`` of their own spread as it is in each step. The weights are trained with the
    L1 distance to the photograph, straight through. Adam at 1e-4, 60 epochs of 1,000 steps of 16. The first
    convolution, the one after the body, the upsampler's and the last stay float.

    Levels follow the image: at most 2^b values in each channel of an image, many more in a tensor. Such a model cannot
    be exported, and only convolutions can be quantized so.

    Source: Hong et al., "DAQ: Channel-Wise Distribution-Aware Quantization for Deep Image Super-Resolution Networks",
    WACV 2022, section 3; released code.
    Differs: the release does not clamp activations after a ReLU from above: it takes 14, 18 and 31 values where 4, 8
    and 16 are allowed; ``as_released`` does so too. It decides for a batch whether there are negative values, here each
    image counts for itself. What it has for spreads, 4 bits, is for EDSR-baseline; 8 for the others.
    """

    name = "daq"

    deviation_bits: Width = 4
    """Of the standard deviations of an image's channels."""
    as_released: bool = False
    """Without the clamp after a ReLU, so that activations take more than 2^b values."""
    training: TruthSettings = _PAPER

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid == "int8":
            raise ArgumentError(
                "grid=int8: levels of daq follow each image; for integers take a method whose ranges stay, such as pams"
            )

    def quantize(self, model: Model, data: Photographs, /, state: Path | str | None = None) -> Model:
        plan, patches = make_plan(model, self), self.patches_of(data)
        require_convolutions(plan)
        seen = observe_ranges(plan, patches.at_most(1, patches.size), self, lambda bits: MinMaxRange())
        layers = build_layers(
            plan, seen, self, self.activation_quantizer, self.weight_quantizer, Following(spread, straight=True)
        )
        student = swap(plan.network, layers)
        stages = (Stage("weights", (Group(float_parameters(student, layers)),)),)
        kept, loss = unfinished(state, self, None, model), PixelsAndMap()
        curve = learn_from_truth(student, plan.network, data, stages, alternating, loss, self.training, kept)
        return finish(model, trained(plan, student, layers), layers, self, patches, curve)

    def activation_quantizer(self, bits: int, _bounds: Mapping[str, Tensor]) -> Quantizer:
        """Of what it is given, nothing is kept: levels are found anew in each image."""
        return DistributionAware(bits, self.deviation_bits, not self.as_released)

    def weight_quantizer(self, bits: int, weight: Tensor) -> Quantizer:
        """2^b levels around zero, c_b·σ apart."""
        return Symmetric(bits, spread(bits, weight)["bound"])


def spread(bits: int, weight: Tensor) -> dict[str, Tensor]:
    """The last of 2^b levels ``±(k + ½)·c_b·σ``."""
    return {"bound": ((1 << bits) - 1) / 2 * STEPS[bits] * weight.std()}


def require_convolutions(plan: Plan) -> None:
    """Refuse what has no image of its own for each index of the first axis, and channels next to it.

    Raises:
        ArgumentError: Something is no convolution; the message names it.
    """
    for target in plan.targets:
        if target.multiplication.kind.role != "convolution":
            name = target.multiplication.name
            raise ArgumentError(
                f"daq: {name} is no convolution, and its input has no channels of images; leave it float with "
                f"layers={name}=float, or take a method whose ranges stay, such as pams"
            )
