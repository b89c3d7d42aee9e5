"""Percentile: bounds that cut a part of the values off each side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from srquant.images.calibration import Calibration
from srquant.methods.base import Method, Quantile
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from srquant.model import Model
from srquant.quantizers.ranges import PercentileRange
from srquant.support.settings import Former


@dataclass(frozen=True, kw_only=True)
class Percentile(Method):
    """Uniform activations between the 1st and the 99th percentile; weights as in MinMax.

    Source: the Percentile row of OAPTQ table 1. Differs: the paper does not say how weights are treated in that row;
    their extremes are kept here, so that the row shows what clipping activations does.
    """

    name = "percentile"
    former: ClassVar[Former] = {"share": ("quantile", {})}

    quantile: Quantile = 0.99
    """0.99 cuts 1 % off each side."""

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        bounds = observe_ranges(plan, calibration, self, lambda bits: PercentileRange(self.quantile))
        layers = build_layers(plan, bounds, self, self.uniform)
        return finish(model, plan, layers, self, calibration)
