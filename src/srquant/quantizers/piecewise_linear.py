"""The piecewise-linear quantizer (PLQ): small intervals for the many small values, large ones for the few outliers."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from srquant.quantizers.base import BITS, NARROWEST, Quantizer, check_bits, check_grid
from srquant.quantizers.numerics.grid import Intervals, grid_levels
from srquant.quantizers.numerics.integers import WIDTH, Grid, short, uniform_knots, whole
from srquant.support.errors import ArgumentError

Form = Literal["distinct", "literal"]
Sides = Literal["both", "upper", "lower", "none"]


class PiecewiseLinear(Quantizer):
    """Half the codes for the dense region [−bp, bp], a quarter for the outliers on each side of it.

    - ``distinct`` (default): outlier levels at bp + (k+1)·(u − bp)/2^(b−2), k = 0 … 2^(b−2) − 1, so that u is a level
      and none coincides with ±bp.
    - ``literal``: ends as eq. 3 prints them: bp and u are both outlier levels, so the level ±bp exists twice and
      2^b − 2 values are distinct. At 2 bits the equation divides by zero; there one level lies in the middle of each
      side.

    A value goes to its nearest level. (Read literally, eq. 3 sends a value just above bp to the first outlier level
    even where bp is nearer; in the literal form that level is bp itself, so both readings agree.)

    One side may have no outliers, as after a ReLU. Then its codes go to the other side (``sides="upper"`` or
    ``"lower"``) and the dense region ends at the bound; without outliers on either side the quantizer is uniform with
    2^b levels (``"none"``). Eq. 3 as printed is ``sides="both"``, whatever the range. Which case holds is decided once,
    by :func:`find_sides` at calibration, so that bounds can be learned without codes changing their meaning.

    ``grid="int8"`` moves the levels onto whole multiples of the dense interval, at most 256 neighbouring ones with zero
    among them, so that a layer is one int8 product. With outliers on both sides the dense levels are {−2^(b−2) …
    2^(b−2) − 1} times that; on one side they start at the multiple nearest to the bound. The outliers of a side stay
    equally far from each other, by a whole number of intervals: the grid keeps its three segments and is as fast as the
    free one, at the price of a range that is met to within half an outlier interval for each outlier level; searching
    and learning choose among such grids. Where breakpoint and range are too far apart for eight bits the interval
    grows, never is the range cut; at 8 bits nothing is left to choose and the grid is uniform.

    Source: OAPTQ §3.2, eq. 3. Differs: the paper does not speak of empty sides; see above. ``int8`` is ours.
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
        grid: Grid = "free",
        axis: int = 0,
    ) -> None:
        super().__init__()
        check_bits(bits)
        if check_grid(grid) == "int8" and form != "distinct":
            raise ArgumentError(f"form={form!r} has no int8 grid: its outliers start at the breakpoint; use distinct")
        if form not in ("distinct", "literal") or sides not in ("both", "upper", "lower", "none"):
            raise ArgumentError(
                f"form={form!r}, sides={sides!r}: use distinct or literal, and both, upper, lower or none"
            )
        self.bits = bits
        self.form: Form = form
        self.sides: Sides = sides
        self.grid: Grid = grid
        self.axis = axis
        self.intervals = _intervals(bits, form, sides)
        self.lower = nn.Parameter(lower.detach().clone())
        self.upper = nn.Parameter(upper.detach().clone())
        self.breakpoint = nn.Parameter(breakpoint.detach().clone())

    @property
    def bent(self) -> bool:
        """Whether the breakpoint has any effect."""
        return self.sides != "none" and not (self.grid == "int8" and self.bits == BITS[-1])

    def constrain(self) -> None:
        """Keep l < u, and 0 < bp < max(|l|, u); with outliers on one side alone, l < bp < u or l < −bp < u."""
        least = NARROWEST * torch.maximum(self.lower.abs(), self.upper.abs())
        if self.sides == "upper":
            self.upper.copy_(torch.maximum(self.upper, 2 * least))
        if self.sides == "lower":
            self.lower.copy_(torch.minimum(self.lower, -2 * least))
        self.upper.copy_(torch.maximum(self.upper, self.lower + 2 * least))
        reach = torch.maximum(self.lower.abs(), self.upper.abs())
        least, most = NARROWEST * reach, (1 - NARROWEST) * reach
        if self.sides in ("upper", "lower"):
            near, far = (self.lower, self.upper) if self.sides == "upper" else (-self.upper, -self.lower)
            least, most = torch.maximum(least, near + least), far - least
        self.breakpoint.copy_(_between(self.breakpoint, least, most))
        if self.grid == "int8" and self.bent:
            # Beyond them it has no effect, so no gradient would bring it back.
            low, high = (-self.lower).clamp(min=0), self.upper.clamp(min=0)
            self.breakpoint.copy_(_between(self.breakpoint, *_dense_limits(low, high, self.bits, self.sides)))

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"form": self.form, "sides": self.sides}

    def knots(self) -> Tensor:
        return _knots(self.lower, self.upper, self.breakpoint, self.bits, self.form, self.sides, self.grid)


def find_sides(lower: Tensor, upper: Tensor, breakpoint: Tensor) -> Sides:
    """Which sides of [−bp, bp] have outliers.

    Bounds per channel are judged together: a side counts as soon as one channel has outliers there.
    """
    above, below = bool((upper > breakpoint).any()), bool((lower < -breakpoint).any())
    if above and below:
        return "both"
    return "upper" if above else ("lower" if below else "none")


