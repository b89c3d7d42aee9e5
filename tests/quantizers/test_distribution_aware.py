"""Levels of each image and channel, beside a twin that looks at one channel after the other."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import Tensor

from srquant.quantizers import DistributionAware, build_quantizer
from srquant.quantizers.distribution_aware import STEPS
from srquant.support.errors import ArgumentError


def deviations(image: Tensor, *, positive: bool, bits: int) -> list[float]:
    """σ' of each channel: sample standard deviations on a grid between the smallest and the largest."""
    found: list[float] = []
    for channel in image:
        values = [float(v) for v in channel.flatten().double() if not positive or v > 0]
        found.append(statistics.stdev(values) if len(values) > 1 else 0.0)
    low, unit = min(found), (max(found) - min(found)) / (2**bits - 1)
    return [low + round((value - low) / unit) * unit if unit else low for value in found]


def twin(x: Tensor, bits: int, deviation_bits: int = 4, last: float | None = None) -> Tensor:
    """Of all levels the nearest, value by value."""
    images: list[Tensor] = []
    for image in x:
        signed = bool((image < 0).any())
        channels: list[Tensor] = []
        for channel, spread in zip(image, deviations(image, positive=not signed, bits=deviation_bits), strict=True):
            step = STEPS[bits] * spread
            if signed:
                half = 2 ** (bits - 1)
                levels = float(channel.double().mean()) + step * (torch.arange(-half, half) + 0.5)
            else:
                levels = step * torch.arange(2**bits if last is None else int(last / step) + 2)
            nearest = (channel.flatten()[:, None] - levels).abs().argmin(1)
            channels.append(levels[nearest].reshape(channel.shape))
        images.append(torch.stack(channels))
    return torch.stack(images).float()


SHAPES = {
    "two-sided": lambda: torch.randn(3, 5, 9, 7) * torch.rand(1, 5, 1, 1) + torch.randn(1, 5, 1, 1),
    "after a relu": lambda: (torch.randn(3, 5, 9, 7) * (0.2 + torch.rand(1, 5, 1, 1))).relu(),
    "of both kinds": lambda: torch.stack((torch.randn(5, 9, 7), torch.randn(5, 9, 7).relu())),
    "heavy tails": lambda: torch.randn(2, 5, 9, 7) ** 5,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", range(2, 9))
def test_levels_are_the_nearest_of_each_image_and_channel(bits: int, shape: str) -> None:
    x = SHAPES[shape]()
    found = DistributionAware(bits)(x)
    torch.testing.assert_close(found, twin(x, bits), rtol=1e-4, atol=1e-4)
    for channel in found.flatten(0, 1):
        assert len(channel.unique()) <= 2**bits


def test_without_the_clamp_there_are_more_values_than_codes() -> None:
    x = 0.02 * torch.randn(2, 4, 60, 60).relu()
    x[..., 0, :] = torch.linspace(0.1, 1, 60)
    found = DistributionAware(4, clamp=False)(x)
    torch.testing.assert_close(found, twin(x, 4, last=float(x.max())), rtol=1e-4, atol=1e-4)
    assert max(len(channel.unique()) for channel in found.flatten(0, 1)) > 16
    assert max(len(channel.unique()) for channel in DistributionAware(4)(x).flatten(0, 1)) <= 16


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    x = SHAPES["of both kinds"]()
    assert torch.equal(DistributionAware(3)(x)[:1], DistributionAware(3)(x[:1]))


@pytest.mark.parametrize("value", [0.0, 0.37, -2.0])
def test_a_constant_image_stays_finite(value: float) -> None:
    x = torch.full((1, 3, 5, 5), value)
    found = DistributionAware(4)(x)
    assert bool(found.isfinite().all())
    if value <= 0:
        torch.testing.assert_close(found, x)


def test_gradients_go_straight_through() -> None:
    x = SHAPES["heavy tails"]().requires_grad_()
    pull = torch.randn_like(x)
    (DistributionAware(2)(x) * pull).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, pull)


def test_it_is_made_again_from_a_file() -> None:
    quantizer = DistributionAware(3, 8, clamp=False)
    again = build_quantizer(quantizer.name, quantizer.arguments(), {})
    x = SHAPES["after a relu"]()
    assert torch.equal(again(x), quantizer(x))


def test_there_is_no_grid() -> None:
    quantizer = DistributionAware(3)
    assert quantizer.integer_grid() is None
    with pytest.raises(ArgumentError, match="levels follow each image and channel"):
        quantizer.levels()
    with pytest.raises(ArgumentError, match="deviation_bits=1 is outside 2…8"):
        DistributionAware(3, 1)
