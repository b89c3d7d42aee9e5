"""PTQ4SR: density-based dual clipping (DBDC), then pixel-aware calibration (PaC).

Source: "Toward Accurate Post-Training Quantization for Image Super Resolution" (CVPR 2023) and its released code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from srquant.images.calibration import SMALLEST_PATCH, Calibration
from srquant.learning.finetuning import finetune
from srquant.learning.losses import Outputs
from srquant.learning.order import one_after_the_other
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Group, Stage
from srquant.methods.base import Factor, Method, ObservationSettings, WeightSettings
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from srquant.methods.pipeline.unfinished import unfinished
from srquant.methods.pipeline.work import Work, learning
from srquant.model import Model
from srquant.model.layer import LearnableWeight, QuantLayer
from srquant.model.swapping import swap
from srquant.quantizers.ranges import DensityClipping

Tail = Annotated[float, Field(gt=0, lt=0.5)]
"""Part of the values that a range leaves out."""


@dataclass(frozen=True, kw_only=True)
class PTQ4SR(Method):
    """Activations between the ends of the dense part of their histogram (DBDC), per tensor; weights between their
    extremes, per output channel, asymmetric. Then the bounds of activations are learned, and after them those of
    weights, from the float network (PaC).

    DBDC: 2048 bins between the extremes of a batch; the emptier end is dropped until 10⁻⁴ of the values are gone, 10⁻⁵
    in layers of 8 bits; the plain mean over batches. PaC: 250 steps on activations, Adam from 5·10⁻³ to 2·10⁻³ along a
    cosine, then 250 on weights, from 5·10⁻⁶ to 2·10⁻⁶, each of 2 patches whose HR images are 192×192; the loss is
    ``mean |O − Ô| + 5 · mean over blocks of the mean square of M/‖M‖₂ − M̂/‖M̂‖₂``, O the images in [0, 1] and M, a
    sample's map of its block output, the mean of squares over channels.

    Source: PTQ4SR, density-based dual clipping and pixel-aware calibration. Where paper and code differ, the paper.
    Differs: patches are the calibration's, 100 by default, flipped and turned; the paper measures 30 batches of 16,
    none flipped. All upsampling convolutions have 8 bits by ``edges=8bit``, as in OAPTQ's tables; the paper's own
    networks have them at the target bits. Bounds that pass each other are put in order. The code learned EDSR ×2 in
    500 + 500 steps of 96×96 (``finetuning.steps=1000``, ``patch=96``).

    ``as_released`` follows the code: the lower bound lies one bin too high; the distance of maps has no gradient, so
    that images alone are learned from. Its files name a tail of 5·10⁻⁴ at 4 bits, 10⁻⁴ at 6 and 10⁻⁵ at 8, which never
    arrives where it is used: ``tail=5e-4`` is what was meant.
    """

    name = "ptq4sr"

    tail: Tail = 1e-4
    """Of activations, the part that is clipped."""
    tail_8bit: Tail = 1e-5
    """The same in layers of 8 bits."""
    patch: Annotated[int, Field(ge=SMALLEST_PATCH, le=4096)] = 48
    """Largest height and width of a patch (HR 192 at ×4); larger ones are cut again from the same images."""
    features: Factor = 5.0
    """Weight of the distance of maps."""
    weight_rate: Annotated[float, Field(gt=0)] = 5e-6
    """Adam's rate on bounds of weights, as ``finetuning.rate`` is on those of activations."""
    as_released: bool = False
    """As the released code computes it."""
    weights: WeightSettings = field(default_factory=lambda: WeightSettings(symmetric=False, granularity="per_channel"))
    observation: ObservationSettings = field(default_factory=lambda: ObservationSettings(average="mean"))
    finetuning: LearningSettings = field(
        default_factory=lambda: LearningSettings(epochs=None, steps=500, batch=2, rate=5e-3, schedule="cosine", end=0.4)
    )

    def work(self, patches: Calibration, layers: int, multiply_adds: float) -> Work:
        cut = patches.at_most(len(patches), self.patch)
        return super().work(cut, layers, multiply_adds) + learning(cut, self.finetuning)

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        patches = calibration.at_most(len(calibration), self.patch)
        values: dict[str, int] = {}

        def count(name: str, x: Tensor) -> None:
            values.setdefault(name, x.numel())

        bounds = observe_ranges(plan, patches, self, self.range, inputs=count)
        layers = build_layers(plan, bounds, self, self.uniform)
        curve = finetune(
            swap(plan.network, layers),
            plan.network,
            patches,
            self.stages(layers, values),
            MapLoss(plan.network.feature_layers, self.features, learned=not self.as_released),
            self.finetuning,
            unfinished(state, self, self.finetuning, model),
            order=one_after_the_other,
        )
        return finish(model, plan, layers, self, patches, curve)

    def range(self, bits: int) -> DensityClipping:
        """DBDC for so many bits."""
        return DensityClipping(self.tail_8bit if bits == 8 else self.tail, as_released=self.as_released)

    def stages(self, layers: Mapping[str, QuantLayer], values: Mapping[str, int]) -> tuple[Stage, Stage]:
        """Bounds of activations, bounds of weights.

        A gradient is divided by √(n·(2^(b−1) − 1)), n being the number of values that are quantized.

        Args:
            layers: Whose bounds are learned.
            values: n of each layer's input, in a batch of the calibration.
        """
        kinds: tuple[dict[str, nn.Parameter], ...] = ({}, {})
        slopes: dict[str, float] = {}
        for layer_name, layer in layers.items():
            for operand, quantizer in layer.quantizers().items():
                weight = layer.right.weight if isinstance(layer.right, LearnableWeight) else None
                weight = weight if operand == "right" else None
                count = values[layer_name] if weight is None else weight.numel()
                for name, bound in quantizer.named_parameters():
                    full = f"{layer_name}.{operand}.{name}"
                    kinds[weight is not None][full] = bound
                    slopes[full] = 1 / math.sqrt(count * (2 ** (quantizer.bits - 1) - 1))
        factors = 1.0, self.weight_rate / self.finetuning.rate
        groups = (Group(kind, factor=factor, slopes=slopes) for kind, factor in zip(kinds, factors, strict=True))
        activations, weights = groups
        return Stage("activations", (activations,)), Stage("weights", (weights,))


@dataclass(frozen=True)
class MapLoss:
    """``L_output + w · L_feature``; see :class:`PTQ4SR`.

    Args:
        feature_layers: Modules whose outputs' maps are compared; without any L_feature is zero.
        features: w.
        learned: Whether L_feature has a gradient.
    """

    feature_layers: Sequence[str]
    features: float = 5.0
    learned: bool = True
    parts: Sequence[str] = ("L_output", "L_feature")

    def __call__(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        output = F.l1_loss(student.images, teacher.images)
        terms = [F.mse_loss(_map(student.features[name]), _map(teacher.features[name])) for name in self.feature_layers]
        feature = torch.stack(terms).mean() if terms else torch.zeros_like(output)
        return {"L_output": output, "L_feature": self.features * (feature if self.learned else feature.detach())}


def _map(features: Tensor) -> Tensor:
    """The mean of squares over channels of ``n c h w`` or ``n l c``, of length one for each sample: ``n h·w``."""
    squares = features.float().square().mean(1 if features.ndim == 4 else -1)
    return F.normalize(squares.flatten(1), dim=1)