def _intervals(bits: int, form: Form, sides: Sides) -> Intervals:
    dense = (1 << (bits - 1)) - 1
    if sides == "none":
        return ((1 << bits) - 1,)
    outliers = 1 << (bits - 2) if sides == "both" else 1 << (bits - 1)
    if form == "literal":
        outliers = max(outliers - 1, 1)  # 1 at 2 bits: the level in the middle of the side
    return {"both": (outliers, dense, outliers), "upper": (dense, outliers), "lower": (outliers, dense)}[sides]


def _knots(lower: Tensor, upper: Tensor, dense: Tensor, bits: int, form: Form, sides: Sides, grid: Grid) -> Tensor:
    if grid == "int8":
        return _whole_knots(lower, upper, dense, bits, sides)
    if sides == "none":
        return torch.stack((lower, upper), -1)
    if form == "literal" and bits == 2 and sides == "both":
        lower, upper = (lower - dense) / 2, (upper + dense) / 2
    if sides == "upper":
        return torch.stack((lower, dense, upper), -1)
    if sides == "lower":
        return torch.stack((lower, -dense, upper), -1)
    return torch.stack((torch.minimum(lower, -dense), -dense, dense, torch.maximum(upper, dense)), -1)


def _whole_knots(lower: Tensor, upper: Tensor, dense: Tensor, bits: int, sides: Sides) -> Tensor:
    """Knots of the int8 grid, rounding straight through."""
    if sides == "none" or bits == BITS[-1]:
        return uniform_knots(lower, upper, _intervals(bits, "distinct", sides))
    inner, below, above = _counts(bits, sides)
    low, high = (-lower).clamp(min=0), upper.clamp(min=0)
    dense = _between(dense, *_dense_limits(low, high, bits, sides))
    if sides == "both":
        scale = short(dense / (inner + 1) * 2)
        zero = torch.full_like(scale, (inner + 1) // 2)
    else:
        inside = high if sides == "lower" else low
        scale = short((dense + inside) / inner)
        near = _between(whole(inside / scale), torch.zeros_like(scale), torch.full_like(scale, inner))
        zero = inner - near if sides == "lower" else near
    under, over = _strides(bits, sides)
    knots = [-zero, inner - zero]
    if below:
        knots.insert(0, -zero - below * whole(((low / scale - zero) / below).clamp(1, under)))
    if above:
        knots.append(inner - zero + above * whole(((high / scale - inner + zero) / above).clamp(1, over)))
    return scale[..., None] * torch.stack(knots, -1)


def _counts(bits: int, sides: Sides) -> tuple[int, int, int]:
    """Intervals of the dense region, outlier levels below it, and above it."""
    outliers = 1 << (bits - 2) if sides == "both" else 1 << (bits - 1)
    return (1 << (bits - 1)) - 1, outliers * (sides != "upper"), outliers * (sides != "lower")


def _strides(bits: int, sides: Sides) -> tuple[int, int]:
    """How many dense intervals, at most, lie between outlier levels below and above, within eight bits."""
    inner, below, above = _counts(bits, sides)
    if sides == "both":
        return (128 - (inner + 1) // 2) // below, (127 - inner // 2) // above
    stride = (WIDTH - inner) // max(below, above)
    return stride, stride


def _dense_limits(low: Tensor, high: Tensor, bits: int, sides: Sides) -> tuple[Tensor, Tensor]:
    """The breakpoints for which [−low, high] is met with the widest and with the narrowest outlier intervals."""
    inner, below, above = _counts(bits, sides)
    if sides == "both":
        zero = (inner + 1) // 2
        ends = [
            torch.maximum(low / (zero + below * under), high / (inner - zero + above * over))
            for under, over in (_strides(bits, sides), (1, 1))
        ]
        return zero * ends[0], zero * ends[1]
    inside = high if sides == "lower" else low
    least, most = (inner * (low + high) / (inner + max(below, above) * n) for n in (_strides(bits, sides)[0], 1))
    return least - inside, most - inside


def _between(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, low), high)


def candidate_levels(
    lower: Tensor,
    upper: Tensor,
    breakpoint: Tensor,
    *,
    bits: int,
    form: Form,
    reallocate: bool = True,
    grid: Grid = "free",
) -> Tensor:
    """Levels of many piecewise-linear quantizers at once, each with the sides that :func:`find_sides` gives it alone.

    Args:
        lower: Any shape; so ``upper`` and ``breakpoint``.
        upper: See above.
        breakpoint: See above.
        bits: As of :class:`PiecewiseLinear`.
        form: As of :class:`PiecewiseLinear`.
        reallocate: Give the codes of an empty side away.
        grid: As of :class:`PiecewiseLinear`.

    Returns:
        ``(..., 2^bits)``, increasing; where there are fewer levels the largest is repeated.
    """
    above, below = upper > breakpoint, lower < -breakpoint
    cases: dict[Sides, Tensor] = {"upper": above & ~below, "lower": below & ~above, "none": ~above & ~below}
    levels = _levels(lower, upper, breakpoint, bits, form, "both", grid)
    for sides, case in cases.items() if reallocate else ():
        levels = torch.where(case[..., None], _levels(lower, upper, breakpoint, bits, form, sides, grid), levels)
    return levels


def _levels(lower: Tensor, upper: Tensor, dense: Tensor, bits: int, form: Form, sides: Sides, grid: Grid) -> Tensor:
    levels = grid_levels(_knots(lower, upper, dense, bits, form, sides, grid), _intervals(bits, form, sides))
    missing = (1 << bits) - levels.shape[-1]
    return torch.cat((levels, levels[..., -1:].expand(*levels.shape[:-1], missing)), -1)
