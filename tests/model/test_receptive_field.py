"""How far networks see that nobody described."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.architectures import ARCHITECTURES, architecture
from tests.conftest import small_networks
from torch import Tensor, nn

from srquant.api import tiling
from srquant.images import Calibration
from srquant.images.tiling import Tiling
from srquant.methods import MinMax
from srquant.model import Model
from srquant.model.receptive_field import LARGEST, receptive_field

conv = partial(nn.Conv2d, 3, 3, padding="same")


class Around(nn.Module):
    """A network of scale 1 with something in its middle."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last = conv(3), middle, conv(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.middle(self.first(images)))


class Mean(nn.Module):
    """Pooling attention: every pixel is multiplied by the mean of all."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True)


class Windows(nn.Module):
    """Every pixel becomes the mean of its window of 4×4; the last windows are smaller."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(nn.functional.avg_pool2d(x, 4, ceil_mode=True), scale_factor=4.0)[
            ..., : x.shape[-2], : x.shape[-1]
        ]


class Larger(nn.Module):
    """A comparison, in which what is no number is lost."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.roll(4, -1) > 0).float()


class Halved(nn.Module):
    """Computes at half the size, so that it takes even sizes only."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(nn.functional.pixel_unshuffle(x, 2)))


KNOWN: dict[str, tuple[nn.Module, int, int | None]] = {
    "one convolution": (nn.Identity(), 1, 1),
    "a chain": (nn.Sequential(*(conv(3) for _ in range(9))), 1, 10),
    "a large kernel": (conv(17), 1, 9),
    "dilated": (conv(5, dilation=3), 1, 7),
    "wide": (conv((1, 11)), 1, 6),
    "tall": (conv((11, 1)), 1, 6),
    "even, so to one side": (conv(6), 1, 4),
    "activations": (nn.Sequential(conv(3), nn.PReLU(), nn.GELU(), nn.Hardswish(), nn.ReLU6(), nn.Sigmoid()), 1, 2),
    "halved": (Halved(), 2, 4),
    "a comparison": (Larger(), 1, 5),
    "to the limit": (nn.Sequential(*(conv(17) for _ in range(15)), conv(15)), 1, LARGEST),
    "beyond the limit": (nn.Sequential(*(conv(17) for _ in range(16))), 1, None),
    "windows": (Windows(), 1, None),
    "windows and tiles alike": (Windows(), 4, 4),
    "a mean": (Mean(), 1, None),
    "a norm over the image": (nn.GroupNorm(1, 3), 1, None),
}


@pytest.mark.parametrize("name", KNOWN)
def test_networks_of_known_reach(name: str) -> None:
    middle, alignment, field = KNOWN[name]
    model = Model.wrap(Around(middle), 1, alignment=alignment)
    assert model.receptive_field == field
    assert tiling(model, 64).overlap == (32 if field is None else field)


def test_enlarging_convolutions_see_less() -> None:
    """After the shuffle a pixel is a quarter of one."""
    wide = partial(nn.Conv2d, padding=1)
    stages = (wide(3, 48, 3), nn.PixelShuffle(4), wide(3, 3, 3), wide(3, 3, 3))
    assert Model.wrap(nn.Sequential(*stages), 4).receptive_field == 2


@pytest.mark.parametrize("name", ["edsr", "srresnet", "rdn", "msrresnet"])
def test_what_described_networks_say_is_what_is_measured(name: str) -> None:
    network = small_networks()[name]
    model = Model.wrap(network, network.scale, network.value_range)
    assert model.receptive_field == network.receptive_field == Model(network, name).receptive_field


def test_quantized_networks_see_as_far(calibration: Calibration) -> None:
    model = Model.wrap(Around(nn.Sequential(conv(5), nn.ReLU(), conv(3))), 1)
    quantized = MinMax(bits=2, edges="none").quantize(model, calibration)
    assert quantized.receptive_field == model.receptive_field == 4
    assert len(quantized.layers()) == 4


def test_it_is_measured_once(monkeypatch) -> None:
    model = Model.wrap(Around(nn.Identity()), 1)
    assert model.receptive_field == 1
    monkeypatch.setattr("srquant.model.model.receptive_field", lambda _: 1 / 0)
    assert model.receptive_field == 1


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_cuts_change_nothing_in_architectures_of_known_reach(name: str) -> None:
    """Small ones of the published architectures: tiles of those that have a bound give the whole image."""
    network = architecture(name)
    field = receptive_field(network)
    assert field == FIELDS.get(name)
    if field is None:
        return
    size = 2 * (field + -field % network.alignment) + 40
    image = torch.rand(1, 3, 24, size + -size % network.alignment)
    tiles = Tiling(16, field, network.alignment)
    with torch.inference_mode():
        whole = network(image)
        rows = [
            torch.cat([tile.keep(network(tile.cut(image)), network.scale) for tile in row], -1)
            for row in tiles.rows(*image.shape[-2:])
        ]
    torch.testing.assert_close(torch.cat(rows, -2), whole, rtol=1e-4, atol=1e-4)


FIELDS = {
    "Compact": 4,
    "DITN": 22,
    "DRCT": 44,
    "ESRGAN": 19,
    "ESRGAN plus": 19,
    "MoSR": 9,
    "PLKSR": 6,
    "SAFMN": 18,
    "SAFMNBCIE": 39,
    "SPAN": 21,
    "SwiftSRGAN": 10,
}
"""All others have channel attention, windows that begin where an image does, or norms over the image."""
