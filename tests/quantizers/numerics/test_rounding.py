"""The grid against slow twins, in the papers' notation and by plain autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from srquant.quantizers import PiecewiseLinear, Symmetric, Uniform, find_sides
from srquant.quantizers.numerics import rounding
from srquant.quantizers.numerics.grid import Intervals, grid_codes, grid_levels, grid_values
from srquant.quantizers.numerics.rounding import quantize

GRIDS: dict[str, tuple[list[float], Intervals]] = {
    "one segment": ([-2.0, 3.0], (15,)),
    "two, fine below": ([-1.0, 1.0, 5.0], (7, 8)),
    "two, fine above": ([-4.0, -1.0, 1.0], (8, 7)),
    "three": ([-6.0, -1.0, 1.0, 4.0], (4, 7, 4)),
    "four": ([-6.0, -1.0, 1.0, 4.0, 9.0], (2, 3, 2, 1)),
    "levels": ([-3.0, -1.5, -0.5, 0.25, 2.0], (1, 1, 1, 1)),
    "far from zero": ([1000.0, 1001.0, 1003.0], (3, 4)),
}
grids = pytest.mark.parametrize(("knots", "intervals"), GRIDS.values(), ids=GRIDS.keys())


def values_for(knots: list[float], count: int = 2000, dtype: torch.dtype = torch.float32) -> Tensor:
    middle, reach = (knots[0] + knots[-1]) / 2, knots[-1] - knots[0]
    return (middle + reach * 0.7 * torch.randn(count)).to(dtype)


@grids
def test_a_value_goes_to_its_nearest_level(knots: list[float], intervals: Intervals) -> None:
    x, edges = values_for(knots), torch.tensor(knots)
    levels = grid_levels(edges, intervals)
    nearest = (x[:, None] - levels).abs().min(1)
    found = (x - quantize(x, edges, intervals)).abs()
    torch.testing.assert_close(found, nearest.values, atol=2e-6 * levels.abs().max().item(), rtol=0)


@grids
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_of_codes_are_the_quantized_values_to_the_bit(
    knots: list[float], intervals: Intervals, dtype: torch.dtype
) -> None:
    x, edges = values_for(knots, dtype=dtype), torch.tensor(knots, dtype=dtype)
    codes = grid_codes(x, edges, intervals)
    assert codes.min() == 0
    assert codes.max() == sum(intervals)
    assert torch.equal(grid_values(codes, edges, intervals), quantize(x, edges, intervals))


def plain_quantize(x: Tensor, knots: Tensor, intervals: Intervals) -> Tensor:
    """The same function, written with ordinary operations that autograd differentiates."""
    clamped = x.clamp(knots[0], knots[-1])
    result = torch.zeros_like(x)
    for i, count in enumerate(intervals):
        start, end = knots[i], knots[i + 1]
        position = (clamped - start) / (end - start) * count
        code = position + (position.round() - position).detach()
        inside = (clamped >= start) & ((clamped < end) if i + 1 < len(intervals) else (clamped <= end))
        result = torch.where(inside, start + code * (end - start) / count, result)
    return result


@grids
def test_gradients_are_those_of_autograd(knots: list[float], intervals: Intervals) -> None:
    x, edges = values_for(knots, dtype=torch.float64), torch.tensor(knots, dtype=torch.float64)
    upstream = torch.randn_like(x)
    gradients: list[list[Tensor]] = []
    for function in (quantize, plain_quantize):
        inputs = [x.clone().requires_grad_(), edges.clone().requires_grad_()]
        (function(*inputs, intervals) * upstream).sum().backward()
        gradients.append([tensor.grad for tensor in inputs])  # type: ignore[misc]
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow)


@grids
def test_gradients_of_the_bounds_are_the_slopes_of_the_function(knots: list[float], intervals: Intervals) -> None:
    """Finite differences, where no value crosses a rounding threshold: there the true slope, with the straight-through
    part (p, the unrounded position, moving with the bounds) taken off, must be what the formula gives."""
    x = values_for(knots, 400, torch.float64)
    edges = torch.tensor(knots, dtype=torch.float64)
    wanted = edges.clone().requires_grad_()
    quantize(x, wanted, intervals).sum().backward()
    width = (edges[1:] - edges[:-1]).min().item()
    for place in range(len(knots)):
        shift = torch.zeros_like(edges)
        shift[place] = 1e-7 * width
        codes = grid_codes(x, edges, intervals)
        up, down = (grid_values(codes, edges + sign * shift, intervals) for sign in (1, -1))
        slope = (up - down).sum() / (2 * shift[place])
        assert wanted.grad is not None
        straight_through = slope_of_position(x, edges, intervals, place)
        assert wanted.grad[place].item() == pytest.approx((slope + straight_through).item(), abs=1e-4 * len(x))


def slope_of_position(x: Tensor, knots: Tensor, intervals: Intervals, place: int) -> Tensor:
    """Σ step · ∂(position)/∂(knot), by finite differences of the unrounded position inside the outer bounds."""
    step = 1e-7 * (knots[1:] - knots[:-1]).min()
    shift = torch.zeros_like(knots)
    shift[place] = step
    total = torch.zeros((), dtype=x.dtype)
    for i, count in enumerate(intervals):
        inside = (x >= knots[i]) & ((x < knots[i + 1]) if i + 1 < len(intervals) else (x <= knots[i + 1]))
        size = (knots[i + 1] - knots[i]) / count
        ends = [(knots + sign * shift)[i : i + 2] for sign in (1, -1)]
        up, down = ((x[inside] - a) / (b - a) * count for a, b in ends)
        total = total + ((up - down) / (2 * step) * size).sum()
    return total


@pytest.mark.parametrize("bits", range(2, 9))
def test_uniform_is_equation_1_and_2(bits: int) -> None:
    """OAPTQ eq. 1: x_int = round((clamp(x, l, u) − l)/(u − l) · (2^b − 1)); eq. 2: x̂ = x_int·(u − l)/(2^b − 1) + l."""
    l, u, n = -1.3, 2.9, 2**bits - 1
    x = torch.randn(500)
    quantizer = Uniform(bits, torch.tensor(l), torch.tensor(u))
    for value, code, result in zip(x.tolist(), quantizer.codes(x).tolist(), quantizer(x).tolist(), strict=True):
        position = (min(max(value, l), u) - l) / (u - l) * n
        assert code in {round(position), round(position + 1e-6), round(position - 1e-6)}
        assert result == pytest.approx(code * (u - l) / n + l, abs=1e-6)


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_has_no_zero(bits: int) -> None:
    levels = Symmetric(bits, torch.tensor(0.7)).levels()
    assert len(levels) == 2**bits
    assert levels.abs().min() > 0
    torch.testing.assert_close(levels, -levels.flip(0))


def equation_3(x: float, l: float, u: float, bp: float, bits: int, *, literal: bool) -> list[float]:
    """OAPTQ eq. 3 for one value: the levels of its region and, as a value goes to its nearest level, the neighbour ±bp.

    Dense region [−bp, bp]: 2^(b−1) codes. Outlier regions [l, −bp) and (bp, u]: 2^(b−2) codes each.
    """
    dense, side = 2 ** (bits - 1), 2 ** (bits - 2)
    inner = [-bp + k * 2 * bp / (dense - 1) for k in range(dense)]
    if literal:
        upper = [bp + k * (u - bp) / (side - 1) for k in range(side)] if side > 1 else [(bp + u) / 2]
        lower = [-bp + k * (l + bp) / (side - 1) for k in range(side)] if side > 1 else [(l - bp) / 2]
    else:
        upper = [bp + (k + 1) * (u - bp) / side for k in range(side)]
        lower = [-bp + (k + 1) * (l + bp) / side for k in range(side)]
    if abs(x) <= bp:
        return inner
    return [*upper, bp] if x > 0 else [*lower, -bp]


@pytest.mark.parametrize("form", ["distinct", "literal"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_piecewise_linear_is_equation_3(bits: int, form: str) -> None:
    l, u, bp = -7.0, 11.0, 1.5
    quantizer = PiecewiseLinear(bits, *(torch.tensor(v) for v in (l, u, bp)), form=form)  # type: ignore[arg-type]
    x = torch.cat((torch.randn(300), 5 * torch.randn(300)))
    for value, result in zip(x.tolist(), quantizer(x).tolist(), strict=True):
        levels = equation_3(value, l, u, bp, bits, literal=form == "literal")
        nearest = min(abs(value - level) for level in levels)
        assert any(result == pytest.approx(level, abs=1e-5) for level in levels)
        assert abs(value - result) == pytest.approx(nearest, abs=1e-5)
    distinct = len(quantizer.levels().round(decimals=4).unique())
    # The literal end points coincide at ±bp, but for 2 bits, where each side has a single level of its own.
    assert distinct == (2**bits - 2 if form == "literal" and bits > 2 else 2**bits)


@pytest.mark.parametrize("form", ["distinct", "literal"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_an_exact_zero_goes_where_equation_3_sends_it(bits: int, form: str) -> None:
    """It lies halfway between two dense codes; ``round`` takes the even one, in every dtype, saved, and learned."""
    for bp in torch.rand(50) * 20 + 0.01:
        n = 2 ** (bits - 1) - 1
        expected = round((0 + float(bp)) / (2 * float(bp)) * n) / n * 2 * float(bp) - float(bp)
        quantizer = PiecewiseLinear(bits, -3 * bp, 7 * bp, bp, form=form)  # type: ignore[arg-type]
        zeros = torch.zeros(9)
        assert quantizer(zeros).tolist() == pytest.approx([expected] * 9, rel=1e-5)
        assert torch.equal(quantizer.decode(quantizer.codes(zeros)), quantizer(zeros))
        assert quantizer(zeros.bfloat16()).float().tolist() == pytest.approx([expected] * 9, rel=1e-2)
        quantizer(zeros).sum().backward()  # of each, q − p is half an interval, towards the level that was taken
        assert quantizer.breakpoint.grad is not None
        assert float(quantizer.breakpoint.grad) == pytest.approx(9 * expected / float(bp), rel=1e-4)
        quantizer.breakpoint.grad = None


def test_empty_sides_give_their_codes_away() -> None:
    bounds = {"lower": torch.tensor(0.0), "upper": torch.tensor(8.0), "breakpoint": torch.tensor(1.0)}
    assert find_sides(**bounds) == "upper"
    quantizer = PiecewiseLinear(4, **bounds, sides="upper")
    levels = quantizer.levels()
    assert len(levels.unique()) == 16
    assert (levels <= 1 + 1e-6).sum() == 8, "half the codes are dense"
    assert levels[0] == 0
    assert levels[-1] == 8
    inside = {"lower": torch.tensor(-0.5), "upper": torch.tensor(0.5), "breakpoint": torch.tensor(1.0)}
    assert find_sides(**inside) == "none"
    uniform = PiecewiseLinear(4, **inside, sides="none")
    assert torch.equal(uniform.levels(), Uniform(4, inside["lower"], inside["upper"]).levels())


def test_reallocation_pays_on_values_after_a_relu() -> None:
    """Many small values, few large ones, none negative: the case the printed equation wastes half its codes on."""
    x = torch.cat((torch.rand(9900), 1 + 40 * torch.rand(100) ** 2))
    bounds = {"lower": x.min(), "upper": x.max(), "breakpoint": torch.tensor(1.0)}

    def error(quantizer: torch.nn.Module) -> float:
        return float((quantizer(x).detach() - x).square().mean())

    literal = error(PiecewiseLinear(4, **bounds, form="literal", sides="both"))
    given = error(PiecewiseLinear(4, **bounds, sides="upper"))
    minmax = error(Uniform(4, bounds["lower"], bounds["upper"]))
    assert given < literal / 2
    assert given < minmax / 10


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_per_channel_bounds_and_memory_formats(memory_format: torch.memory_format) -> None:
    x = torch.randn(5, 3, 4, 6).to(memory_format=memory_format)
    knots = torch.stack((torch.tensor([-2.0, -1.0]), torch.tensor([-3.0, 1.0]), torch.tensor([0.0, 2.0])))
    knots = torch.cat((knots, knots[:2]))
    together = quantize(x, knots, (7,))
    assert together.is_contiguous(memory_format=memory_format)
    for channel in range(5):
        torch.testing.assert_close(together[channel], quantize(x[channel].contiguous(), knots[channel], (7,)))


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "strided"])
def test_large_tensors_are_done_in_pieces_to_the_same_bits(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    x = torch.randn(2, 6, 30, 41)
    x = {
        "contiguous": x,
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(1, 3),
        "strided": x[:, ::2, 3:],
    }[layout]
    knots = torch.tensor([-2.0, -0.5, 0.5, 3.0])
    slope = torch.randn_like(x)

    def run() -> list[Tensor]:
        values, edges = x.clone().requires_grad_(), knots.clone().requires_grad_()
        result = quantize(values, edges, (4, 7, 4))
        result.backward(slope)
        assert values.grad is not None
        assert edges.grad is not None
        assert result.stride() == torch.empty_like(x).stride()
        return [result.detach(), values.grad, edges.grad]

    whole = run()
    monkeypatch.setattr(rounding, "_PIECE", 1000)
    pieces = run()
    assert torch.equal(pieces[0], whole[0])
    assert torch.equal(pieces[1], whole[1])
    torch.testing.assert_close(pieces[2], whole[2], rtol=1e-4, atol=1e-3)


def test_half_precision_is_computed_in_single() -> None:
    x = torch.randn(1000).bfloat16()
    knots = torch.tensor([-2.0, 2.0])
    assert torch.equal(quantize(x, knots, (255,)), quantize(x.float(), knots, (255,)).bfloat16())


@grids
def test_extreme_values_stay_on_the_grid(knots: list[float], intervals: Intervals) -> None:
    edges = torch.tensor(knots)
    found = quantize(torch.tensor([-math.inf, math.inf, -3e38, 3e38]), edges, intervals)
    assert torch.equal(found.unique(), grid_values(torch.tensor([0, sum(intervals)]), edges, intervals))
