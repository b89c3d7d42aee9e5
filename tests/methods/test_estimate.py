"""What is said before quantizing starts, with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from srquant import configure
from srquant.images import Calibration
from srquant.methods import METHODS
from srquant.methods.pipeline.estimate import Estimate, estimate
from srquant.methods.pipeline.layer_losses import work as work_of_losses
from srquant.methods.pipeline.work import Work
from srquant.model import Model
from srquant.model.multiplications import kind_of


def clock(seconds: float) -> Iterator[float]:
    """Between two looks so many seconds pass."""
    now = 0.0
    while True:
        yield now
        now += seconds


OF_PATCHES = [name for name, kind in METHODS.items() if kind.needs == "patches"]
"""Methods whose work grows with the calibration; those that train have steps of their own (``test_trained.py``)."""


@pytest.mark.parametrize("name", OF_PATCHES)
def test_seconds_are_those_of_a_pass_times_the_work(name: str, edsr: Model, calibration: Calibration) -> None:
    method = configure(name)
    layers = sum(kind_of(module) is not None for module in edsr.network.modules())
    work = method.work(calibration, layers, 1e5) + work_of_losses(calibration, layers)
    for seconds in (0.5, 3.0):
        found = estimate(edsr, method, calibration, clock(seconds).__next__)
        assert found.seconds == pytest.approx(seconds * work.pixels / calibration.size**2)
    assert found.memory > work.memory


def test_the_fastest_pass_counts(edsr: Model, calibration: Calibration) -> None:
    looks = iter([0.0, 9.0, 9.0, 10.0, 10.0, 19.0])
    slow = estimate(edsr, configure("minmax"), calibration, lambda: next(looks))
    assert slow.seconds == estimate(edsr, configure("minmax"), calibration, clock(1).__next__).seconds


def test_works_add_up_and_memory_is_that_of_the_larger() -> None:
    assert Work(1, 5, 0, 7) + Work(2, 3, 4) == Work(3, 5, 4, 7)


def test_more_patches_and_more_steps_are_more_work(low_images: Path) -> None:
    few, many = (Calibration.from_low_resolution(low_images, count=count, size=32) for count in (10, 100))
    for name in OF_PATCHES:
        if name not in ("dobi", "2dquant", "ptq4sr", "srquant"):  # which look at 32 or take a fixed number of steps
            assert configure(name).work(many, 20, 1e5).pixels > 3 * configure(name).work(few, 20, 1e5).pixels
    wide = Calibration.from_low_resolution(low_images, count=10, size=40)
    quick, thorough = (
        configure("srquant", settings=[f"effort={effort}"]).work(wide, 20, 1e6) for effort in ("quick", "thorough")
    )
    assert thorough.pixels - quick.pixels == pytest.approx((4000 - 200) * 32**2 * 4.5)
    assert configure("srquant", bits=8).work(wide, 20, 1e6).kept == 0
    short, long = (configure("oaptq", settings=[f"finetuning.steps={steps}"]) for steps in (10, 1000))
    one, other = (method.work(few, 20, 1e5) for method in (short, long))
    assert other.pixels - one.pixels == pytest.approx(990 * 2 * 32**2 * 4.5)
    assert one.kept == other.kept == 2 * 32**2


def test_a_network_with_larger_outputs_takes_more_memory(calibration: Calibration) -> None:
    def network(channels: int) -> Model:
        first, last = torch.nn.Conv2d(3, channels, 1), torch.nn.Conv2d(channels, 12, 1)
        return Model.wrap(torch.nn.Sequential(first, last, torch.nn.PixelShuffle(2)).eval(), 2)

    method = configure("minmax")
    small, large = (estimate(network(channels), method, calibration, clock(1).__next__) for channels in (16, 4096))
    batch = len(calibration) * calibration.size**2
    assert large.memory - small.memory > 5 * batch * 4 * 4000 * 0.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1, "about 5 seconds and 1.5 GiB of memory"),
        (41, "about 45 seconds and 1.5 GiB of memory"),
        (60, "about 1 minute and 1.5 GiB of memory"),
        (150, "about 3 minutes and 1.5 GiB of memory"),
        (9000, "about 2.5 hours and 1.5 GiB of memory"),
    ],
)
def test_in_words(seconds: float, text: str) -> None:
    assert str(Estimate(seconds, 1.5 * 2**30)) == text
