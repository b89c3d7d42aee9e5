"""2DQuant: distribution-oriented bound initialisation (DOBI), then distillation quantization calibration (DQC).

Source: "2DQuant: Low-bit Post-Training Quantization for Image Super-Resolution" (NeurIPS 2024) and its released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from srquant.images.calibration import SMALLEST_PATCH, Calibration
from srquant.learning.feature_distance import normalised_distance
from srquant.learning.finetuning import finetune
from srquant.learning.losses import Outputs
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Group, Stage
from srquant.methods.base import Batch, Factor, Method, ObservationSettings, Scope, WeightSettings
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_at_once
from srquant.methods.pipeline.plan import Plan, make_plan
from srquant.methods.pipeline.unfinished import unfinished
from srquant.methods.pipeline.work import Work, learning
from srquant.model import Model
from srquant.model.layer import QuantLayer
from srquant.model.swapping import swap
from srquant.quantizers.ranges import BoundSearch
from srquant.support.tensors import modules_of, vector_norm

_ONE_SIDED = ("softmax", "gelu", "relu", "silu")
"""Operators whose outputs crowd at a lower bound. The paper names the first two; the others do the same."""

_PAPER = LearningSettings(steps=3000, batch=32, micro_batch=8, rate=1e-2, schedule="cosine", cache=512)
_RELEASED = LearningSettings(steps=4000, batch=16, micro_batch=8, rate=1e-2, schedule="constant", beta2=0.99, cache=512)


@dataclass(frozen=True, kw_only=True)
class DOBI(Method):
    """Uniform quantizers per tensor, asymmetric for weights too, each with the best of 100 pairs of bounds.

    Roughly symmetric tensors are searched from both ends; tensors that come out of a softmax, a GELU or one of their
    kind from the upper end alone (see :class:`~srquant.quantizers.ranges.BoundSearch`). Which tensor is of which kind
    is read off the network: the operator whose output it is. Where something lies between that operator and the
    multiplication, as a pooling, values decide: a tensor without a value below zero counts as one-sided.

    Source: 2DQuant, DOBI. Its networks are SwinIR-light: q, k, v, proj, fc1, fc2 and both operands of both attention
    products of every block, 16 quantizers a block; convolutions stay float. Differs: long tensors are searched on an
    even sample of at least 130,000 values, with the extremes of all.
    """

    name = "dobi"

    scope: Scope = "auto"
    """As published for networks with attention; all of a convolutional one."""
    patches: Batch = 32
    """How many of the calibration patches are looked at: the paper's one batch."""
    patch: Annotated[int, Field(ge=SMALLEST_PATCH, le=4096)] = 64
    """Largest height and width of a patch; larger ones are cut again from the same images."""
    as_released: bool = False
    """As the released code computes it, which never takes the one-sided search."""
    weights: WeightSettings = field(default_factory=lambda: WeightSettings(range="bound_search", symmetric=False))
    observation: ObservationSettings = field(default_factory=lambda: ObservationSettings(batch=8))
    """``batch`` patches pass together, which bounds memory and changes nothing; there is no moving average."""

    def work(self, patches: Calibration, layers: int, multiply_adds: float) -> Work:
        return super().work(patches.at_most(self.patches, self.patch), layers, multiply_adds)

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        patches = calibration.at_most(self.patches, self.patch)
        return finish(model, plan, self.search(plan, patches), self, patches)

    def search(self, plan: Plan, patches: Calibration) -> dict[str, QuantLayer]:
        """Layers with the bounds that DOBI finds on these patches."""
        bounds = observe_at_once(plan, patches, self.observation.batch, self.range)
        return build_layers(plan, bounds, self, self.uniform)

    def range(self, bits: int, origin: str) -> BoundSearch:
        """The search for the output of an operator."""
        if self.as_released:
            return BoundSearch(bits)
        return BoundSearch(bits, "upper" if origin in _ONE_SIDED else "auto")


