from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srquant.quantizers import PiecewiseLinear, candidate_levels, find_sides
from srquant.quantizers.numerics.grid import grid_levels
from srquant.quantizers.numerics.rounding import quantize
from srquant.quantizers.numerics.sorted_values import SortedValues, subsample
from srquant.quantizers.ranges import (
    BoundSearch,
    ChannelShift,
    JointShrink,
    LeastSquares,
    LloydMax,
    MinMaxRange,
    PercentileRange,
    PiecewiseSearch,
    quantile,
)
from srquant.support.errors import ArgumentError


def test_extremes() -> None:
    rows = torch.tensor([[1.0, -3.0, 2.0], [5.0, 5.0, 4.0]])
    bounds = MinMaxRange()(rows)
    assert bounds["lower"].tolist() == [-3, 4]
    assert bounds["upper"].tolist() == [2, 5]


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 600_000])
@pytest.mark.parametrize("q", [0.0, 0.01, 0.5, 0.99, 0.999, 1.0])
def test_quantiles_equal_numpy(count: int, q: float) -> None:
    rows = torch.randn(2, count) ** 3
    expected = np.quantile(rows.numpy().astype(np.float64), q, axis=1)
    np.testing.assert_allclose(quantile(rows, q).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("arrange", ["sorted", "constant", "two values", "periodic"])
def test_quantiles_are_exact_where_a_sample_misleads(arrange: str) -> None:
    count = 700_000
    x = {
        "sorted": torch.randn(count).sort().values,
        "constant": torch.full((count,), 2.5),
        "two values": (torch.arange(count) % 100 == 0).float(),
        "periodic": torch.where(torch.arange(count) % (count // (1 << 16)) == 0, 100.0, torch.randn(count)),
    }[arrange]
    np.testing.assert_allclose(float(quantile(x[None], 0.99)), np.quantile(x.numpy(), 0.99), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 44, 48, 52, 55, 64, 66, 88, 143, 180])
def test_long_rows_are_thinned_without_favouring_channels(channels: int) -> None:
    x = torch.arange(channels, dtype=torch.float32).repeat(1 << 14)[None]
    for samples in (1 << 10, 3000, 1 << 14, 10_000):
        found = subsample(x, samples)
        assert found.shape[1] >= samples
        counts = torch.bincount(found[0].long(), minlength=channels)
        assert int(counts.max() - counts.min()) <= 1


def test_percentiles_cut_both_sides() -> None:
    rows = torch.arange(1001, dtype=torch.float32)[None]
    bounds = PercentileRange(0.99)(rows)
    assert (float(bounds["lower"]), float(bounds["upper"])) == pytest.approx((10, 990))
    with pytest.raises(ArgumentError, match=r"quantile=0.3 is outside \(0.5, 1\]"):
        PercentileRange(0.3)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50),
    st.lists(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4, unique=True), min_size=1, max_size=5),
)
def test_prefix_sums_give_the_exact_squared_error(values: list[float], grids: list[list[float]]) -> None:
    x = torch.tensor(values)
    levels = torch.tensor([sorted(grid) for grid in grids])
    found = SortedValues(x[None]).squared_error(levels[None])[0]
    slow = (x[None, :, None].double() - levels[:, None].double()).abs().amin(-1).square().sum(-1)
    torch.testing.assert_close(found, slow, rtol=1e-6, atol=1e-6)


def search_slowly(x: torch.Tensor, bits: int, candidates: int) -> float:
    """The least squared error over all pairs of clipping factors, by quantizing the tensor for each."""
    best = float("inf")
    factors = torch.arange(1, candidates + 1) / candidates
    for low in (x.min().clamp(max=0) * factors).unique():
        for high in (x.max().clamp(min=0) * factors).unique():
            error = float((quantize(x, torch.stack((low, high)), (2**bits - 1,)) - x).square().sum())
            best = min(best, error)
    return best


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kind", ["normal", "heavy", "relu"])
def test_least_squares_finds_nearly_the_best_pair_of_bounds(kind: str, bits: int) -> None:
    x = torch.randn(600)
    x = {"normal": x, "heavy": x**3, "relu": x.relu()}[kind]
    bounds = LeastSquares(bits, candidates=20)(x[None])
    knots = torch.cat((bounds["lower"], bounds["upper"]))
    found = float((quantize(x, knots, (2**bits - 1,)) - x).square().sum())
    assert found <= 1.02 * search_slowly(x, bits, 20)
    extremes = float((quantize(x, torch.stack((x.min(), x.max())), (2**bits - 1,)) - x).square().sum())
    assert found < extremes


