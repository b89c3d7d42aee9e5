"""OAPTQ, outlier-aware post-training quantization: the piecewise-linear quantizer (PLQ) and sensitivity-aware
finetuning (SAFT).

Source: "Outlier-Aware Post-Training Quantization for Image Super-Resolution". There is no public code.
"""

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
from srquant.learning.feature_distance import normalised_distance
from srquant.learning.finetuning import finetune
from srquant.learning.losses import Outputs
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Group, Stage
from srquant.methods.base import Factor, Method
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.output_sizes import OutputSizes
from srquant.methods.pipeline.plan import make_plan
from srquant.methods.pipeline.unfinished import unfinished
from srquant.model import Model
from srquant.model.layer import LearnableWeight, QuantLayer
from srquant.model.swapping import swap
from srquant.quantizers import PiecewiseLinear, Quantizer, candidate_levels, find_sides
from srquant.quantizers.piecewise_linear import Form
from srquant.quantizers.ranges import Bounds, LeastSquares, MinMaxRange, PiecewiseSearch, Range, quantile
from srquant.support.errors import ArgumentError
from srquant.support.settings import Former


@dataclass(frozen=True, kw_only=True)
class PLQ(Method):
    """Piecewise-linear activations between the extremes, the breakpoint at a percentile of the magnitude; symmetric
    weights up to the largest magnitude. All bounds are moving averages over batches.

    Source: OAPTQ §3.2, eq. 3, algorithm 1 (calibration); the PLQ row of table 4.
    """

    name = "plq"
    former: ClassVar[Former] = {"share": ("quantile", {})}

    plq: Form = "distinct"
    """Where the outlier levels lie; see :class:`~srquant.quantizers.PiecewiseLinear`."""
    reallocate: bool = True
    """Give the codes of a side without outliers to the other side; false reads eq. 3 literally."""
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Of the magnitudes, where the breakpoint lies: 0.99 is the 99th percentile (algorithm 1)."""
    breakpoint: Literal["magnitude", "signed"] = "magnitude"
    """Percentile of |x|, or of x, as one line of algorithm 1 prints it."""
    bounds: Literal["percentile", "least_squares"] = "percentile"
    """How bounds are found: the extremes and a percentile, or searched by least squared error (ours, not the paper's;
    see :class:`~srquant.quantizers.ranges.PiecewiseSearch`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid == "int8" and self.plq == "literal":
            raise ArgumentError("grid=int8 with plq=literal: its outliers start at the breakpoint; use plq=distinct")

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        bounds = observe_ranges(plan, calibration, self, self.range)
        layers = build_layers(plan, bounds, self, self.activation_quantizer)
        return finish(model, plan, layers, self, calibration)

    def range(self, bits: int) -> Range:
        """The rule for lower and upper bound and breakpoint of a batch."""
        if self.bounds == "least_squares":
            levels = partial(candidate_levels, form=self.plq, reallocate=self.reallocate, grid=self.grid)
            return PiecewiseSearch(partial(levels, bits=bits))
        return self.measure

    def measure(self, rows: Tensor) -> Bounds:
        """MinMaxRange, and the percentile of the magnitude."""
        found = quantile(rows, self.quantile, magnitude=self.breakpoint == "magnitude")
        return {**MinMaxRange()(rows), "breakpoint": found.abs()}

    def activation_quantizer(self, bits: int, bounds: Mapping[str, Tensor]) -> Quantizer:
        """The quantizer of averaged bounds."""
        found = bounds["lower"], bounds["upper"], bounds["breakpoint"]
        sides = find_sides(*found) if self.reallocate else "both"
        return PiecewiseLinear(bits, *found, form=self.plq, sides=sides, grid=self.grid)


@dataclass(frozen=True, kw_only=True)
class OAPTQ(PLQ):
    """PLQ, then finetuning of all bounds on the calibration patches, with the float network as teacher.

    Epoch e learns the weights' bounds u_w if e mod 3 = 1, the activations' l and u if 2, the breakpoints if 0
    (algorithm 1). The loss is L_sen + λ·L_rec: eq. 6 weighs the distance of every quantized layer's normalised output
    from the teacher's by the layer's sensitivity; eq. 5 is the L1 distance of the images in [0, 1].

    Source: OAPTQ §3.3, eq. 4–7, algorithm 1, §4.1.
    Differs: bounds take relative steps by default (``learning``); sensitivities are normalised before the softmax
    (``sensitivity``). Both as printed do not work on networks with images in 0…255; both can be asked for.
    """

    name = "oaptq"

    quantizer: Literal["plq", "uniform"] = "plq"
    """``uniform`` finetunes MinMax instead of PLQ: the rows of table 4 without PLQ. It has no breakpoints; the other
    two kinds of bounds take turns."""
    sensitivity: Literal["normalised", "raw", "uniform"] = "normalised"
    """Of layer k, eq. 4: softmax of σ_k, ``normalised`` by the mean of all σ; ``raw`` as printed, which overflows where
    σ reaches 100; ``uniform`` 1/K each, which is the paper's vanilla finetuning (VFT)."""
    reconstruction: Factor = 5.0
    """λ, weight of L_rec (§4.1)."""
    learning: Literal["relative", "absolute"] = "relative"
    """Whether Adam's rate is relative to each bound or absolute, as printed (then a bound of 200 hardly moves)."""
    finetuning: LearningSettings = field(default_factory=LearningSettings)

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        sizes = OutputSizes()
        bounds = observe_ranges(plan, calibration, self, self.range, sizes)
        layers = build_layers(plan, bounds, self, self.activation_quantizer)
        student = swap(plan.network, layers)
        loss = SensitivityLoss(sensitivities(sizes.deviations(), self.sensitivity), self.reconstruction)
        kept = unfinished(state, self, self.finetuning, model)
        curve = finetune(student, plan.network, calibration, self.stages(layers), loss, self.finetuning, kept)
        return finish(model, plan, layers, self, calibration, curve)

    def range(self, bits: int) -> Range:
        if self.quantizer == "uniform" and self.bounds == "least_squares":
            return LeastSquares(bits, grid=self.grid)
        return super().range(bits)

    def activation_quantizer(self, bits: int, bounds: Mapping[str, Tensor]) -> Quantizer:
        if self.quantizer == "uniform":
            return self.uniform(bits, bounds)
        return super().activation_quantizer(bits, bounds)

    def stages(self, layers: Mapping[str, QuantLayer]) -> tuple[Stage, ...]:
        """u_w; l and u; bp: those that there are, in this order."""
        kinds: dict[str, dict[str, nn.Parameter]] = {"weights": {}, "ranges": {}, "breakpoints": {}}
        for layer_name, layer in layers.items():
            for operand, quantizer in layer.quantizers().items():
                for name, bound in quantizer.named_parameters():
                    kind = "breakpoints" if name == "breakpoint" else "ranges"
                    if kind == "breakpoints" and not getattr(quantizer, "bent", True):
                        continue
                    kind = "weights" if operand == "right" and isinstance(layer.right, LearnableWeight) else kind
                    kinds[kind][f"{layer_name}.{operand}.{name}"] = bound
        relative = self.learning == "relative"
        return tuple(Stage(name, (Group(bounds, relative),)) for name, bounds in kinds.items() if bounds)


def sensitivities(spread: Mapping[str, float], kind: Literal["normalised", "raw", "uniform"]) -> dict[str, float]:
    """s_k of each layer, eq. 4; they sum to one. Overflow is avoided by subtracting the largest exponent."""
    values = torch.tensor(list(spread.values()), dtype=torch.float64)
    if kind == "uniform":
        values = torch.zeros_like(values)
    elif kind == "normalised":
        values = values / values.mean().clamp(min=1e-12)
    return {name: float(value) for name, value in zip(spread, values.softmax(0), strict=True)}


@dataclass(frozen=True)
class SensitivityLoss:
    """L_sen + λ·L_rec, eq. 5–7.

    ``L_sen = 1/K · Σ_k s_k · mean over samples of ‖F_k/‖F_k‖₂ − F̂_k/‖F̂_k‖₂‖₂``, ``L_rec = mean |I − Î|`` with images
    in [0, 1]; in 0…255 it would swamp L_sen.
    """

    sensitivities: Mapping[str, float]
    reconstruction: float
    parts: Sequence[str] = ("L_sen", "L_rec")

    @property
    def feature_layers(self) -> Sequence[str]:
        """The quantized layers."""
        return list(self.sensitivities)

    def __call__(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        terms = [
            weight * normalised_distance(student.features[name], teacher.features[name]).mean()
            for name, weight in self.sensitivities.items()
        ]
        rec = F.l1_loss(student.images, teacher.images)
        return {"L_sen": torch.stack(terms).sum() / len(terms), "L_rec": self.reconstruction * rec}
