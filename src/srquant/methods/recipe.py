"""Our own recipe: everything that helped, in one configuration for all networks and bits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from srquant.images.calibration import Calibration
from srquant.images.covering import Covering
from srquant.images.cutting import Pieces
from srquant.learning.finetuning import finetune
from srquant.learning.guard import Guard
from srquant.learning.losses import OutputAndFeatures
from srquant.learning.settings import LearningSettings
from srquant.methods.base import Factor, Method, WeightSettings
from srquant.methods.pipeline.effort import Effort, steps_of
from srquant.methods.pipeline.everything import Rates, everything
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.image_offsets import image_offsets
from srquant.methods.pipeline.plan import Plan, asked_for, make_plan
from srquant.methods.pipeline.samples import Samples, work_of_samples
from srquant.methods.pipeline.spare import spare, work_of_sparing
from srquant.methods.pipeline.start import Start, start_layers
from srquant.methods.pipeline.unfinished import unfinished
from srquant.methods.pipeline.work import Work, learning
from srquant.model import Model
from srquant.model.preparing import Norms
from srquant.model.swapping import swap
from srquant.support.errors import ArgumentError
from srquant.support.settings import Former

_WIDE = 8
"""Bits with which nothing has to be learned."""
_FASTER = {2: 4.0, 3: 2.5, 4: 1.5}
"""Factors on the rate of learning, by bits."""
_SPARED = {True: 0.03, False: 0.08}
"""Parts of the multiply-adds, at eight bits and below."""
_LOOKED_AT = {True: 24, False: 72}
"""Photographs on whose values levels are chosen, at eight bits and below, where drawings must not outweigh them."""
_WEIGHED = 4, 32
"""Patches on which layers are weighed, drawings aside, and their size."""
_HELD_OUT = 8
"""Patches that nothing is learned from, and as many drawings."""


@dataclass(frozen=True, kw_only=True)
class SRQuant(Method):
    """Levels that each layer's output loses least by, weights by GPTQ, the few layers that cost most with more bits;
    then, below eight bits, levels, bounds, weights and biases learned together from the float network.

    Differs from OAPTQ: levels are chosen by the error of outputs, channels have a centre or a scale of their own where
    that helps, weights have a bound for each channel and are rounded by the inputs they meet, drawings are among the
    patches, many small patches are learned from, everything is learned at once, weights move (so that rounding is
    learned), and what patches that were held out do not confirm is taken back.

    Source: ours.
    """

    name = "srquant"
    former: ClassVar[Former] = {"levels": ("levels", {"free": "non_uniform", "scaled": "auto"})}

    levels: Literal["auto", "non_uniform", "piecewise"] = "auto"
    """Of activations of fewer than eight bits: ``non_uniform`` (:class:`~srquant.quantizers.NonUniform`), which has the
    least error; ``piecewise`` as in PLQ, which costs less to compute; ``auto`` is piecewise on an int8 grid and
    non-uniform otherwise. With eight bits steps are equal, on integers."""
    drawings: Annotated[int, Field(ge=0, le=1000)] = 12
    """Drawings among the calibration patches (:mod:`~srquant.images.drawings`)."""
    saturated: Annotated[int, Field(ge=0, le=1000)] = 4
    """Calibration patches that come again with stronger colours."""
    spare: Annotated[float, Field(ge=0, le=1)] | None = None
    """Part of the multiply-adds that may have eight bits, or stay float in a network of eight bits, where that helps
    most. None: 0.03 at eight bits, 0.08 below."""
    gptq: bool = True
    """Round weights by the inputs they meet (GPTQ), instead of each for itself, before anything is learned."""
    norms: Norms = "folded"
    """Weights have a bound for each channel, which takes the norm's factors in; and a file has nothing left to do."""
    weights: WeightSettings = field(
        default_factory=lambda: WeightSettings(range="least_squares", granularity="per_channel")
    )
    effort: Effort = "standard"
    """How long to learn where ``finetuning`` does not say: ``none``, ``quick``, ``standard`` or ``thorough``, budgets
    of steps and of multiply-adds (:mod:`~srquant.methods.pipeline.effort`); at eight bits nothing is learned."""
    piece: Annotated[int, Field(ge=16, le=4096)] = 32
    """Height and width of what is learned from, cut out of the calibration patches: at as many pixels, many small
    pieces are better than few large ones."""
    rates: Rates = field(default_factory=Rates)
    features: Factor = 0.02
    """Weight of the distance of normalised features, the mean over the network's feature layers."""
    finetuning: LearningSettings = field(
        default_factory=lambda: LearningSettings(epochs=None, batch=1, rate=1e-3, schedule="cosine")
    )
    """The rate is taken four, two and a half and one and a half times at two, three and four bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels == "non_uniform" and self.grid == "int8":
            raise ArgumentError(
                "levels=non_uniform with grid=int8: non-uniform levels lie on no integers; use levels=auto or piecewise"
            )

    def work(self, patches: Calibration, layers: int, multiply_adds: float) -> Work:
        number, size = self.drawings + self.saturated, min(self.piece, patches.size)
        start = work_of_samples(patches, number, _LOOKED_AT[self.bits == _WIDE]) + work_of_sparing(
            _WEIGHED[0] + number, _WEIGHED[1], layers
        )
        settings = self._learning(multiply_adds, size)
        return start if settings is None else start + learning(patches, settings, size)

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        patches = Covering(calibration, self.drawings, self.saturated)
        samples, start = Samples(plan, patches, _LOOKED_AT[self.bits == _WIDE]), self._start(plan, calibration)
        layers = start_layers(plan, samples, start)
        free_to_choose = [
            target.multiplication.name
            for target in plan.targets
            if not asked_for(target.multiplication.name, self)
            and (self.bits == _WIDE or target.activation_bits < _WIDE)
        ]
        spared = spare(plan, layers, patches.sample(*_WEIGHED), self._spared, free_to_choose)
        if self.bits == _WIDE:
            plan = plan.sparing(spared)
            layers = {name: layer for name, layer in layers.items() if name not in spared}
        else:
            plan = plan.widening(spared, _WIDE)
            layers |= start_layers(plan.only(spared), samples, start)
        pieces = Pieces(patches, self.piece)
        settings = self._learning(plan.survey.multiply_adds, pieces.side)
        stages = everything(layers, samples.output_sizes, self.rates)
        curve = ()
        if settings is not None and stages:
            student = swap(plan.network, layers)
            guard = Guard(student, plan.network, patches.held_out(_HELD_OUT))
            loss = OutputAndFeatures(plan.network.feature_layers, self.features)
            kept = unfinished(state, self, self.finetuning, model)
            curve = finetune(student, plan.network, pieces, stages, loss, settings, kept, guard)
        return finish(model, plan, layers, self, patches, curve)

    def _start(self, plan: Plan, calibration: Calibration) -> Start:
        # A network of eight bits lies on integers whatever its exceptions are, so that it can be exported.
        free = self.grid == "free" and (self.bits != _WIDE or self.levels == "non_uniform")
        levels = self.levels if self.levels != "auto" else "non_uniform" if free else "piecewise"
        offsets = image_offsets(plan, calibration) if free and self.bits != _WIDE else {}
        return Start(levels, "free" if free else "int8", self.weights, offsets, self.gptq)

    @property
    def _spared(self) -> float:
        return _SPARED[self.bits == _WIDE] if self.spare is None else self.spare

    def _learning(self, multiply_adds: float, side: int) -> LearningSettings | None:
        settings = replace(self.finetuning, rate=self.finetuning.rate * _FASTER.get(self.bits, 1.0))
        if settings.epochs is not None or settings.steps is not None:
            return settings
        steps = 0 if self.bits == _WIDE else steps_of(self.effort, multiply_adds, settings.batch * side**2)
        return replace(settings, steps=steps) if steps else None