def test_symmetric_least_squares_is_the_best_candidate() -> None:
    rows = torch.randn(3, 500) ** 3
    bounds = LeastSquares(4, symmetric=True, candidates=50)(rows)
    for row, upper in zip(rows, bounds["upper"], strict=True):
        candidates = row.abs().max() * torch.arange(1, 51) / 50
        errors = [float((quantize(row, torch.stack((-u, u)), (15,)) - row).square().sum()) for u in candidates]
        assert float(upper) == pytest.approx(float(candidates[int(np.argmin(errors))]))
    torch.testing.assert_close(bounds["lower"], -bounds["upper"])


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_constant_tensors_have_bounds(value: float) -> None:
    rows = torch.full((1, 10), value)
    for rule in (MinMaxRange(), PercentileRange(), LeastSquares(4), BoundSearch(4), BoundSearch(4, "upper")):
        bounds = rule(rows)
        levels = grid_levels(torch.cat((bounds["lower"], bounds["upper"])), (15,))
        assert float((levels - value).abs().min()) <= 1e-6


def piecewise_error(x: torch.Tensor, bits: int, low: float, high: float, bend: float) -> float:
    bounds = [torch.tensor(value) for value in (low, high, bend)]
    quantizer = PiecewiseLinear(bits, *bounds, sides=find_sides(*bounds))
    return float((quantizer(x).detach() - x).double().square().sum())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("kind", ["normal", "heavy", "relu", "heavy relu", "negative"])
def test_piecewise_search_finds_nearly_the_best_triple(kind: str, bits: int) -> None:
    x = torch.randn(400)
    x = {"normal": x, "heavy": x**3, "relu": x.relu(), "heavy relu": (x**3).relu(), "negative": -x.relu()}[kind]
    search = PiecewiseSearch(partial(candidate_levels, bits=bits, form="distinct"))
    found = {name: float(value) for name, value in search(x[None]).items()}
    error = piecewise_error(x, bits, found["lower"], found["upper"], found["breakpoint"])
    low, high, reach = float(x.min()), float(x.max()), float(x.abs().max())
    shares = [0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0]
    bends = [reach * share / 20 for share in range(1, 21)]
    slow = min(
        piecewise_error(x, bits, low * a, high * b, bend)
        for a in (shares if low < 0 else [1.0])
        for b in (shares if high > 0 else [1.0])
        for bend in bends
    )
    assert error <= 1.05 * slow
    assert error < piecewise_error(x, bits, low, high, float(x.abs().quantile(0.99)))


@pytest.mark.parametrize("form", ["distinct", "literal"])
@pytest.mark.parametrize("bits", [2, 4])
def test_candidate_levels_are_those_of_the_quantizers(bits: int, form: str) -> None:
    low, high, bend = torch.randn(40).clamp(max=0.5) - 0.5, torch.rand(40), 2 * torch.rand(40) + 1e-3
    low = torch.minimum(low, high - 0.01)
    levels = candidate_levels(low, high, bend, bits=bits, form=form)
    seen = set()
    for row, bounds in zip(levels, zip(low, high, bend, strict=True), strict=True):
        sides = find_sides(*bounds)
        seen.add(sides)
        expected = PiecewiseLinear(bits, *bounds, form=form, sides=sides).levels()
        torch.testing.assert_close(row.unique(), expected.unique())
        assert len(row) == 2**bits
    assert seen == {"both", "upper", "lower", "none"}


def test_lloyd_against_a_plain_loop() -> None:
    rows = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0)) ** 3
    search = PiecewiseSearch(partial(candidate_levels, bits=3, form="distinct"))
    found = LloydMax(search, rounds=20)(rows)["levels"]
    bounds = search(rows)
    for r, values in enumerate(rows.tolist()):
        ends = [bounds[name][r] for name in ("lower", "upper", "breakpoint")]
        levels = candidate_levels(*ends, bits=3, form="distinct").tolist()
        for _ in range(20):
            cells: list[list[float]] = [[] for _ in levels]
            for value in values:
                cells[min(range(8), key=lambda k: abs(value - levels[k]))].append(value)
            levels = [sum(cell) / len(cell) if cell else level for cell, level in zip(cells, levels, strict=True)]
        assert found[r].tolist() == pytest.approx(levels, abs=2e-3)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("shape", ["heavy tails", "after a relu", "constant"])
def test_lloyd_has_no_larger_error_than_where_it_starts(bits: int, shape: str) -> None:
    values = torch.randn(1, 20000, generator=torch.Generator().manual_seed(1))
    rows = {"heavy tails": values**3, "after a relu": values.relu(), "constant": torch.full_like(values, 0.3)}[shape]
    search = PiecewiseSearch(partial(candidate_levels, bits=bits, form="distinct"))
    bounds = search(rows)
    start = search.levels(*(bounds[name][:, None] for name in ("lower", "upper", "breakpoint")))
    levels = LloydMax(search)(rows)["levels"]
    assert levels.shape == (1, 2**bits)
    assert bool((levels.diff() >= 0).all())
    ordered = SortedValues(rows)
    before, after = ordered.squared_error(start), ordered.squared_error(levels[:, None])
    assert float(after) <= float(before) * (1 + 1e-6) + 1e-9
    if shape != "constant":
        assert float(after) < 0.95 * float(before)


