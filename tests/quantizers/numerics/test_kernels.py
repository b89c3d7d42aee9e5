"""The compiled staircase against the one made of tensor operations."""

from __future__ import annotations

import pytest
import torch
from tests.pairwise import every_pair
from torch import Tensor

from srquant.learning import feature_distance
from srquant.learning.feature_distance import normalised_distance
from srquant.quantizers.numerics import rounding
from srquant.support import compiled

kernels = pytest.importorskip("srquant.quantizers.numerics.kernels", exc_type=ImportError)

GRIDS = {
    "one segment": ((15,), [-1.5, 3.1]),
    "two, fine below": ((7, 8), [0.0, 1.2, 4.0]),
    "two, fine above": ((8, 7), [-4.0, -1.2, 0.0]),
    "three": ((4, 7, 4), [-3.0, -1.2, 1.2, 4.0]),
    "an empty segment": ((4, 7, 4), [-1.2, -1.2, 1.2, 4.0]),
    "levels": ((1,) * 7, [-3.0, -1.5, -0.5, 0.0, 0.25, 0.75, 2.0, 5.0]),
    "many levels": ((1,) * 63, [(k / 21 - 1.5) ** 3 for k in range(64)]),
    "many that met": ((1,) * 63, [-40.0, *[k // 2 / 60 for k in range(62)], 1e4]),
    "levels that met": ((1,) * 5, [-3.0, -0.5, -0.5, 0.0, 2.0, 2.0]),
    "levels that met at zero": ((1,) * 5, [-1.0, -0.0, -0.0, 0.0, 0.5, 1.0]),
}
LEVELS = [name for name in GRIDS if "levels" in name or "many" in name]
"""Those whose values are compiled, too."""
KERNELS = "srquant.quantizers.numerics.kernels"


def values(dtype: torch.dtype, count: int = 3 * 8 * 40 * 41) -> Tensor:
    x = torch.randn(count, generator=torch.Generator().manual_seed(0)) * 2
    x[:6] = torch.tensor([0.0, -0.0, 1e30, -1e30, torch.inf, -torch.inf])
    return x.reshape(3, 8, 40, 41).to(dtype).contiguous(memory_format=torch.channels_last)


def both(monkeypatch: pytest.MonkeyPatch, run):
    """With the kernels, and without."""
    fast = run()
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "_load", lambda kernels: None)
        return fast, run()


def test_large_tensors_take_the_compiled_way():
    assert compiled.compiled(values(torch.float32), KERNELS) is not None
    assert compiled.compiled(values(torch.bfloat16), KERNELS) is not None
    assert compiled.compiled(values(torch.float64), KERNELS) is None
    assert compiled.compiled(values(torch.float32)[:, ::2], KERNELS) is None  # gaps
    assert compiled.compiled(torch.zeros(3), KERNELS) is None


@every_pair(threads=[1, 4], grid=LEVELS, dtype=[torch.float32, torch.bfloat16])
def test_values_agree_to_the_bit(monkeypatch, grid, dtype, threads):
    intervals, knots = GRIDS[grid]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("srquant.quantizers.numerics.kernels._PART", 1 << 13)
    x = values(dtype)
    x[0, 0, 0, 6] = torch.nan
    fast, plain = both(monkeypatch, lambda: rounding.quantize(x, torch.tensor(knots), intervals))
    assert fast.dtype == x.dtype and fast.stride() == plain.stride()
    assert torch.equal(fast.isnan(), plain.isnan()) and int(fast.isnan().sum()) == 1
    assert torch.equal(fast.nan_to_num(7), plain.nan_to_num(7))


@pytest.mark.parametrize("lower_bits", [0x0000, 0x0001, 0x8000, 0xFFFF])
@pytest.mark.parametrize("grid", LEVELS)
def test_levels_are_found_from_whatever_the_upper_bits_are(monkeypatch, grid, lower_bits):
    intervals, knots = GRIDS[grid]
    bits = (torch.arange(1 << 16) << 16) + lower_bits
    x = torch.where(bits < 1 << 31, bits, bits - (1 << 32)).to(torch.int32).view(torch.float32)
    x = x[~x.isnan()]
    fast, plain = both(monkeypatch, lambda: rounding.quantize(x, torch.tensor(knots), intervals))
    assert torch.equal(fast, plain)


@every_pair(threads=[1, 4], grid=GRIDS, dtype=[torch.float32, torch.bfloat16])
def test_gradients_agree(monkeypatch, grid, dtype, threads):
    intervals, numbers = GRIDS[grid]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("srquant.quantizers.numerics.kernels._PART", 1 << 13)
    slope = values(dtype).flip(0).clamp(-9, 9)

    def run() -> tuple[Tensor, Tensor]:
        x, knots = values(dtype).clamp(-9, 9).requires_grad_(), torch.tensor(numbers, requires_grad=True)
        rounding.quantize(x, knots, intervals).backward(slope)
        return x.grad, knots.grad

    (fast_x, fast_knots), (plain_x, plain_knots) = both(monkeypatch, run)
    assert torch.equal(fast_x, plain_x)
    torch.testing.assert_close(fast_knots, plain_knots, rtol=1e-4, atol=2e-2)  # sums of 40,000 terms of size 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_gradient_of_the_values_does_not_depend_on_whether_knots_learn(monkeypatch, grid, dtype):
    intervals, numbers = GRIDS[grid]
    slope = values(dtype).flip(0).clamp(-9, 9)

    def run(learn: bool) -> Tensor:
        x, knots = values(dtype).clamp(-9, 9).requires_grad_(), torch.tensor(numbers, requires_grad=learn)
        rounding.quantize(x, knots, intervals).backward(slope)
        return x.grad

    fast, plain = both(monkeypatch, lambda: run(learn=False))
    assert torch.equal(fast, plain) and torch.equal(fast, run(learn=True)) and fast.any() and not fast.all()


def test_a_gradient_in_another_memory_format(monkeypatch):
    slope = values(torch.float32).clamp(-9, 9).contiguous()

    def run() -> Tensor:
        x = values(torch.float32).requires_grad_()
        rounding.quantize(x, torch.linspace(-1, 1, 16).requires_grad_(), (1,) * 15).backward(slope)
        return x.grad

    fast, plain = both(monkeypatch, run)
    assert torch.equal(fast, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.3])
def test_distances_agree(monkeypatch, dtype, noise):
    monkeypatch.setattr(feature_distance, "_LONG_ROW", 1)
    teacher = values(torch.float32).clamp(-9, 9)
    student = (teacher + noise * teacher.flip(1)).to(dtype)
    teacher = teacher.to(dtype)

    def run() -> tuple[Tensor, Tensor]:
        features = student.clone().requires_grad_()
        distance = normalised_distance(features, teacher)
        (distance * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        return distance.detach(), features.grad.float()

    (fast, fast_gradient), (plain, plain_gradient) = both(monkeypatch, run)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-7)
    if noise == 0:  # the plain way finds the direction of its rounding errors
        assert not fast.any() and not fast_gradient.any()
        return
    largest = float(plain_gradient.abs().max())
    torch.testing.assert_close(fast_gradient, plain_gradient, rtol=1e-2, atol=1e-3 * largest)


def test_many_short_samples_are_not_worth_a_call_each(monkeypatch):
    calls = []
    monkeypatch.setattr(
        compiled._load("srquant.learning.distance_kernels"),
        "lengths_and_distance",
        lambda *row: calls.append(row) or (1.0, 1.0, 0.0),
    )
    windows = torch.randn(128, 64, 32)
    distances = normalised_distance(windows, windows + 1)
    assert not calls and bool((distances > 0.1).all())
    normalised_distance(windows.view(2, -1), windows.view(2, -1))
    assert len(calls) == 2


def test_without_a_folder_to_compile_into_the_plain_way_is_taken(monkeypatch):
    def fail(name: str, *_: object):
        raise RuntimeError("no locator available")

    compiled._load.cache_clear()
    monkeypatch.setattr(compiled, "import_module", fail)
    try:
        assert compiled.compiled(values(torch.float32), KERNELS) is None
    finally:
        compiled._load.cache_clear()


def test_another_number_of_threads_gives_the_same_bits(monkeypatch):
    """Sums of values, of gradients of each kind of grid, and of distances; with more parts than threads and fewer."""
    x = torch.randn(3, 8, 190, 191, generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    )
    assert x.numel() > 3 * kernels._PART
    slopes = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))

    def found() -> list[Tensor]:
        results: list[Tensor] = []
        for intervals, knots in GRIDS.values():
            values, bounds = x.clone().requires_grad_(), torch.tensor(knots, requires_grad=True)
            made = rounding.quantize(values, bounds, intervals)
            made.backward(slopes)
            results += [made.detach(), values.grad, bounds.grad]
        student = x.clone().requires_grad_()
        distance = normalised_distance(student, x + 0.1 * slopes)
        distance.sum().backward()
        return [*results, distance.detach(), student.grad]

    calls = set()
    pool = kernels._pool

    def counted(threads):
        calls.add(threads)
        return pool(threads)

    monkeypatch.setattr(kernels, "_pool", counted)
    alone = found()
    for threads in (4, 6, 64):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for one, other in zip(alone, found(), strict=True):
            assert torch.equal(one, other), threads
    assert calls >= {2, 3}
