"""ODM, overcoming distribution mismatch: activations are drawn towards what their quantizers can give.

Source: Hong and Lee, "Overcoming Distribution Mismatch in Quantizing Image Super-Resolution Networks", ECCV 2024. There
is no public code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field
from torch import Tensor

from srquant.learning.order import alternating
from srquant.learning.photographs import Photographs
from srquant.learning.settings import TruthSettings
from srquant.learning.stages import Group, Stage
from srquant.learning.truth import learn_from_truth
from srquant.learning.truth_losses import PixelsAndMismatch
from srquant.methods.base import Factor, ObservationSettings, Quantile
from srquant.methods.pipeline.build import Following, build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from srquant.methods.pipeline.trained import (
    Trained,
    activation_quantizers,
    float_parameters,
    parameters_of,
    trained,
    weight_factors,
)
from srquant.methods.pipeline.unfinished import unfinished
from srquant.model import Model
from srquant.model.layer import QuantLayer
from srquant.model.swapping import swap
from srquant.networks.base import SRNetwork
from srquant.quantizers import Quantizer, Symmetric
from srquant.quantizers.ranges import PercentileRange, quantile

_PAPER = TruthSettings(steps=60_000, batch=8, epochs=4, decay_every=1)


@dataclass(frozen=True, kw_only=True)
class ODM(Trained):
    """Learned ranges of activations, weights up to a percentile of theirs times a learned factor, a loss of mismatch.

    Activations have two bounds, which start at the means over batches of their 1st and 99th percentiles and are learned
    in steps 10 times as large as those of weights. The bound of a weight is the 99th percentile of |W| as it is in each
    step, times a factor that is learned. To the gradient of the L1 distance to the photograph that of the mismatch
    ``Σ ‖X − q(X)‖₂`` of activations is added, as far as both agree. Adam, 60,000 steps of 8, rates halved after each
    quarter. The first convolution, the one after the body, the upsampler's and the last stay float.

    Source: Hong and Lee, "Overcoming Distribution Mismatch in Quantizing Image Super-Resolution Networks", ECCV 2024.
    Differs: there is no public code. What the paper leaves open: the norm is of each image, and the mean over images is
    taken; the cosine is that of all parameters together; the factor moves at the rate of weights. Steps of bounds and
    the mismatch are those of networks whose images lie in 0…255, and as much smaller as images are. λ is 1e-6 for RDN.
    """

    name = "odm"

    mismatch: Factor = 1e-5
    """λ_M, weight of the mismatch."""
    range_rate: Annotated[float, Field(ge=0, le=1_000_000)] = 10.0
    """Learning rate of the bounds of activations, as a multiple of that of weights."""
    factor_rate: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    """The same of the factor on each weight's percentile; 0 leaves it at 1."""
    quantile: Quantile = 0.99
    """Of weights and of activations: where bounds start."""
    observation: ObservationSettings = field(default_factory=lambda: ObservationSettings(batch=8, average="mean"))
    training: TruthSettings = _PAPER

    def quantize(self, model: Model, data: Photographs, /, state: Path | str | None = None) -> Model:
        plan, patches = make_plan(model, self), self.patches_of(data)
        bounds = observe_ranges(plan, patches, self, lambda bits: PercentileRange(self.quantile))
        layers = build_layers(plan, bounds, self, self.uniform, self.weight_quantizer, Following(self.measure))
        student = swap(plan.network, layers)
        loss = PixelsAndMismatch(list(activation_quantizers(layers)), self.mismatch, plan.network.value_range)
        kept, stages = unfinished(state, self, None, model), (self.stage(student, layers),)
        curve = learn_from_truth(student, plan.network, data, stages, alternating, loss, self.training, kept)
        return finish(model, trained(plan, student, layers), layers, self, patches, curve)

    def weight_quantizer(self, bits: int, weight: Tensor) -> Quantizer:
        """Symmetric, up to the percentile."""
        return Symmetric(bits, self.measure(bits, weight)["bound"], self.grid)

    def measure(self, _bits: int, weight: Tensor) -> Mapping[str, Tensor]:
        """The percentile of |W|."""
        return {"bound": quantile(weight.detach().reshape(1, -1), self.quantile, magnitude=True)[0]}

    def stage(self, student: SRNetwork, layers: Mapping[str, QuantLayer]) -> Stage:
        """All at once."""
        ranges = parameters_of(activation_quantizers(layers))
        groups = [Group(float_parameters(student, layers))]
        groups.append(Group(ranges, factor=self.range_rate * student.value_range / 255))
        if self.factor_rate:
            groups.append(Group(weight_factors(layers), factor=self.factor_rate))
        return Stage("all", tuple(groups))