@dataclass(frozen=True, kw_only=True)
class TwoDQuant(DOBI):
    """DOBI, then all bounds learned together from the float network, on LR images alone.

    The loss is ``mean |O_q − O| + 5 · Σ ‖F_q/‖F_q‖₂ − F/‖F‖₂‖₂ / (C·H·W)`` (eq. 4–6): O the images in [0, 1], F the
    network's feature layers (in SwinIR the outputs of its RSTBs), each sample divided by its own norm, the sum taken
    over feature layers. Adam at an absolute rate of 0.01, betas 0.9 and 0.999, a cosine to zero, 3000 steps of 32
    patches 64×64. λ is not printed; 5 is the code's.

    Of a batch 8 patches go through the networks at once (``finetuning.micro_batch``; a GPU is faster with all), and
    their gradients are added up.

    Differs: patches are drawn from the calibration's, where the paper crops its whole training set anew in every step,
    and the last iterate is kept, not the best on Set5. A rate of 0.01 fits networks whose images lie in [0, 1]; where
    they lie in 0…255 bounds hardly move at it, and ``learning=relative`` is the way out. SwinIR fills its last windows
    by reflection, as its authors do; the release repeats the edge. A value equal to a bound passes its gradient on and
    gives the bound none, as ``torch.clamp`` has it; the release gives it to both, which on an attention map of mostly
    exact zeros decides the sign of the lower bound's gradient.

    ``as_released`` follows the code instead: betas 0.9 and 0.99, the rate constant, 4000 steps of 16 patches, DOBI from
    both ends for all tensors; the outputs of SwinIR's BasicLayers instead of its RSTBs; norms that are not
    differentiated; means of squares, all divided by numbers of elements once more (of one image for O, of all pairs of
    samples for F). The losses are then so small that Adam's ε = 1e-8 damps the steps. Differs: the code's norms are
    broadcast so that each sample is also divided by the norms of all others (here by its own), and it searches bounds
    with DropPath on, which moves half of them by up to 7.5 % of the range (the networks here have none).
    """

    name = "2dquant"

    features: Factor = 5.0
    """λ, weight of L_feature."""
    feature_mean: Literal["printed", "root"] = "printed"
    """What a distance of features is divided by: C·H·W, as eq. 5 prints it, or its square root, which makes a mean of
    the distance. Printed, the gradient of L_feature is 0.1 to 0.3 % of that of L_output (``docs/experiments.md``)."""
    learning: Literal["absolute", "relative"] = "absolute"
    """Whether Adam's rate is absolute, as published, or relative to each bound."""
    finetuning: LearningSettings = _PAPER

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.as_released and self.finetuning is _PAPER:  # not one that a user made
            object.__setattr__(self, "finetuning", _RELEASED)

    @classmethod
    def dependent_defaults(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"finetuning": _RELEASED if values["as_released"] else _PAPER}

    def work(self, patches: Calibration, layers: int, multiply_adds: float) -> Work:
        learned = learning(patches.at_most(len(patches), self.patch), self.finetuning)
        return super().work(patches, layers, multiply_adds) + learned

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        layers = self.search(plan, calibration.at_most(self.patches, self.patch))
        patches = calibration.at_most(len(calibration), self.patch)
        student = swap(plan.network, layers)
        layer_names, divided = plan.network.feature_layers, self.finetuning.batch if self.as_released else None
        if self.as_released:
            inner = {name: f"{name}.residual_group" for name in layer_names}
            known = modules_of(plan.network)
            layer_names = tuple(inner[name] if inner[name] in known else name for name in layer_names)
        loss = DistillationLoss(layer_names, self.features, self.feature_mean, divided)
        kept = unfinished(state, self, self.finetuning, model)
        curve = finetune(student, plan.network, patches, (self.stage(layers),), loss, self.finetuning, kept)
        return finish(model, plan, layers, self, patches, curve)

    def stage(self, layers: Mapping[str, QuantLayer]) -> Stage:
        """All bounds at once."""
        bounds: dict[str, nn.Parameter] = {}
        for name, layer in layers.items():
            for operand, quantizer in layer.quantizers().items():
                bounds |= {f"{name}.{operand}.{bound}": value for bound, value in quantizer.named_parameters()}
        return Stage("bounds", (Group(bounds, relative=self.learning == "relative"),))


@dataclass(frozen=True)
class DistillationLoss:
    """``L_output + w · L_feature``; see :class:`TwoDQuant`.

    Args:
        feature_layers: Modules whose outputs are compared; without any L_feature is zero.
        features: w.
        mean: What distances are divided by: the number of a sample's values, or its square root.
        divided: As released: the number of patches in a batch.
    """

    feature_layers: Sequence[str]
    features: float = 5.0
    mean: Literal["printed", "root"] = "printed"
    divided: int | None = None
    parts: Sequence[str] = ("L_output", "L_feature")

    def __call__(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        output = F.l1_loss(student.images, teacher.images)
        distance = self._distance if self.divided is None else self._as_released
        terms = [distance(student.features[layer], teacher.features[layer]) for layer in self.feature_layers]
        feature = torch.stack(terms).sum() if terms else torch.zeros_like(output)
        if self.divided is not None:
            output = output / student.images[0].numel()
        return {"L_output": output, "L_feature": self.features * feature}

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Eq. 5, the mean over samples."""
        count = student[0].numel()
        return normalised_distance(student, teacher).mean() / (count if self.mean == "printed" else count**0.5)

    def _as_released(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean of squares, norms not differentiated, divided by the elements of all pairs of samples."""
        axes = tuple(range(1, student.ndim))
        near, far = (x / vector_norm(x.detach(), axes, keepdim=True) for x in (student, teacher))
        return F.mse_loss(near, far) / (cast(int, self.divided) ** 2 * student[0].numel())
