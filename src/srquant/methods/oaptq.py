"""OAPTQ, outlier-aware post-training quantization: the piecewise-linear quantizer (PLQ) and sensitivity-aware
finetuning (SAFT).

Source: "Outlier-Aware Post-Training Quantization for Image Super-Resolution". There is no public code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from srquant.images.calibration import Calibration
from srquant.learning.finetuning import finetune
from srquant.learning.sensitivity import SensitivityLoss, Weighting, sensitivities
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Group, Stage
from srquant.methods.base import Factor, Method
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.output_sizes import OutputSizes
from srquant.methods.pipeline.plan import make_plan
from srquant.methods.pipeline.unfinished import unfinished
from srquant.methods.pipeline.work import Work, learning
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
    """Piecewise-linear activations between the extremes, the breakpoint at a percentile of the values; symmetric
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
    """Where the breakpoint lies: 0.99 is the 99th percentile (algorithm 1)."""
    breakpoint: Literal["signed", "magnitude"] = "signed"
    """Percentile of x, as the paper prints it three times, without its sign; or of |x|."""
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
        """MinMaxRange, and the percentile."""
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
    Differs: a rate of 0.001 is printed, without its unit. Of all readings, steps of 0.01 on bounds of images in 0…255
    come nearest to the paper's ablation: the part of the loss that finetuning wins back, and that PLQ stays ahead of
    uniform quantizers (``docs/experiments.md``). They are those of AdaBM, on whose code the paper's experiments stand.
    ``finetuning.rate=0.001`` is the print. ``learning=relative`` loses least, but lets uniform quantizers catch up with
    PLQ. The softmax of eq. 4 leaves a single layer in L_sen (``sensitivity``). A weight's bound, which absolute steps
    can make several times as large, stays within the weight's largest magnitude.
    """

    name = "oaptq"

    quantizer: Literal["plq", "uniform"] = "plq"
    """``uniform`` finetunes MinMax instead of PLQ: the rows of table 4 without PLQ. It has no breakpoints; the other
    two kinds of bounds take turns."""
    sensitivity: Weighting = "proportional"
    """s_k of layer k from its σ_k: ``proportional`` σ_k/Σσ; ``normalised`` softmax of σ_k over the mean of all σ;
    ``raw`` softmax of σ_k, as eq. 4 prints it, where the layer with the largest gets all; ``uniform`` 1/K each, which
    is the paper's vanilla finetuning (VFT)."""
    sensitivity_of: Literal["input", "output"] = "input"
    """Whose standard deviation σ_k is: of what goes into layer k, x_k as in eq. 1–3 and in AdaBM's code, or of what
    comes out, a feature map as the text says."""
    reconstruction: Factor = 5.0
    """λ, weight of L_rec (§4.1)."""
    learning: Literal["absolute", "relative"] = "absolute"
    """Whether Adam's rate is a step on bounds of images in 0…255 (on activations of a network in [0, 1] it is a 255th),
    or relative to each bound."""
    finetuning: LearningSettings = field(default_factory=lambda: LearningSettings(rate=1e-2))

    def work(self, patches: Calibration, layers: int, multiply_adds: float) -> Work:
        return super().work(patches, layers, multiply_adds) + learning(patches, self.finetuning)

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        sizes = OutputSizes()
        seen = {f"{self.sensitivity_of}s": sizes}
        bounds = observe_ranges(plan, calibration, self, self.range, **seen)
        layers = build_layers(plan, bounds, self, self.activation_quantizer)
        student = swap(plan.network, layers)
        loss = SensitivityLoss(sensitivities(sizes.deviations(), self.sensitivity), self.reconstruction)
        kept = unfinished(state, self, self.finetuning, model)
        curve = finetune(
            student,
            plan.network,
            calibration,
            self.stages(layers, plan.network.value_range),
            loss,
            self.finetuning,
            kept,
        )
        return finish(model, plan, layers, self, calibration, curve)

    def range(self, bits: int) -> Range:
        if self.quantizer == "uniform" and self.bounds == "least_squares":
            return LeastSquares(bits, grid=self.grid)
        return super().range(bits)

    def activation_quantizer(self, bits: int, bounds: Mapping[str, Tensor]) -> Quantizer:
        if self.quantizer == "uniform":
            return self.uniform(bits, bounds)
        return super().activation_quantizer(bits, bounds)

    def stages(self, layers: Mapping[str, QuantLayer], value_range: float) -> tuple[Stage, ...]:
        """u_w; l and u; bp: those that there are, in this order."""
        kinds: dict[str, dict[str, nn.Parameter]] = {"weights": {}, "ranges": {}, "breakpoints": {}}
        largest: dict[str, Tensor] = {}
        for layer_name, layer in layers.items():
            for operand, quantizer in layer.quantizers().items():
                for name, bound in quantizer.named_parameters():
                    kind = "breakpoints" if name == "breakpoint" else "ranges"
                    if kind == "breakpoints" and not getattr(quantizer, "bent", True):
                        continue
                    full = f"{layer_name}.{operand}.{name}"
                    if operand == "right" and isinstance(layer.right, LearnableWeight):
                        kind, largest[full] = "weights", layer.right.weight.detach().abs().max()
                    kinds[kind][full] = bound
        relative = self.learning == "relative"
        factors = {"weights": 1.0} if not relative else dict.fromkeys(kinds, 1.0)
        return tuple(
            Stage(name, (Group(bounds, relative, factors.get(name, value_range / 255), largest),))
            for name, bounds in kinds.items()
            if bounds
        )
