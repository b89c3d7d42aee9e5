"""Networks of one channel, run on luma with bicubic colours, as their papers do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import write_png
from torch import Tensor, nn

from srquant import Calibration, Model, configure, evaluate, export, load, open_exported, quantize, upscale
from srquant.images.bicubic import resize
from srquant.images.metrics import luma as luma_of_bytes
from srquant.images.reading import read_picture
from srquant.networks.luma import enlarge_bicubic, enlarge_on_luma, luma
from srquant.networks.opening import load_network
from srquant.support.errors import ArgumentError, NetworkError
from srquant.support.tensors import planes

RGB_OF = torch.tensor([[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]])
"""Full-range BT.601, ITU-T T.871."""


class ESPCN(nn.Module):
    """Shi et al., CVPR 2016."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 5, padding=2), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()
        )
        self.last = nn.Conv2d(8, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.last(self.body(x)), 2)


class FSRCNN(nn.Module):
    """Dong et al., ECCV 2016."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 12, 5, padding=2), nn.PReLU(12))
        self.middle = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.PReLU(12))
        self.last = nn.ConvTranspose2d(12, 1, 9, stride=2, padding=4, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class VDSR(nn.Module):
    """Kim et al., CVPR 2016: it takes the image enlarged already."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class Bicubic(nn.Module):
    """Of one channel; it has a parameter, as every network."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.convolution = nn.Conv2d(1, 1, 1)
        with torch.no_grad():
            self.convolution.weight.fill_(1)
            self.convolution.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 1:
            raise ValueError("one channel")
        return resize(self.convolution(x), self.scale)


NETWORKS = {"espcn": ESPCN, "fsrcnn": FSRCNN, "vdsr": VDSR}
with_spandrel = pytest.mark.skipif(importlib.util.find_spec("spandrel") is None, reason="spandrel is not installed")
each_network = pytest.mark.parametrize("name", NETWORKS)


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name]().eval()


def by_the_book(network: nn.Module, images: Tensor, scale: int) -> Tensor:
    """RGB to YCbCr, Y through the network, Cb and Cr bicubically, back to RGB; all in float64."""
    images = images.double()
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)
    y = (images * weights).sum(1, keepdim=True)
    blue, red = (images[:, 2:] - y) / 1.772, (images[:, :1] - y) / 1.402
    with torch.no_grad():
        new = network.double()((219 * y + 16) / 255)
    planes = torch.cat(((255 * new - 16) / 219, resize(blue, scale), resize(red, scale)), 1)
    return torch.einsum("rc,nchw->nrhw", RGB_OF.double(), planes)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (17, 23)])
def test_enlarging_bicubically_is_matlabs(scale: int, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size)
    torch.testing.assert_close(
        enlarge_bicubic(images, scale).double(), resize(images.double(), scale), rtol=0, atol=5e-6
    )


def test_luma_is_that_of_the_scores() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    found = luma(planes(pixels)[None].float(), 255.0)[0, 0]
    torch.testing.assert_close(found.double(), luma_of_bytes(pixels), rtol=0, atol=1e-4)
    torch.testing.assert_close(luma(planes(pixels)[None].float() / 255, 1.0)[0, 0], found / 255)


@pytest.mark.parametrize("scale", [2, 3])
def test_a_bicubic_network_enlarges_bicubically(scale: int) -> None:
    images = torch.rand(1, 3, 9, 11)
    model = Model.wrap(Bicubic(scale), scale)
    torch.testing.assert_close(model(images), resize(images, scale), rtol=0, atol=1e-5)


@each_network
@pytest.mark.parametrize("value_range", [1.0, 255.0])
def test_luma_goes_through_the_network_and_colours_do_not(name: str, value_range: float) -> None:
    network = made(name)
    images = torch.rand(2, 3, 12, 10)
    model = Model.wrap(network, 2, value_range)
    assert (model.scale, model.network.value_range) == (2, value_range)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, y: Tensor) -> Tensor:
            return network((resize(y, 2) if name == "vdsr" else y) * value_range) / value_range

    torch.testing.assert_close(model(images).double(), by_the_book(Scaled(), images, 2), rtol=0, atol=2e-5)


@each_network
def test_gray_stays_gray(name: str) -> None:
    gray = torch.rand(1, 1, 9, 9).expand(1, 3, 9, 9)
    red, green, blue = Model.wrap(made(name), 2)(gray).unbind(1)
    torch.testing.assert_close(red, green, rtol=0, atol=1e-5)
    torch.testing.assert_close(red, blue, rtol=0, atol=1e-5)


def test_gradients_pass() -> None:
    images = torch.rand(1, 3, 6, 6, requires_grad=True)
    enlarge_on_luma(made("espcn"), images, 2, 1.0).sum().backward()
    assert images.grad is not None
    assert bool((images.grad != 0).all())


@each_network
def test_quantizing_saving_and_opening(name: str, calibration: Calibration, tmp_path: Path) -> None:
    model = Model.wrap(made(name), 2)
    edges = model.network.edges
    assert edges.first == (
        {"espcn": "network.body.0", "fsrcnn": "network.first.0", "vdsr": "network.residual.0"}[name],
    )
    small = quantize(model, calibration, configure("minmax", 8))
    assert small.record is not None
    images = torch.rand(1, 3, 16, 16)
    assert float((small(images) - model(images)).abs().max()) < 0.1
    again = load(small.save(tmp_path / "m.safetensors"), network=made(name))
    assert torch.equal(again(images), small(images))
    with pytest.raises(ArgumentError, match="passed from Python"):
        load(tmp_path / "m.safetensors")


def test_learning_from_a_network_on_luma(calibration: Calibration) -> None:
    model = Model.wrap(made("espcn"), 2)
    method = configure("oaptq", 4, settings=["finetuning.epochs=1", "finetuning.batch=3"])
    small = quantize(model, calibration, method)
    images = torch.rand(1, 3, 16, 16)
    assert bool(small(images).isfinite().all())


@each_network
def test_pictures(name: str, low_images: Path, tmp_path: Path) -> None:
    """In tiles as at once, gray ones as gray."""
    model = Model.wrap(made(name), 2)
    picture = write_png(tmp_path / "p.png", 60, 70)
    for tile in (16, 192):
        upscale(model, picture, tmp_path / f"{tile}.png", tile=tile)
    cut, whole = (read_picture(tmp_path / f"{tile}.png").pixels.astype(int) for tile in (16, 192))
    assert whole.shape == (120, 140, 3)
    assert np.abs(cut - whole).max() <= 1  # sums in another order round otherwise


def test_rgb_networks_that_take_the_enlarged_image() -> None:
    images = torch.rand(1, 3, 9, 8)
    network = VDSR(3).eval()
    with torch.no_grad():
        expected = network(resize(images, 3))
    torch.testing.assert_close(Model.wrap(network, 3)(images), expected, rtol=0, atol=1e-5)


def test_a_network_of_one_channel_and_of_no_enlargement() -> None:
    """A denoiser: scale 1, nothing is enlarged."""
    images = torch.rand(1, 3, 9, 8)
    model = Model.wrap(VDSR().eval(), 1)
    assert model(images).shape == images.shape
    assert not model.network.on_enlarged


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("kind", ["espcn", "vdsr"])
def test_it_is_exported_up_to_its_borders(kind: str, engine: str, calibration: Calibration, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip(engine)
    small = quantize(Model.wrap(made(kind), 2), calibration, configure("minmax", 8, settings=["grid=int8"]))
    images = torch.rand(1, 3, 30, 24)
    for tile in (None, (30, 24)):
        export(small, tmp_path / "m.onnx", engine=engine, tile=tile)
        found = open_exported(tmp_path / "m.onnx", engine=engine)(images)
        torch.testing.assert_close(found, small(images), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("module", "scale", "message"),
    [
        (ESPCN(), 3, "scale=3: the network turns 1x1x8x8 into 1x1x16x16"),
        (ESPCN(2), 2, "cannot run on an RGB image of 8x8"),
        (ESPCN(4), 2, "cannot run on an RGB image of 8x8"),
        (nn.Conv2d(1, 3, 1), 1, "scale=1: the network turns 1x1x8x8 into 1x3x8x8"),
        (nn.Conv2d(3, 1, 1), 1, "scale=1: the network turns 1x3x8x8 into 1x1x8x8"),
    ],
)
def test_what_is_neither_rgb_nor_luma(module: nn.Module, scale: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Model.wrap(module, scale)


def esrgan(inputs: int, outputs: int, growth: int = 32) -> dict[str, Tensor]:
    """Weights of a one-block RRDBNet in the layout of BasicSR."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def add(name: str, taken: int, given: int) -> None:
        state[f"{name}.weight"] = 0.05 * torch.randn(given, taken, 3, 3)
        state[f"{name}.bias"] = torch.zeros(given)

    add("conv_first", inputs, 16)
    for dense in (1, 2, 3):
        for layer in range(5):
            add(f"body.0.rdb{dense}.conv{layer + 1}", 16 + growth * layer, growth if layer < 4 else 16)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        add(name, 16, 16)
    add("conv_last", 16, outputs)
    return state


