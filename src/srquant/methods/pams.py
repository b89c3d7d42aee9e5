"""PAMS, parametrised max scale: weights and the ranges of activations trained together, with the float network beside.

Source: Li et al., "PAMS: Quantized Super-Resolution via Parameterized Max Scale", ECCV 2020; released code.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from srquant.learning.order import once_each
from srquant.learning.photographs import Photographs
from srquant.learning.stages import Group, Stage
from srquant.learning.truth import learn_from_truth
from srquant.learning.truth_losses import PixelsAndMap
from srquant.methods.base import Factor
from srquant.methods.pipeline.build import Following, build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from srquant.methods.pipeline.trained import (
    Trained,
    activation_quantizers,
    after_long_skip,
    float_parameters,
    parameters_of,
    trained,
)
from srquant.methods.pipeline.unfinished import unfinished
from srquant.model import Model
from srquant.model.layer import QuantLayer
from srquant.model.swapping import swap
from srquant.networks.base import SRNetwork
from srquant.quantizers import NarrowSymmetric, Quantizer
from srquant.quantizers.ranges import MinMaxRange
from srquant.support.processes import Processes


@dataclass(frozen=True, kw_only=True)
class PAMS(Trained):
    """Symmetric quantizers of 2^b − 1 levels, zero among them: activations up to a learned α, weights up to max |W|.

    In the first epoch each α is the mean over the batch's images of max |x|, and nothing is clipped; then it is
    learned, in steps 100 times as large as those of weights. The loss is the L1 distance to the photograph, in 0…255,
    and 1000 times the squared distance of the features after the long skip from the float network's, both as normalised
    maps of where they are strong. Adam, rates halved after each third of the run.

    The first convolution, the one after the body, the upsampler's and the last stay float.

    Source: Li et al., "PAMS: Quantized Super-Resolution via Parameterized Max Scale", ECCV 2020, section 3; released
    code.
    Differs: the release starts from random weights, here they are the float network's. It quantizes the two addends of
    each residual sum instead of the input of the convolution that reads the sum; here every operand of a multiplication
    is quantized. It keeps the epoch that is best on Set14; here the last iterate counts. Steps of α are of networks
    whose images lie in 0…255, and as much smaller as images are.
    The release trains RDN on LR patches of 24 (``training.patch=24``). Of micro-batches, the first epoch's α is that of
    the last.
    """

    name = "pams"

    maps: Factor = 1000.0
    """Weight of the distance of features; 0 leaves the float network out."""
    range_rate: Annotated[float, Field(ge=0, le=1_000_000)] = 100.0
    """Learning rate of α, as a multiple of that of weights."""

    def quantize(self, model: Model, data: Photographs, /, state: Path | str | None = None) -> Model:
        plan, patches = make_plan(model, self), self.patches_of(data)
        bounds = observe_ranges(plan, patches, self, lambda bits: MinMaxRange())
        layers = build_layers(plan, bounds, self, self.activation_quantizer, self.weight_quantizer, Following(largest))
        student = swap(plan.network, layers)
        loss = PixelsAndMap(after_long_skip(plan) if self.maps else None, self.maps)
        kept = unfinished(state, self, None, model)
        stages = self.stages(student, layers)
        curve = learn_from_truth(student, plan.network, data, stages, once_each(1), loss, self.training, kept)
        return finish(model, trained(plan, student, layers), layers, self, patches, curve)

    def activation_quantizer(self, bits: int, bounds: Mapping[str, Tensor]) -> Quantizer:
        """Up to the largest magnitude, from which the first epoch goes on."""
        return NarrowSymmetric(bits, torch.maximum(bounds["lower"].abs(), bounds["upper"].abs()))

    def weight_quantizer(self, bits: int, weight: Tensor) -> Quantizer:
        """Up to the largest magnitude."""
        return NarrowSymmetric(bits, largest(bits, weight)["bound"])

    def stages(self, student: SRNetwork, layers: Mapping[str, QuantLayer]) -> tuple[Stage, Stage]:
        """An epoch in which ranges follow the batches, then all is learned."""
        weights = Group(float_parameters(student, layers))
        quantizers = activation_quantizers(layers)
        ranges = Group(parameters_of(quantizers), factor=self.range_rate * student.value_range / 255)
        first = Stage("following", (weights,), partial(following, quantizers))
        return first, Stage("all", (weights, ranges))


def largest(_bits: int, weight: Tensor) -> dict[str, Tensor]:
    """Max |W|, and a hair more: it stays inside, and is learned, where 16 bits of the scale make the bound smaller."""
    return {"bound": weight.abs().max() * (1 + 2**-15)}


@contextmanager
def following(quantizers: Mapping[str, Quantizer], group: Processes) -> Generator[None]:
    """Let each α be the mean over the batch of max |x|, and round without clipping, while the body runs.

    Args:
        quantizers: Of activations.
        group: The processes that share the batch.
    """
    handles = [quantizer.register_forward_hook(partial(_follow, group)) for quantizer in quantizers.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _follow(group: Processes, quantizer: nn.Module, given: tuple[Any, ...], _output: Tensor) -> Tensor:
    x: Tensor = given[0]
    assert isinstance(quantizer, NarrowSymmetric)
    with torch.no_grad():
        bound = x.abs().flatten(1).amax(1).mean() / group.count
        group.sum([bound])
        quantizer.bound.copy_(bound)
        scale = quantizer.knots()[1].clamp(min=torch.finfo(x.dtype).tiny) / (quantizer.intervals[0] // 2)
        moved = (x / scale).round() * scale - x
    return x + moved
