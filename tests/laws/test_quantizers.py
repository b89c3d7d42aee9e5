"""Laws that hold for every quantizer, whatever the tensor."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pairwise import every_pair
from tests.quantizers.adapting import looking
from tests.quantizers.terms import terms
from torch import Tensor

from srquant.quantizers import (
    AdaptiveUniform,
    NarrowSymmetric,
    NonUniform,
    PerChannel,
    PerTensor,
    PiecewiseLinear,
    Quantizer,
    ScaledNonUniform,
    ScaledUniform,
    ShiftedNonUniform,
    ShiftedUniform,
    Symmetric,
    Uniform,
    all_quantizers,
    build_quantizer,
    candidate_levels,
    find_sides,
)
from srquant.quantizers.ranges import LloydMax, PiecewiseSearch
from srquant.support.errors import ArgumentError


def make(kind: str, bits: int, x: Tensor) -> Quantizer:
    """A quantizer of a kind for a tensor, as calibration would make it."""
    low, high = (x.min(), x.max()) if x.numel() else (torch.tensor(0.0), torch.tensor(0.0))
    kind, *options = kind.split("/")
    grid = "int8" if "int8" in options else "free"
    if kind == "adaptive_uniform":
        return AdaptiveUniform(bits, low, high, looking())
    if kind == "uniform":
        return Uniform(bits, low, high, grid)
    if kind == "shifted_uniform":
        return (
            ShiftedUniform(bits, low - x.mean(), high - x.mean(), x.mean())
            if x.numel()
            else ShiftedUniform(bits, low, high, low)
        )
    if kind == "scaled_uniform":
        return ScaledUniform(bits, low, high, torch.tensor(1.0), grid)
    if kind == "symmetric":
        return Symmetric(bits, torch.maximum(-low, high), grid)
    if kind == "narrow_symmetric":
        return NarrowSymmetric(bits, torch.maximum(-low, high))
    if kind in ("free_levels", "shifted_levels", "scaled_levels"):
        search = PiecewiseSearch(partial(candidate_levels, bits=bits, form="distinct"))
        shift = x.mean() if x.numel() and kind == "shifted_levels" else torch.tensor(0.0)
        found = LloydMax(search)((x - shift).reshape(1, -1))["levels"][0] if x.numel() else torch.zeros(1 << bits)
        if kind == "scaled_levels":
            return ScaledNonUniform(bits, found, torch.tensor(1.0))
        return NonUniform(bits, found) if kind == "free_levels" else ShiftedNonUniform(bits, found, shift)
    breakpoint = x.abs().median() if x.numel() else torch.tensor(0.0)
    found = find_sides(low, high, breakpoint) if "auto" in options else "both"
    return PiecewiseLinear(bits, low, high, breakpoint, "literal" if "literal" in options else "distinct", found, grid)


WHOLE = (
    "uniform/int8",
    "scaled_uniform/int8",
    "symmetric/int8",
    "narrow_symmetric",
    "piecewise_linear/auto/int8",
    "piecewise_linear/both/int8",
)
KINDS = (
    "uniform",
    "adaptive_uniform",
    "symmetric",
    "free_levels",
    "shifted_levels",
    "scaled_levels",
    "shifted_uniform",
    "scaled_uniform",
    *(f"piecewise_linear/{form}/{sides}" for form in ("distinct", "literal") for sides in ("auto", "both")),
    *WHOLE,
)
SHAPES = {
    "two-sided": lambda n: torch.randn(n),
    "heavy tails": lambda n: torch.randn(n) ** 5,
    "after a relu": lambda n: torch.randn(n).relu(),
    "negative": lambda n: -torch.rand(n) - 3,
    "constant": lambda n: torch.full((n,), 0.37),
    "constant negative": lambda n: torch.full((n,), -5e3),
    "zero": lambda n: torch.zeros(n),
    "empty": lambda n: torch.zeros(0),
    "single": lambda n: torch.tensor([1.5]),
    "huge": lambda n: torch.randn(n) * 1e30,
    "tiny": lambda n: torch.randn(n) * 1e-30,
    "huge and tiny": lambda n: torch.cat((torch.randn(n) * 1e-6, torch.randn(3) * 1e6)),
    "far from zero": lambda n: 1e4 + torch.rand(n),
}


def test_every_quantizer_is_tested() -> None:
    grids = {name for name, kind in all_quantizers().items() if not kind.gridless}
    missing = grids - {kind.split("/")[0] for kind in KINDS}
    assert not missing, f"let make() make {missing}, and name them in KINDS"


@every_pair(kind=KINDS, bits=range(2, 9), shape=SHAPES)
def test_laws(kind: str, bits: int, shape: str) -> None:
    x = SHAPES[shape](400)
    quantizer = make(kind, bits, x)
    with torch.no_grad():
        values, codes = quantizer(x), quantizer.codes(x)
    assert values.shape == x.shape
    assert values.dtype == x.dtype
    assert bool(values.isfinite().all())
    assert len(values.unique()) <= 2**bits
    assert len(quantizer.levels()) <= 2**bits
    assert not codes.is_floating_point()
    if x.numel():
        assert int(codes.min()) >= 0
        assert int(codes.max()) < 2**bits
    assert torch.equal(quantizer.decode(codes), values)
    order = x.argsort()
    assert bool((codes[order].diff() >= 0).all()), "codes rise with values"
    levels = quantizer.levels()
    inside = x.clamp(levels[0], levels[-1])
    assert bool(((values - inside).abs() <= levels.diff().max() * 0.5001 + 1e-5 * x.abs()).all()), (
        "half an interval at most"
    )


@pytest.mark.parametrize("shape", [name for name in SHAPES if name not in ("empty", "huge", "tiny")])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_bound_and_are_finite(kind: str, shape: str) -> None:
    x = SHAPES[shape](400)
    quantizer = make(kind, 3, x)
    with torch.no_grad():  # bounds that clip, so that each of them matters
        for bound in quantizer.parameters():
            bound.mul_(0.9)
        if kind in WHOLE:
            quantizer.constrain()
    x = x.clone().requires_grad_()
    (quantizer(x) * torch.randn(x.shape)).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    for name, bound in quantizer.named_parameters():
        used = not (name == "breakpoint" and not quantizer.bent)
        assert (bound.grad is not None) == used, name
        # Bounds of an int8 grid that lie too far from each other have no effect.
        if used and shape in ("two-sided", "heavy tails", *(() if kind in WHOLE else ("huge and tiny",))):
            assert bound.grad is not None
            assert bool(bound.grad.isfinite().all())
            assert bool(bound.grad.abs().sum() > 0), name


@every_pair(kind=KINDS, bits=range(2, 9), shape=SHAPES)
def test_terms_add_up_to_the_values(kind: str, bits: int, shape: str) -> None:
    x = SHAPES[shape](400)
    quantizer = make(kind, bits, x)
    codes = quantizer.codes(x)
    found = terms(quantizer, codes)
    assert len(found) <= 1 + len(quantizer.intervals)
    assert all(term.integers.dtype == torch.int64 and term.integers.shape == x.shape for term in found)
    total = sum(term.values() for term in found)
    reach = quantizer.levels().abs().max()
    assert bool(((total - quantizer.decode(codes)).abs() <= 1e-6 * reach + 1e-29).all())


@every_pair(kind=WHOLE, bits=range(2, 9), shape=SHAPES)
def test_int8_grids_are_exactly_integers_of_eight_bits(kind: str, bits: int, shape: str) -> None:
    x = SHAPES[shape](400)
    quantizer = make(kind, bits, x)
    grid = quantizer.integer_grid()
    assert grid is not None
    levels = grid.integers(torch.arange(len(quantizer.levels())))
    assert -128 <= grid.low <= 0 <= grid.high <= 127 or (
        (getattr(quantizer, "sides", "none") != "both" or bits == 8) and grid.low <= 0 <= grid.high <= grid.low + 255
    )
    if not kind.startswith("symmetric") or bits == 8:
        assert 0 in levels, "zero padding stays on the grid"
    # To the bit: the scale is short enough for every product to be exact.
    codes = quantizer.codes(x)
    assert torch.equal(quantizer.decode(codes), grid.integers(codes) * grid.scale)
    assert torch.equal(quantizer(x).detach(), grid.integers(codes) * grid.scale)
    (term,) = terms(quantizer, codes)
    assert torch.equal(term.integers, grid.integers(codes))


@pytest.mark.parametrize("sides", ["both", "upper", "lower", "none"])
@pytest.mark.parametrize("bits", [2, 4, 7])
def test_an_int8_grid_stays_whole_while_bounds_move(bits: int, sides: str) -> None:
    """Steps as finetuning makes them, the bounds far from where they began at the end."""
    bounds = [torch.tensor(value) for value in (-4.0 if sides in ("both", "lower") else -0.4, 5.0, 1.0)]
    if sides == "lower":
        bounds[1] = torch.tensor(0.4)
    quantizer = PiecewiseLinear(bits, *bounds, sides=sides, grid="int8")  # type: ignore[arg-type]
    learned = [p for p in quantizer.parameters() if sides != "none" or p is not quantizer.breakpoint]
    optimizer = torch.optim.Adam(learned, 0.1)
    x = 6 * torch.randn(500)
    seen = set()
    for _ in range(20):
        optimizer.zero_grad()
        (quantizer(x) - x).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            quantizer.constrain()
        grid = quantizer.integer_grid()
        assert grid is not None
        assert grid.high - grid.low <= 255
        assert torch.equal(quantizer(x).detach(), grid.integers(quantizer.codes(x)) * grid.scale)
        seen.add(tuple(grid.knots.tolist()))
    assert len(seen) > 1, "the integers themselves move"


@pytest.mark.parametrize("sides", ["both", "upper", "lower"])
def test_constrain_keeps_the_breakpoint_below_the_side_it_serves(sides: str) -> None:
    for seed in range(200):
        bounds = torch.randn(3, generator=torch.Generator().manual_seed(seed)) * 20
        quantizer = PiecewiseLinear(4, *bounds, sides=sides)  # type: ignore[arg-type]
        with torch.no_grad():
            quantizer.constrain()
        assert quantizer.breakpoint > 0
        assert bool((quantizer.knots().diff() > 0).all()) or sides == "both"
        assert bool((quantizer.knots().diff() >= 0).all())


@pytest.mark.parametrize("sides", ["both", "upper", "lower"])
def test_outliers_of_an_int8_grid_reach_the_range(sides: str) -> None:
    for ratio in (1.5, 4.0, 20.0, 31.0, 500.0):
        bounds = {"both": (-ratio, ratio), "upper": (0.0, ratio), "lower": (-ratio, 0.0)}[sides]
        quantizer = PiecewiseLinear(4, *map(torch.tensor, bounds), torch.tensor(1.0), sides=sides, grid="int8")
        levels = quantizer.levels()
        count = 4 if sides == "both" else 8
        half = 0.5 * count * float(quantizer.integer_grid().scale)
        for found, wanted in zip((levels[0], levels[-1]), bounds, strict=True):
            assert float(found) == pytest.approx(wanted, abs=half * 1.001), ratio


def test_a_literal_form_has_no_int8_grid() -> None:
    with pytest.raises(ArgumentError, match="form='literal' has no int8 grid"):
        PiecewiseLinear(4, torch.tensor(-1.0), torch.tensor(1.0), torch.tensor(0.3), "literal", grid="int8")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(2, 8),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
)
def test_laws_for_values_it_was_not_made_for(kind: str, bits: int, seen: list[float], new: list[float]) -> None:
    quantizer = make(kind, bits, torch.tensor(seen))
    x = torch.tensor(new)
    with torch.no_grad():
        values, codes = quantizer(x), quantizer.codes(x)
        assert torch.equal(quantizer.decode(codes), values)
        assert len(values.unique()) <= 2**bits
        assert 0 <= int(codes.min()) <= int(codes.max()) < 2**bits


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantizer_is_rebuilt_from_its_description(kind: str) -> None:
    x = torch.randn(200)
    quantizer = make(kind, 5, x)
    bounds = {name: value.detach() for name, value in quantizer.named_parameters()}
    again = build_quantizer(quantizer.name, quantizer.arguments(), bounds, looking())
    assert torch.equal(again(x), quantizer(x))


COMMON = [kind for kind in KINDS if kind.startswith(("shifted", "scaled", "adaptive"))]
"""Kinds whose channels share their bounds, and differ by a shift or a factor, or whose images differ by bits."""
CHANNELS = [kind for kind in KINDS if kind not in COMMON]
"""Kinds whose bounds may be per channel."""


def per_channel(kind: str, bits: int, x: Tensor, axis: int) -> tuple[Quantizer, list[Quantizer]]:
    """A quantizer with bounds for each slice of ``x`` along axis 0, which it meets at another axis; and those of the
    slices, each with its bounds alone.
    """
    alike = make(kind, bits, x).arguments()  # also on which sides there are outliers
    alone: list[Quantizer] = []
    for channel in x:
        bounds = {name: value.detach() for name, value in make(kind, bits, channel).named_parameters()}
        alone.append(build_quantizer(kind.split("/", maxsplit=1)[0], alike, bounds))
    names = [name for name, _ in alone[0].named_parameters()]
    together = {name: torch.stack([quantizer.get_parameter(name).detach() for quantizer in alone]) for name in names}
    return build_quantizer(kind.split("/", maxsplit=1)[0], alike | {"axis": axis}, together), alone


def of_channels(tensor: Tensor, axis: int) -> tuple[Tensor, ...]:
    """The slices along an axis."""
    return tensor.movedim(axis, 0).unbind()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("bits", [2, 3, 4, 7, 8])
@pytest.mark.parametrize("kind", CHANNELS)
def test_bounds_of_channels_are_each_channels_own(kind: str, bits: int, axis: int) -> None:
    rows = torch.randn(5, 40, 6) * torch.tensor([0.1, 1.0, 30.0, 1e-3, 2.0])[:, None, None] + 0.3
    quantizer, alone = per_channel(kind, bits, rows, axis)
    assert quantizer.granularity == PerChannel(axis)
    assert alone[0].granularity == PerTensor()
    x = rows.movedim(0, axis).contiguous().requires_grad_()
    slope = torch.randn_like(x)
    values, codes = quantizer(x), quantizer.codes(x)
    values.backward(slope)
    assert x.grad is not None
    assert values.shape == x.shape
    assert values.stride() == x.stride()
    assert torch.equal(quantizer.decode(codes), values)
    grid, sums = quantizer.integer_grid(), terms(quantizer, codes)
    integers = None if grid is None else of_channels(grid.integers(codes), axis)
    parts = [(of_channels(term.integers, axis), of_channels(term.values(), axis)) for term in sums]
    whole = [of_channels(tensor, axis) for tensor in (values.detach(), codes, x.grad, slope)]
    for place, (channel, one) in enumerate(zip(rows, alone, strict=True)):
        value, code, gradient, pushed = (tensors[place] for tensors in whole)
        channel = channel.clone().requires_grad_()
        found = one(channel)
        found.backward(pushed)
        assert torch.equal(found, value)
        assert torch.equal(one.codes(channel), code)
        assert torch.equal(one.decode(code), value)
        assert channel.grad is not None
        assert torch.equal(channel.grad, gradient)
        assert torch.equal(one.levels(), quantizer.levels()[place])
        for name, bound in one.named_parameters():
            all_of_it = quantizer.get_parameter(name).grad
            assert (bound.grad is None) == (all_of_it is None)
            if bound.grad is not None and all_of_it is not None:
                torch.testing.assert_close(all_of_it[place], bound.grad, rtol=1e-4, atol=1e-4)
        own = one.integer_grid()
        assert (own is None) == (grid is None)
        if own is not None and grid is not None and integers is not None:
            assert torch.equal(grid.scale[place], own.scale)
            assert torch.equal(integers[place], own.integers(code))
        for (counts, sizes), term in zip(parts, terms(one, code), strict=True):
            assert torch.equal(counts[place], term.integers)
            assert torch.equal(sizes[place], term.values())


@pytest.mark.parametrize("shape", [name for name in SHAPES if name not in ("empty", "single")])
@pytest.mark.parametrize("kind", CHANNELS)
def test_a_channel_of_any_kind_goes_its_own_way(kind: str, shape: str) -> None:
    odd = SHAPES[shape](400)
    rows = torch.stack((torch.randn(400), odd[:400], 5 * torch.rand(400)))
    quantizer, alone = per_channel(kind, 4, rows, axis=1)
    x = rows.T.contiguous()
    expected = torch.stack([one(channel) for one, channel in zip(alone, rows, strict=True)], 1)
    assert torch.equal(quantizer(x), expected)
    assert torch.equal(quantizer.decode(quantizer.codes(x)), expected)


@pytest.mark.parametrize("kind", CHANNELS)
def test_an_axis_is_part_of_the_description(kind: str) -> None:
    x = torch.randn(4, 50)
    quantizer, _ = per_channel(kind, 5, x, axis=1)
    bounds = {name: value.detach() for name, value in quantizer.named_parameters()}
    again = build_quantizer(quantizer.name, quantizer.arguments(), bounds, looking())
    assert torch.equal(again(x.T), quantizer(x.T))
    assert "axis" not in per_channel(kind, 5, x, axis=0)[0].arguments()


@pytest.mark.parametrize("kind", COMMON)
def test_bounds_of_channels_are_refused_by_name_where_channels_share_them(kind: str) -> None:
    quantizer = make(kind, 4, torch.randn(50))
    bounds = {name: value.detach() for name, value in quantizer.named_parameters()}
    for name in bounds.keys() - {"shift", "factor"}:
        of_each = bounds | {name: bounds[name].expand(3, *bounds[name].shape)}
        with pytest.raises(
            ArgumentError, match=rf"^{name} of shape \(3.*: {quantizer.name} quantizers have one grid for all"
        ):
            build_quantizer(quantizer.name, quantizer.arguments(), of_each, looking())


class Terraces(Quantizer):
    """Four segments of one interval each, written as a user would, without an axis."""

    name = "terraces"
    intervals = (1, 1, 1, 1)

    def __init__(self, bits: int, upper: torch.Tensor) -> None:
        super().__init__()
        self.bits, self.upper = bits, torch.nn.Parameter(upper)

    def knots(self) -> torch.Tensor:
        return self.upper[..., None] * torch.tensor([-1.0, -0.25, 0.0, 0.25, 1.0])


def test_segments_of_one_interval_may_have_bounds_of_channels() -> None:
    x = torch.randn(3, 4, 5)
    upper = torch.tensor([1.0, 0.1, 2.0])
    quantizer = Terraces(3, upper)
    expected = torch.stack([Terraces(3, bound)(row) for bound, row in zip(upper, x, strict=True)])
    assert torch.equal(quantizer(x), expected)
    assert torch.equal(quantizer.decode(quantizer.codes(x)), expected)
    assert quantizer(torch.zeros(3, 0)).shape == (3, 0)


@pytest.mark.parametrize("bits", [-1, 0, 1, 9, 32])
def test_bits_outside_their_range_are_refused(bits: int) -> None:
    with pytest.raises(ArgumentError, match=f"bits={bits} is outside 2…8"):
        Uniform(bits, torch.tensor(0.0), torch.tensor(1.0))


def test_shifted_levels_are_levels_around_the_centre_of_each_channel() -> None:
    x = torch.randn(2, 5, 7, 3) + 10 * torch.randn(5, 1, 1)
    shift, levels = x.mean((0, 2, 3)), torch.tensor([-2.0, -0.5, 0.25, 1.5])
    expected = torch.empty_like(x)
    for channel in range(5):
        nearest = ((x[:, channel] - shift[channel])[..., None] - levels).abs().argmin(-1)
        expected[:, channel] = levels[nearest] + shift[channel]
    images = ShiftedNonUniform(2, levels, shift[:, None, None])
    tokens = ShiftedNonUniform(2, levels, shift)
    close = partial(torch.testing.assert_close, rtol=0, atol=2e-6)
    close(images(x), expected)
    close(tokens(x.movedim(1, -1)), expected.movedim(1, -1))
    assert torch.equal(images.decode(images.codes(x)), images(x))
    close(images.levels(), levels + shift[:, None])
    codes = images.codes(x)
    found = terms(images, codes)
    assert all(term.integers.shape == codes.shape and term.scale.ndim == 0 for term in found)
    close(sum(term.values() for term in found).float(), expected)
    assert images.integer_grid() is None
