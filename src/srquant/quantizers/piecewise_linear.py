"""The piecewise-linear quantizer (PLQ): fine steps for the many small values, coarse ones for the few outliers."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from srquant.errors import ArgumentError
from srquant.functional import Steps
from srquant.quantizers.base import NARROWEST, Quantizer, check_bits

Form = Literal["distinct", "literal"]
Sides = Literal["both", "upper", "lower", "none"]


class PiecewiseLinear(Quantizer):
    """Half the codes for the dense region [−bp, bp], a quarter for the outliers on each side of it.

    - ``distinct`` (default): outlier levels at bp + (k+1)·(u − bp)/2^(b−2), k = 0 … 2^(b−2) − 1, so that u is a level
      and none coincides with ±bp.
    - ``literal``: end points as eq. 3 prints them: bp and u are both outlier levels, so the level ±bp exists twice and
      2^b − 2 values are distinct. At 2 bits the equation divides by zero; there one level lies in the middle of each
      side.

    A value goes to its nearest level. (Read literally, eq. 3 sends a value just above bp to the first outlier level
    even where bp is nearer; in the literal form that level is bp itself, so both readings agree.)

    One side may have no outliers, as after a ReLU. Then its codes go to the other side (``sides="upper"`` or
    ``"lower"``) and the dense region ends at the bound; without outliers on either side the quantizer is uniform with
    2^b levels (``"none"``). Eq. 3 as printed is ``sides="both"``, whatever the range. Which case holds is decided once,
    by :func:`find_sides` at calibration, so that bounds can be learned without codes changing their meaning.

    Source: OAPTQ §3.2, eq. 3. Differs: the paper does not speak of empty sides; see above.
    """

    name = "piecewise_linear"

    def __init__(
        self,
        bits: int,
        lower: Tensor,
        upper: Tensor,
        breakpoint: Tensor,
        form: Form = "distinct",
        sides: Sides = "both",
    ) -> None:
        super().__init__()
        check_bits(bits)
        if form not in ("distinct", "literal") or sides not in ("both", "upper", "lower", "none"):
            raise ArgumentError(
                f"form={form!r}, sides={sides!r}: use distinct or literal, and both, upper, lower or none"
            )
        self.bits = bits
        self.form: Form = form
        self.sides: Sides = sides
        self.steps = _steps(bits, form, sides)
        self.lower = nn.Parameter(lower.detach().clone())
        self.upper = nn.Parameter(upper.detach().clone())
        self.breakpoint = nn.Parameter(breakpoint.detach().clone())

    def constrain(self) -> None:
        """Keep 0 < bp < max(|l|, u), and l < u."""
        reach = torch.maximum(self.lower.abs(), self.upper.abs())
        self.upper.copy_(torch.maximum(self.upper, self.lower + NARROWEST * reach))
        reach = torch.maximum(self.lower.abs(), self.upper.abs())
        self.breakpoint.copy_(torch.minimum(torch.maximum(self.breakpoint, NARROWEST * reach), (1 - NARROWEST) * reach))

    def arguments(self) -> dict[str, Any]:
        return {"bits": self.bits, "form": self.form, "sides": self.sides}

    def knots(self) -> Tensor:
        low, high, dense = self.lower, self.upper, self.breakpoint
        if self.sides == "none":
            return torch.stack((low, high), -1)
        if self.form == "literal" and self.bits == 2 and self.sides == "both":
            low, high = (low - dense) / 2, (high + dense) / 2
        if self.sides == "upper":
            return torch.stack((low, dense, high), -1)
        if self.sides == "lower":
            return torch.stack((low, -dense, high), -1)
        return torch.stack((torch.minimum(low, -dense), -dense, dense, torch.maximum(high, dense)), -1)


def find_sides(lower: Tensor, upper: Tensor, breakpoint: Tensor) -> Sides:
    """Which sides of [−bp, bp] have outliers.

    Bounds per channel are judged together: a side counts as soon as one channel has outliers there.
    """
    above, below = bool((upper > breakpoint).any()), bool((lower < -breakpoint).any())
    if above and below:
        return "both"
    return "upper" if above else ("lower" if below else "none")


def _steps(bits: int, form: Form, sides: Sides) -> Steps:
    dense = (1 << (bits - 1)) - 1
    if sides == "none":
        return ((1 << bits) - 1,)
    outliers = 1 << (bits - 2) if sides == "both" else 1 << (bits - 1)
    if form == "literal":
        outliers = max(outliers - 1, 1)  # 1 at 2 bits: the level in the middle of the side
    return {"both": (outliers, dense, outliers), "upper": (dense, outliers), "lower": (outliers, dense)}[sides]
