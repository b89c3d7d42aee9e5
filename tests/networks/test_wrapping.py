"""Modules that people pass to ``Model.wrap``: each works, or one sentence says why not and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.wild import Wild
from torch import Tensor, nn

import srquant
from srquant.images import Calibration
from srquant.methods import MinMax
from srquant.model import Model
from srquant.support.errors import ArgumentError, NetworkError


class Giving(Wild):
    """Gives its output in some other way."""

    def __init__(self, how: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Any:
        return self.how(super().forward(x), x)


class Refusing(Wild):
    """Takes sizes that are multiples of something."""

    def __init__(self, multiple: int, error: type[Exception] = ValueError) -> None:
        super().__init__()
        self.multiple, self.error = multiple, error

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % self.multiple or x.shape[-2] % self.multiple:
            raise self.error(f"sizes must be multiples of {self.multiple}")
        return super().forward(x)


class Scaled(Wild):
    def forward(self, x: Tensor, scale: float) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class OneAtATime(Wild):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze(0).reshape(1, 3, 2 * x.shape[2], 2 * x.shape[3])


def padded(border: int) -> nn.Module:
    """Needs images of more pixels than its border."""
    return nn.Sequential(nn.ReflectionPad2d(border), Wild(), nn.ZeroPad2d(-2 * border))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Giving(lambda y, x: [y]),
            "gives a list of 1 instead of one image; wrap it in a module that returns the",
        ),
        (lambda: Giving(lambda y, x: (y, x)), "gives a tuple of 2 instead of one image"),
        (lambda: Giving(lambda y, x: {"sr": y}), "gives a dict of 1 instead of one image"),
        (lambda: Giving(lambda y, x: None), "gives a NoneType instead of one image"),
        (lambda: Giving(lambda y, x: x[:, :2]), r"scale=2: the network turns 1x3x8x8 into 1x2x8x8"),
        (lambda: Refusing(16), "runs on an image of 16x16, but not on one of 17x16: give alignment=16"),
        (lambda: Refusing(12, AssertionError), "runs on an image of 48x48, but not on one of 49x48: give alignment=12"),
        (lambda: Refusing(4, KeyError), "runs on an image of 8x8, but not on one of 9x8: give alignment=4"),
        (lambda: nn.Sequential(nn.LayerNorm([3, 64, 64]), Wild()), "runs on an image of 64x64, but .* of many sizes"),
        (
            lambda: nn.Sequential(nn.Conv2d(5, 12, 3), nn.PixelShuffle(2)),
            "cannot run on an RGB image of 8x8.* expected",
        ),
        (Scaled, "forward pass takes more than an image: scale; wrap it in a module whose forward passes them"),
        (lambda: torch.jit.trace(Wild().eval(), torch.zeros(1, 3, 8, 8)), "is TorchScript, .* pass the nn.Module"),
        (lambda: nn.Upsample(scale_factor=2), "has no parameters, so there is nothing to quantize"),
        (lambda: "edsr", "the network is a str; pass an nn.Module"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_cannot_be_wrapped_is_said(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        Model.wrap(make(), 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [1.5, 0, 33, "2"])
def test_scales_are_whole(scale: Any) -> None:
    with pytest.raises(ArgumentError, match="scale="):
        Model.wrap(Wild(), scale)


@pytest.mark.parametrize(
    ("make", "alignment", "smallest"),
    [
        (Wild, 1, 1),
        (lambda: padded(10), 1, 11),
        (lambda: padded(40), 1, 41),
        (lambda: Refusing(8), 8, 8),
        (lambda: nn.Sequential(Refusing(2), nn.Identity()), 2, 2),
        (lambda: nn.Sequential(nn.ReflectionPad2d(12), Refusing(4), nn.ZeroPad2d(-24)), 4, 16),
    ],
)
def test_any_size_is_enlarged(make: Callable[[], nn.Module], alignment: int, smallest: int, tmp_path: Path) -> None:
    module = make().eval()
    model = Model.wrap(module, 2, alignment=alignment)
    assert model.network.sizes.smallest == smallest
    for height, width in ((1, 1), (7, 30), (20, 30), (48, 48)):
        images = torch.rand(2, 3, height, width)
        output = model(images)
        assert output.shape == (2, 3, 2 * height, 2 * width)
        if min(height, width) >= smallest and not height % alignment and not width % alignment:
            with torch.no_grad():
                torch.testing.assert_close(output, module(images), atol=1e-6, rtol=1e-5)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    done = srquant.upscale(model, tmp_path / "a.png", tmp_path / "b.png")
    assert not done.failed
    with Image.open(tmp_path / "b.png") as picture:
        assert picture.size == (60, 40)


@pytest.mark.parametrize("around", [nn.DataParallel, lambda module: torch.compile(module, backend="eager")])
def test_what_is_around_a_module_is_taken_off(around: Callable[[nn.Module], Any], calibration: Calibration) -> None:
    module = Wild().eval()
    model = Model.wrap(around(module), 2)
    images = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(model(images), module(images), atol=1e-6, rtol=1e-5)
    record = MinMax(edges="none").quantize(model, calibration).record
    assert record is not None
    assert record.coverage == 1


def test_half_precision_is_computed_in_float32() -> None:
    module = Wild().half().eval()
    assert Model.wrap(module, 2)(torch.rand(1, 3, 8, 8)).dtype == torch.float32
    assert module.first.weight.dtype == torch.float16


def test_a_network_that_takes_one_image_at_a_time(calibration: Calibration) -> None:
    model = Model.wrap(OneAtATime().eval(), 2)
    with pytest.raises(NetworkError, match=r"cannot run on 6 images of 24x24: .*give observation\.batch=1"):
        MinMax().quantize(model, calibration)
    alone = srquant.configure("minmax", settings=["observation.batch=1"])
    assert srquant.quantize(model, calibration, alone)(torch.rand(1, 3, 8, 8)).shape == (1, 3, 16, 16)


def test_a_size_that_fails_later_is_said() -> None:
    class Rare(Wild):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] == 33:
                raise IndexError("of all sizes, 33")
            return super().forward(x)

    with pytest.raises(NetworkError, match="cannot run on an image of 33x20: IndexError: of all sizes, 33"):
        Model.wrap(Rare().eval(), 2)(torch.rand(1, 3, 20, 33))
