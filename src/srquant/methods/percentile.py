"""Percentile: bounds that cut a part of the values off each side."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from srquant.images.calibration import Calibration
from srquant.methods.base import Method, Quantile, WeightSettings
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from srquant.model import Model
from srquant.quantizers.ranges import PercentileRange
from srquant.support.settings import Former


@dataclass(frozen=True, kw_only=True)
class Percentile(Method):
    """Uniform activations between the 1st and the 99th percentile; symmetric weights up to the 99th percentile of their
    magnitude.

    Source: the Percentile row of OAPTQ table 1, and the code base that it stands on, which clips weights too.
    ``weights.range=min_max`` shows what clipping activations alone does.
    """

    name = "percentile"
    former: ClassVar[Former] = {"share": ("quantile", {})}

    quantile: Quantile = 0.99
    """0.99 cuts 1 % off each side of activations."""
    weights: WeightSettings = field(default_factory=lambda: WeightSettings(range="percentile"))

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        bounds = observe_ranges(plan, calibration, self, lambda bits: PercentileRange(self.quantile))
        layers = build_layers(plan, bounds, self, self.uniform)
        return finish(model, plan, layers, self, calibration)
