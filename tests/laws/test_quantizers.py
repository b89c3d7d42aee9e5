"""Laws that hold for every quantizer, whatever the tensor."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from srquant.errors import ArgumentError
from srquant.quantizers import (
    FreeLevels,
    PiecewiseLinear,
    Quantizer,
    Symmetric,
    Uniform,
    all_quantizers,
    build_quantizer,
    candidate_levels,
    find_sides,
)
from srquant.ranges import Lloyd, PiecewiseSearch


def make(kind: str, bits: int, x: Tensor) -> Quantizer:
    """A quantizer of a kind for a tensor, as calibration would make it."""
    low, high = (x.min(), x.max()) if x.numel() else (torch.tensor(0.0), torch.tensor(0.0))
    if kind == "uniform":
        return Uniform(bits, low, high)
    if kind == "symmetric":
        return Symmetric(bits, torch.maximum(-low, high))
    if kind == "free_levels":
        search = PiecewiseSearch(partial(candidate_levels, bits=bits, form="distinct"))
        return FreeLevels(bits, Lloyd(search)(x[None])["levels"][0] if x.numel() else torch.zeros(1 << bits))
    form, sides = kind.split("/")[1:]
    breakpoint = x.abs().median() if x.numel() else torch.tensor(0.0)
    found = find_sides(low, high, breakpoint) if sides == "auto" else "both"
    return PiecewiseLinear(bits, low, high, breakpoint, form, found)  # type: ignore[arg-type]


KINDS = (
    "uniform",
    "symmetric",
    "free_levels",
    *(f"piecewise_linear/{form}/{sides}" for form in ("distinct", "literal") for sides in ("auto", "both")),
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
    assert {kind.split("/")[0] for kind in KINDS} == set(all_quantizers())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", KINDS)
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
    assert bool(((values - inside).abs() <= levels.diff().max() * 0.5001 + 1e-5 * x.abs()).all()), "half a step at most"


@pytest.mark.parametrize("shape", [name for name in SHAPES if name not in ("empty", "huge", "tiny")])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_bound_and_are_finite(kind: str, shape: str) -> None:
    x = SHAPES[shape](400)
    quantizer = make(kind, 3, x)
    with torch.no_grad():  # bounds that clip, so that each of them matters
        for bound in quantizer.parameters():
            bound.mul_(0.9)
    x = x.clone().requires_grad_()
    (quantizer(x) * torch.randn(x.shape)).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    for name, bound in quantizer.named_parameters():
        used = not (name == "breakpoint" and getattr(quantizer, "sides", "") == "none")
        assert (bound.grad is not None) == used, name
        if used and shape in ("two-sided", "heavy tails", "huge and tiny"):
            assert bound.grad is not None
            assert bool(bound.grad.isfinite().all())
            assert bool(bound.grad.abs().sum() > 0), name


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
    again = build_quantizer(quantizer.name, quantizer.arguments(), bounds)
    assert torch.equal(again(x), quantizer(x))


@pytest.mark.parametrize("bits", [-1, 0, 1, 9, 32])
def test_bits_outside_their_range_are_refused(bits: int) -> None:
    with pytest.raises(ArgumentError, match=f"bits={bits} is outside 2…8"):
        Uniform(bits, torch.tensor(0.0), torch.tensor(1.0))
