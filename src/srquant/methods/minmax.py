"""MinMax: bounds at the extremes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srquant.images.calibration import Calibration
from srquant.methods.base import Method
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from srquant.model import Model
from srquant.quantizers.ranges import MinMaxRange


@dataclass(frozen=True, kw_only=True)
class MinMax(Method):
    """Uniform activations between the smallest and the largest value, averaged over batches; symmetric weights up to
    the largest magnitude.

    Source: the MinMax row of OAPTQ tables 1 and 4.
    """

    name = "minmax"

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        bounds = observe_ranges(plan, calibration, self, lambda bits: MinMaxRange())
        layers = build_layers(plan, bounds, self, self.uniform)
        return finish(model, plan, layers, self, calibration)