def dobi_slowly(v: torch.Tensor, b: int, one_sided: bool, K: int = 100) -> tuple[float, float]:
    """The paper's loop: quantize the whole tensor with every candidate."""
    v = v.double()
    best, found = float("inf"), (0.0, 0.0)
    step = (v.max() - v.min()) / (2 * K)
    for i in range(K):
        l, u = (v.min() if one_sided else v.min() + i * step), v.max() - i * step
        q = ((v.clamp(l, u) - l) / (u - l) * (2**b - 1)).round() / (2**b - 1) * (u - l) + l
        error = float((v - q).square().sum())
        if error <= best:
            best, found = error, (float(l), float(u))
    return found


def test_of_equal_errors_the_last_bounds_win() -> None:
    """All values at the two ends of the range, and one in the middle that the ends of every candidate are equally far
    from: any one-sided candidate ends at the middle.
    """
    rows = torch.zeros(1, 100)
    found = BoundSearch(2, "upper")(rows)
    assert (float(found["lower"]), float(found["upper"])) == (0.0, 0.0)
    rows[0, 0] = 3.0
    errors = [float((torch.tensor(3.0) - 3 * (1 - i / 200)) ** 2) for i in range(100)]
    assert float(BoundSearch(2, "upper")(rows)["upper"]) == pytest.approx(3 * (1 - errors.index(min(errors)) / 200))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["normal", "heavy", "gelu", "softmax"])
def test_bound_search_chooses_what_the_paper_loops_to(kind: str, bits: int) -> None:
    x = torch.randn(2, 3000)
    rows = {"normal": x, "heavy": x**3, "gelu": torch.nn.functional.gelu(x), "softmax": (4 * x).softmax(1)}[kind]
    for ends, one_sided in (("both", False), ("upper", True), ("auto", kind == "softmax")):
        found = BoundSearch(bits, ends)(rows)
        for number, row in enumerate(rows):
            lower, upper = dobi_slowly(row, bits, one_sided)
            assert float(found["lower"][number]) == pytest.approx(lower, rel=1e-5, abs=1e-6), ends
            assert float(found["upper"][number]) == pytest.approx(upper, rel=1e-5, abs=1e-6), ends


def test_one_side_moves_in_a_one_sided_search() -> None:
    rows = torch.nn.functional.gelu(torch.randn(1, 5000))
    bounds = BoundSearch(3, "upper")(rows)
    assert float(bounds["lower"]) == float(rows.min()) < 0
    assert float(bounds["upper"]) < float(rows.max())


def test_centred_channels_have_the_levels_and_errors_of_their_differences_from_the_mean() -> None:
    lloyd = LloydMax(PiecewiseSearch(partial(candidate_levels, bits=3, form="distinct")))
    rows = torch.randn(4, 900, generator=torch.Generator().manual_seed(2)) + torch.tensor([[-9.0], [0], [2], [5]])
    found = ChannelShift(lloyd)(rows)
    torch.testing.assert_close(found["shift"], rows.mean(1)[None])
    for prefix, values in (("", rows), ("centred_", rows - rows.mean(1, keepdim=True))):
        levels = lloyd(values.reshape(1, -1))["levels"]
        torch.testing.assert_close(found[f"{prefix}levels"], levels)
        error = (values.reshape(-1, 1) - levels).square().amin(1).mean()
        assert float(found[f"{prefix}error"]) == pytest.approx(float(error), rel=1e-4)
    assert float(found["centred_error"]) < 0.2 * float(found["error"])
    single = rows[:1]
    assert ChannelShift(lloyd)(single).keys() == lloyd(single).keys(), "one channel is told apart from nobody"


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", ["normal", "heavy", "relu"])
def test_joint_shrink_is_the_loop_over_factors(kind: str, bits: int) -> None:
    x = torch.randn(3000)
    x = {"normal": x + 0.3, "heavy": x**3, "relu": x.relu()}[kind]
    best, found = float("inf"), (0.0, 0.0)
    for i in range(90):
        l, u = float(x.min()) * (1 - 0.01 * i), float(x.max()) * (1 - 0.01 * i)
        q = ((x.double().clamp(l, u) - l) / (u - l) * (2**bits - 1)).round() / (2**bits - 1) * (u - l) + l
        error = float((x - q).square().sum())
        if error < best:
            best, found = error, (l, u)
    bounds = JointShrink(bits)(x[None])
    assert (float(bounds["lower"]), float(bounds["upper"])) == pytest.approx(found, rel=1e-5)
    upper = float(JointShrink.of_weights(x[None], bits, symmetric=True)["upper"]) / float(x.abs().max())
    assert upper == pytest.approx(round(upper, 2), abs=1e-5)
    assert 0.51 - 1e-5 <= upper <= 1