@with_spandrel
def test_a_gray_network_of_spandrels(low_images: Path, tmp_path: Path) -> None:
    torch.save(esrgan(1, 1), tmp_path / "n.pth")
    model = load(tmp_path / "n.pth")
    images = torch.rand(1, 3, 9, 8)
    inner = model.network.network
    torch.testing.assert_close(model(images).double(), by_the_book(inner, images, 4), rtol=0, atol=2e-5)
    inner.float()
    patches = Calibration.from_low_resolution(low_images, count=2, size=24)
    small = quantize(model, patches, configure("minmax", 8))
    again = load(small.save(tmp_path / "m.safetensors"))
    assert torch.equal(again(images), small(images))
    load(model.save(tmp_path / "f.safetensors"))
    assert torch.equal(load(tmp_path / "f.safetensors")(images), model(images))


@with_spandrel
def test_settings_of_a_network_of_spandrels(tmp_path: Path) -> None:
    torch.save(esrgan(3, 3), tmp_path / "n.pth")
    images = torch.rand(1, 3, 9, 8)
    for model in (load(tmp_path / "n.pth", settings=["value_range=7"]), load(tmp_path / "n.pth", value_range=7)):
        assert model.network.value_range == 7
        with torch.no_grad():
            expected = model.network.network(images * 7) / 7
        torch.testing.assert_close(model(images), expected)
    with pytest.raises(NetworkError, match="spandrel takes these weights for ESRGAN, not SPAN"):
        load(tmp_path / "n.pth", settings=["architecture=SPAN"])
    with pytest.raises(ArgumentError, match="unknown field 'residual_scale'; known: architecture, value_range"):
        load(tmp_path / "n.pth", settings=["residual_scale=0.1"])


