"""The piecewise-linear quantizer (PLQ): fine steps for the many small values, coarse ones for the few outliers."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from srquant.errors import ArgumentError
from srquant.functional import Steps, grid_levels
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
        return _knots(self.lower, self.upper, self.breakpoint, self.bits, self.form, self.sides)


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


def _knots(lower: Tensor, upper: Tensor, dense: Tensor, bits: int, form: Form, sides: Sides) -> Tensor:
    if sides == "none":
        return torch.stack((lower, upper), -1)
    if form == "literal" and bits == 2 and sides == "both":
        lower, upper = (lower - dense) / 2, (upper + dense) / 2
    if sides == "upper":
        return torch.stack((lower, dense, upper), -1)
    if sides == "lower":
        return torch.stack((lower, -dense, upper), -1)
    return torch.stack((torch.minimum(lower, -dense), -dense, dense, torch.maximum(upper, dense)), -1)


def candidate_levels(
    lower: Tensor, upper: Tensor, breakpoint: Tensor, *, bits: int, form: Form, reallocate: bool = True
) -> Tensor:
    """Levels of many piecewise-linear quantizers at once, each with the sides that :func:`find_sides` gives it alone.

    Args:
        lower: Any shape; so ``upper`` and ``breakpoint``.
        upper: See above.
        breakpoint: See above.
        bits: As of :class:`PiecewiseLinear`.
        form: As of :class:`PiecewiseLinear`.
        reallocate: Give the codes of an empty side away.

    Returns:
        ``(..., 2^bits)``, increasing; where there are fewer levels the largest is repeated.
    """
    above, below = upper > breakpoint, lower < -breakpoint
    cases: dict[Sides, Tensor] = {"upper": above & ~below, "lower": below & ~above, "none": ~above & ~below}
    levels = _levels(lower, upper, breakpoint, bits, form, "both")
    for sides, case in cases.items() if reallocate else ():
        levels = torch.where(case[..., None], _levels(lower, upper, breakpoint, bits, form, sides), levels)
    return levels


def _levels(lower: Tensor, upper: Tensor, dense: Tensor, bits: int, form: Form, sides: Sides) -> Tensor:
    levels = grid_levels(_knots(lower, upper, dense, bits, form, sides), _steps(bits, form, sides))
    missing = (1 << bits) - levels.shape[-1]
    return torch.cat((levels, levels[..., -1:].expand(*levels.shape[:-1], missing)), -1)
