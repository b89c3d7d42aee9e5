"""MSE: bounds of least squared error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from srquant.images.calibration import Calibration
from srquant.methods.base import Method, WeightSettings
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from srquant.model import Model
from srquant.quantizers.ranges import JointShrink, LeastSquares, Range

_JOINT, _EACH_END = WeightSettings(range="joint_shrink"), WeightSettings(range="least_squares")


@dataclass(frozen=True, kw_only=True)
class MSE(Method):
    """Uniform activations and symmetric weights, all with bounds that lessen the squared error.

    ``search=joint`` shrinks both ends of a range together; ``search=each_end`` looks for each end alone and errs less:
    it is ours, and its scores do not stand for the paper's row.

    Source: the MSE row of OAPTQ table 1, which names no search; AdaBM's released code, which that table stands on
    (:class:`~srquant.quantizers.ranges.JointShrink`). Differs: the code starts a weight's search at the largest signed
    weight, which is the wrong side of some; here it starts at the largest magnitude.
    """

    name = "mse"

    search: Literal["joint", "each_end"] = "joint"
    """For bounds: both ends shrunk by one factor, or each end by its own (ours,
    :class:`~srquant.quantizers.ranges.LeastSquares`)."""
    weights: WeightSettings = _JOINT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search == "each_end" and self.weights is _JOINT:  # not one that a user made
            object.__setattr__(self, "weights", _EACH_END)

    @classmethod
    def dependent_defaults(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"weights": _JOINT if values["search"] == "joint" else _EACH_END}

    def quantize(self, model: Model, calibration: Calibration, state: Path | str | None = None) -> Model:
        plan = make_plan(model, self)
        bounds = observe_ranges(plan, calibration, self, self.range)
        layers = build_layers(plan, bounds, self, self.uniform)
        return finish(model, plan, layers, self, calibration)

    def range(self, bits: int) -> Range:
        """The rule for the bounds of a batch."""
        return JointShrink(bits, grid=self.grid) if self.search == "joint" else LeastSquares(bits, grid=self.grid)
