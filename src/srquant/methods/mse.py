"""MSE: bounds of least squared error."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from srquant.images.calibration import Calibration
from srquant.methods.base import Method, WeightSettings
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from srquant.model import Model
from srquant.quantizers.ranges import LeastSquares


@dataclass(frozen=True, kw_only=True)
class MSE(Method):
    """Uniform activations and symmetric weights, all with the bounds that minimise the squared error.

    Source: the MSE row of OAPTQ table 1, which names no search; see :class:`~srquant.quantizers.ranges.LeastSquares`.
    """

    name = "mse"

    weights: WeightSettings = field(default_factory=lambda: WeightSettings(range="least_squares"))

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        bounds = observe_ranges(plan, calibration, self, lambda bits: LeastSquares(bits, grid=self.grid))
        layers = build_layers(plan, bounds, self, self.uniform)
        return finish(model, plan, layers, self, calibration)