@with_spandrel
@pytest.mark.parametrize("channels", [(4, 4), (3, 1), (1, 3)])
def test_other_channels_are_refused_by_name(channels: tuple[int, int], tmp_path: Path) -> None:
    torch.save(esrgan(*channels), tmp_path / "n.pth")
    message = f"ESRGAN takes {channels[0]} and gives {channels[1]} channels; srquant runs networks"
    with pytest.raises(NetworkError, match=message):
        load_network(tmp_path / "n.pth")


@with_spandrel
def test_what_spandrel_says_in_many_lines_is_said_in_one(tmp_path: Path) -> None:
    torch.save(esrgan(3, 3, growth=4), tmp_path / "n.pth")
    with pytest.raises(
        NetworkError, match=r"spandrel cannot open these weights: .*size mismatch for .*, and \d+ more$"
    ) as c:
        load_network(tmp_path / "n.pth")
    assert len(str(c.value)) < 400
    assert "\n" not in str(c.value)


def test_scores_of_a_network_on_luma(tmp_path: Path) -> None:
    from tests.images.test_pairs import make_pair

    make_pair(tmp_path / "Set/x2", "1", 2)
    (scores,) = evaluate(Model.wrap(Bicubic(2), 2), tmp_path / "Set")
    assert scores.psnr > 20
