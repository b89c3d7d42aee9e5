"""AdaBM: adaptive bit mapping, in which the bits of activations follow the layer and the image.

Source: "AdaBM: On-the-Fly Adaptive Bit Mapping for Image Super-Resolution" (CVPR 2024) and its released code.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from srquant.images.calibration import Calibration
from srquant.learning.bit_mapping import BitMappingLoss
from srquant.learning.draws import Draws
from srquant.learning.finetuning import finetune
from srquant.learning.order import alternating_apart
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Group, Stage
from srquant.methods.base import Factor, Method, WeightSettings
from srquant.methods.pipeline.build import build_layers, weight_quantizer
from srquant.methods.pipeline.clipping import clip_to_bits
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.image_rows import require_rows_of_images
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.output_sizes import OutputSizes
from srquant.methods.pipeline.plan import Plan, asked_for, make_plan
from srquant.methods.pipeline.unfinished import unfinished
from srquant.methods.pipeline.work import Work, learning
from srquant.model import Model
from srquant.model.layer import LearnableWeight, QuantLayer
from srquant.model.swapping import swap
from srquant.networks.base import SRNetwork
from srquant.quantizers import Adaptive, AdaptiveUniform, ImageFactor, Quantizer, Symmetric, mean_slope
from srquant.quantizers.ranges import JointShrink, MinMaxRange

_WIDE = 8
"""Bits of layers that nothing is adapted in."""
Tail = Annotated[float, Field(ge=0, lt=0.5)]
"""Part of the layers or images at each end that gets other bits."""
Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class AdaBM(Method):
    """Uniform activations of b + layer factor + image factor bits, each factor −1, 0 or 1; symmetric weights of b bits.

    Ranges are the extremes, averaged over batches, and those of weights the best of 50. A layer's factor is −1 if its
    input varies less than that of 70 % of the adaptive layers (mean standard deviation of an image), 1 if it varies
    more than that of 70 %; an image's is −1 or 1 if its mean slope is below or above that of all but 10 % of the
    patches. Then ranges are narrowed for the layer's bits, and all is learned from the float network, epoch by epoch in
    turn: bounds of weights, bounds of activations, both kinds of factors; each in steps of 0.01 (thresholds of images
    0.1), times 0.9 after its own epochs. The loss is ``mean |O − Ô|`` (0…255) ``+ 10 · mean over blocks and patches of
    ‖F/‖F‖₂ − F̂/‖F̂‖₂‖₂ + 50 · max(mean bits − b, 0)``. Layers of 8 bits are not adapted.

    Layers whose bits are asked for (``layers``) keep them. Scores mean little without the mean bits that they were
    reached with, FAB: ``srquant evaluate`` prints it.

    Source: AdaBM §3, §4.1. Where paper and code differ, the paper; what it leaves open, as the code. Differs: bits stay
    within 2…8. Each tile is an image, as in the code's patch-wise scores.

    ``as_released`` follows the code: weights of 8 bits get the range that is best for b bits, and every search begins
    at the largest *signed* weight; features are divided by the norm of the whole batch, and their distance by the
    number of patches twice.
    """

    name = "adabm"
    bits_of = "image"

    fixed: tuple[str, ...] = ("RDBs.*.LFF",)
    """Patterns of layers of b bits that nothing is adapted in: RDN's local fusions, as in the code, and what has no row
    for each image (``layers.*`` in SwinIR)."""
    layer_tail: Tail = 0.3
    """Of layers: below this quantile and above its counterpart a factor is −1 and 1."""
    image_tail: Tail = 0.1
    """The same of images, over the calibration patches."""
    old_range: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of a range before it is narrowed for its bits (bit-aware clipping); 1 leaves it."""
    features: Factor = 10.0
    """Weight of the distance of features."""
    excess: Factor = 50.0
    """Weight of mean bits above b."""
    layer_rate: Rate = 1e-2
    """Adam's rate on the layers' factors."""
    image_rate: Rate = 1e-1
    """Adam's rate on the thresholds of the mean slope, which is 1000 times that of images in [0, 1]."""
    as_released: bool = False
    """As the released code computes it."""
    weights: WeightSettings = field(default_factory=lambda: WeightSettings(range="joint_shrink"))
    finetuning: LearningSettings = field(default_factory=lambda: LearningSettings(rate=1e-2))

    def work(self, patches: Calibration, layers: int, multiply_adds: float) -> Work:
        return super().work(patches, layers, multiply_adds) + learning(patches, self.finetuning)

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        adaptive = self.adaptive(plan)
        require_rows_of_images(plan, adaptive, "fix them all, for instance --set 'fixed={}', or take another method")
        spread = OutputSizes()
        bounds = observe_ranges(plan, calibration, self, lambda _: MinMaxRange(), inputs=spread)
        for name, factor in self.layer_factors({name: spread.deviations()[name] for name in adaptive}).items():
            for operand in ("left", "right"):
                if (name, operand) in bounds:
                    bounds[name, operand]["layer"] = factor.to(bounds[name, operand]["lower"])
        images = self.image_factor(plan.network, calibration)
        layers = build_layers(plan, bounds, self, self.quantizer_of(images), self.weight_quantizer)
        student = swap(plan.network, layers)
        clip_to_bits(student, calibration.batch(Draws(len(calibration), self.finetuning)(0)), self.old_range)
        stages = self.stages(layers, images if adaptive else None, plan.network.value_range)
        loss = BitMappingLoss(plan.network.feature_layers, self.bits, self.features, self.excess, self.as_released)
        kept = unfinished(state, self, self.finetuning, model)
        curve = finetune(
            student, plan.network, calibration, stages, loss, self.finetuning, kept, order=alternating_apart
        )
        return finish(model, plan, layers, self, calibration, curve)

    def adaptive(self, plan: Plan) -> list[str]:
        """Layers whose bits follow the image."""
        names = [target.multiplication.name for target in plan.targets if target.activation_bits != _WIDE]
        names = [name for name in names if not asked_for(name, self)]
        return [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.fixed)]

    def layer_factors(self, spread: Mapping[str, float]) -> dict[str, Tensor]:
        """−1, 0 or 1 of each layer, by the mean standard deviation of its input."""
        if not spread:
            return {}
        values = torch.tensor(list(spread.values()), dtype=torch.float64)
        low, high = values.quantile(self.layer_tail), values.quantile(1 - self.layer_tail)
        factors = (values > high).float() - (values < low).float()
        return dict(zip(spread, factors.unbind(), strict=True))

    def image_factor(self, network: SRNetwork, calibration: Calibration) -> ImageFactor:
        """What looks at images: both thresholds are averages over batches of their quantiles."""
        ends = torch.zeros(2)
        for number, batch in enumerate(calibration.batches(self.observation.batch)):
            found = mean_slope(batch).quantile(torch.tensor([self.image_tail, 1 - self.image_tail]))
            ends = torch.lerp(found, ends, self.observation.weight_of_old(number)) if number else found
        device = next(network.parameters()).device
        images = ImageFactor(ends[0].to(device), ends[1].to(device), network.value_range)
        with torch.no_grad():
            images.constrain()
        return images

    def quantizer_of(self, images: ImageFactor) -> Callable[[int, Mapping[str, Tensor]], Quantizer]:
        """Makes the quantizers of activations; those of layers that have a factor are adaptive."""

        def make(bits: int, bounds: Mapping[str, Tensor]) -> Quantizer:
            return AdaptiveUniform(bits, images=images, **bounds) if "layer" in bounds else self.uniform(bits, bounds)

        return make

    def weight_quantizer(self, bits: int, weight: Tensor) -> Quantizer:
        """Symmetric, up to the best of 50 bounds."""
        if not self.as_released:
            return weight_quantizer(weight, bits, self.weights, self.grid)
        width = self.bits if self.weight_bits is None else self.weight_bits
        largest = weight.max().reshape(1)
        best = JointShrink(width, candidates=50).shrunk(weight.reshape(1, -1), -largest, largest)
        return Symmetric(bits, best["upper"][0])

    def stages(
        self, layers: Mapping[str, QuantLayer], images: ImageFactor | None, value_range: float
    ) -> tuple[Stage, ...]:
        """Bounds of weights; bounds of activations; factors of layers and thresholds of images, if there are any."""
        kinds: dict[str, dict[str, nn.Parameter]] = {"weights": {}, "activations": {}, "layers": {}}
        for layer_name, layer in layers.items():
            for operand, quantizer in layer.quantizers().items():
                of_weight = operand == "right" and isinstance(layer.right, LearnableWeight)
                for name, value in quantizer.named_parameters():
                    factor = isinstance(quantizer, Adaptive) and name == "layer"
                    kind = "weights" if of_weight else "layers" if factor else "activations"
                    kinds[kind][f"{layer_name}.{operand}.{name}"] = value
        weights = Stage("weights", (Group(kinds["weights"]),))
        activations = Stage("activations", (Group(kinds["activations"], factor=value_range / 255),))
        if images is None:
            return weights, activations
        thresholds = {f"image_factor.{name}": value for name, value in images.named_parameters()}
        rate = self.finetuning.rate
        factors = (
            Group(kinds["layers"], factor=self.layer_rate / rate),
            Group(thresholds, factor=self.image_rate / rate),
        )
        return weights, activations, Stage("bits", factors)
