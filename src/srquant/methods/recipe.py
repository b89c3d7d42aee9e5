"""Our own recipe: everything that helped, in one configuration for all networks and bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from srquant.images.calibration import Calibration
from srquant.images.covering import Covering
from srquant.learning.feature_distance import normalised_distance
from srquant.learning.finetuning import finetune
from srquant.learning.losses import Outputs
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Group, Stage
from srquant.methods.base import Factor, Method, WeightSettings
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.image_offsets import image_offsets
from srquant.methods.pipeline.observe import Observed, observe_ranges
from srquant.methods.pipeline.output_sizes import OutputSizes
from srquant.methods.pipeline.plan import Plan, make_plan
from srquant.methods.pipeline.scaled import scaled_layers, work_of_scaling
from srquant.methods.pipeline.spare import spare, work_of_sparing
from srquant.methods.pipeline.unfinished import unfinished
from srquant.methods.pipeline.work import Work, learning, observing
from srquant.model import Model
from srquant.model.layer import LearnableWeight, QuantLayer
from srquant.model.preparing import Norms
from srquant.model.swapping import swap
from srquant.quantizers import (
    NonUniform,
    PiecewiseLinear,
    Quantizer,
    ShiftedNonUniform,
    ShiftedUniform,
    candidate_levels,
    find_sides,
)
from srquant.quantizers.ranges import ChannelShift, LloydMax, PiecewiseSearch, Range
from srquant.support.errors import ArgumentError
from srquant.support.settings import Former

_BITS_OF_IMAGES = 8
_WEIGHED = 4, 32
"""Patches on which layers are weighed, drawings aside, and their size."""
_SEARCHED = 7.0
"""Float passes that one takes in which levels are searched."""
_FEW = 4
"""Bits; the gradient of every level is a sum of its own."""


@dataclass(frozen=True, kw_only=True)
class SRQuant(Method):
    """Activation levels of least squared error, weights searched per channel, then levels, bounds, weights and biases
    learned together from the float network.

    Differs from OAPTQ: levels are non-uniform (or the breakpoint and range of piecewise-linear ones searched), channels
    of an activation are moved to a common centre where that helps, weights have a bound for each channel, everything is
    learned at once instead of in turns, weights move (so that rounding is learned), the rate falls as a cosine, and the
    features that are compared are the network's own feature layers.

    Source: ours.
    """

    name = "srquant"
    former: ClassVar[Former] = {
        "levels": ("levels", {"free": "non_uniform"}),
        "together": ("alternating", {"true": "false", "yes": "no", "1": "0", "false": "true", "no": "yes", "0": "1"}),
    }

    levels: Literal["auto", "non_uniform", "piecewise", "scaled"] = "auto"
    """Of activations: each ``non_uniform`` (:class:`~srquant.quantizers.NonUniform`), which has the least error;
    ``piecewise`` as in PLQ, which costs less to compute; ``auto`` is piecewise on an int8 grid and non-uniform
    otherwise. More than 16 non-uniform levels stay where least squares put them: nothing is gained by learning them.
    ``scaled``, the choice of ``auto`` at 8 bits: equal steps on integers of eight bits, a factor for each input channel
    folded into the weights, these rounded by GPTQ, and nothing learned (:mod:`~srquant.methods.pipeline.scaled`)."""
    drawings: Annotated[int, Field(ge=0, le=1000)] = 12
    """With ``levels=scaled``: drawings among the calibration patches (:mod:`~srquant.images.drawings`)."""
    saturated: Annotated[int, Field(ge=0, le=1000)] = 4
    """With ``levels=scaled``: calibration patches that come again with stronger colours."""
    spare: Annotated[float, Field(ge=0, le=1)] = 0.03
    """With ``levels=scaled``: part of the multiply-adds that may stay float, where that helps most."""
    channel_shift: bool = True
    """Where that lessens the squared error, non-uniform levels are those of channels minus their means
    (:class:`~srquant.quantizers.ShiftedNonUniform`)."""
    image_grid: bool = True
    """Where the first convolution's input has eight bits and is the image, but for a number added to each channel, its
    levels are the 256 values of an image's bytes, and lose nothing (:class:`~srquant.quantizers.ShiftedUniform`). Not
    on an int8 grid."""
    norms: Norms = "folded"
    """Weights have a bound for each channel, which takes the norm's factors in; and a file has nothing left to do."""
    weights: WeightSettings = field(
        default_factory=lambda: WeightSettings(range="least_squares", granularity="per_channel")
    )
    bound_rate: Factor = 1.0
    """Factor on the rate of bounds, whose steps are relative."""
    weight_rate: Factor = 3.0
    """Factor on the rate of weights, in units of their mean magnitude in the layer; 0 leaves them as they are."""
    bias_rate: Factor = 0.3
    """Factor on the rate of biases, in units of the root mean square of the layer's output; 0 leaves them."""
    alternating: bool = False
    """Let weights, biases and bounds take turns, epoch by epoch, as OAPTQ's kinds of bounds do, instead of learning
    everything in every epoch."""
    features: Factor = 0.02
    """Weight of the distance of normalised features, the mean over the network's feature layers."""
    finetuning: LearningSettings = field(
        default_factory=lambda: LearningSettings(epochs=10, batch=2, rate=2e-3, schedule="cosine")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels == "non_uniform" and self.grid == "int8":
            raise ArgumentError(
                "levels=non_uniform with grid=int8: non-uniform levels lie on no integers; use levels=auto or piecewise"
            )

    @property
    def _is_scaled(self) -> bool:
        return self.levels == "scaled" or (self.levels == "auto" and self.bits == _BITS_OF_IMAGES)

    def work(self, patches: Calibration, layers: int) -> Work:
        if self._is_scaled:
            number = self.drawings + self.saturated
            return work_of_scaling(patches, number) + work_of_sparing(_WEIGHED[0] + number, _WEIGHED[1], layers)
        return observing(patches, self.observation.batch, _SEARCHED) + learning(patches, self.finetuning)

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        if self._is_scaled:
            return self._scaled(model, plan, calibration)
        sizes = OutputSizes()
        bounds = observe_ranges(plan, calibration, self, self._range, sizes)
        bounds = _aligned(bounds, plan) | self._image_bounds(plan, calibration)
        layers = build_layers(plan, bounds, self, self._activation)
        student = swap(plan.network, layers)
        loss = OutputAndFeatures(plan.network.feature_layers, self.features)
        stages = self._stages(layers, sizes)
        kept = unfinished(state, self, self.finetuning, model)
        curve = finetune(student, plan.network, calibration, stages, loss, self.finetuning, kept) if stages else ()
        return finish(model, plan, layers, self, calibration, curve)

    def _scaled(self, model: Model, plan: Plan, calibration: Calibration) -> Model:
        if self.finetuning != SRQuant().finetuning:
            raise ArgumentError(
                "finetuning is set, but levels=scaled, the choice of 8 bits, learn nothing; leave it out, or give "
                "levels=non_uniform"
            )
        patches = Covering(calibration, self.drawings, self.saturated)
        layers = scaled_layers(plan, patches, self.weights)
        spared = spare(plan, layers, patches.sample(*_WEIGHED), self.spare)
        kept = {name: layer for name, layer in layers.items() if name not in spared}
        return finish(model, plan.sparing(spared), kept, self, patches)

    def _range(self, bits: int) -> Range:
        search = PiecewiseSearch(partial(candidate_levels, bits=bits, form="distinct", grid=self.grid))
        non_uniform = self.levels == "non_uniform" or (self.levels == "auto" and self.grid == "free")
        if not non_uniform:
            return search
        return ChannelShift(LloydMax(search)) if self.channel_shift else LloydMax(search)

    def _image_bounds(self, plan: Plan, calibration: Calibration) -> Observed:
        eight = {target.multiplication.name for target in plan.targets if target.activation_bits == _BITS_OF_IMAGES}
        if not self.image_grid or self.grid != "free":
            return {}
        offsets = image_offsets(plan, calibration)
        return {
            (name, "left"): {
                "lower": offset.new_zeros(()),
                "upper": offset.new_full((), plan.network.value_range),
                "offset": offset,
            }
            for name, offset in offsets.items()
            if name in eight
        }

    def _activation(self, bits: int, bounds: Mapping[str, Tensor]) -> Quantizer:
        if "offset" in bounds:
            return ShiftedUniform(bits, bounds["lower"], bounds["upper"], bounds["offset"])
        if "shift" in bounds and bounds["centred_error"] < bounds["error"]:
            return ShiftedNonUniform(bits, bounds["centred_levels"], bounds["shift"])
        if "levels" in bounds:
            return NonUniform(bits, bounds["levels"])
        ends = bounds["lower"], bounds["upper"], bounds["breakpoint"]
        return PiecewiseLinear(bits, *ends, sides=find_sides(*ends), grid=self.grid)

    def _stages(self, layers: Mapping[str, QuantLayer], sizes: OutputSizes) -> tuple[Stage, ...]:
        """The weight and the bias of each layer, whose steps are in units of their own size, and all bounds."""
        bounds: dict[str, nn.Parameter] = {}
        weights: list[Group] = []
        biases: list[Group] = []
        for name, layer in layers.items():
            for operand, quantizer in layer.quantizers().items():
                if isinstance(quantizer, ShiftedUniform) or (
                    isinstance(quantizer, NonUniform) and quantizer.bits > _FEW
                ):
                    continue  # an image's bytes, or levels so many that each hardly matters
                learned = {bound: value for bound, value in quantizer.named_parameters() if bound != "shift"}
                bounds |= {f"{name}.{operand}.{bound}": value for bound, value in learned.items()}
            if isinstance(layer.right, LearnableWeight) and self.weight_rate:
                weight = layer.right.weight
                size = float(weight.detach().abs().mean())
                weights.append(Group({f"{name}.right.weight": weight}, factor=self.weight_rate * size))
            if layer.bias is not None and self.bias_rate:
                biases.append(Group({f"{name}.bias": layer.bias}, factor=self.bias_rate * sizes.root_mean_square(name)))
        kinds = {"weights": weights, "biases": biases}
        if bounds and self.bound_rate:
            kinds["bounds"] = [Group(bounds, relative=True, factor=self.bound_rate)]
        if not self.alternating:
            kinds = {"all": [group for groups in kinds.values() for group in groups]}
        return tuple(Stage(kind, tuple(groups)) for kind, groups in kinds.items() if groups)


def _aligned(observed: Observed, plan: Plan) -> Observed:
    """Shifts in the shape in which they are subtracted: a convolution's channels come before height and width."""
    kinds = {target.multiplication.name: target.multiplication.kind for target in plan.targets}
    return {
        (name, operand): {**bounds, "shift": kinds[name].along_channels(bounds["shift"])}
        if "shift" in bounds
        else bounds
        for (name, operand), bounds in observed.items()
    }


@dataclass(frozen=True)
class OutputAndFeatures:
    """``mean |I − Î| + w · mean over feature layers of ‖F/‖F‖₂ − F̂/‖F̂‖₂‖₂``, images in [0, 1]."""

    feature_layers: Sequence[str]
    features: float
    parts: Sequence[str] = ("output", "features")

    def __call__(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        output = F.l1_loss(student.images, teacher.images)
        distances = [
            normalised_distance(student.features[name], teacher.features[name]).mean() for name in self.feature_layers
        ]
        features = torch.stack(distances).mean() if distances else torch.zeros_like(output)
        return {"output": output, "features": self.features * features}
