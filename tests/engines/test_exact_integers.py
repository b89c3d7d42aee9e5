"""What models simulate is integer arithmetic: layers computed in integers only are equal to the simulated ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import NETWORK_NAMES, small_networks
from tests.engines.exact_integers import IntegerLayer, integer_model, integer_product, largest_sum
from torch import Tensor, nn

from srquant.images import Calibration
from srquant.images.metrics import psnr
from srquant.learning.settings import LearningSettings
from srquant.methods import PLQ, MinMax, SRQuant
from srquant.methods.base import Method, WeightSettings
from srquant.model import Model, load
from srquant.model.layer import CodedWeight, QuantLayer
from srquant.model.multiplications import linear, matrix_product, product_of
from srquant.model.swapping import quant_layers
from srquant.quantizers import PiecewiseLinear, Quantizer, ShiftedUniform, Symmetric, Uniform
from srquant.support.errors import ArgumentError
from srquant.support.watching import hooks

METHODS: dict[str, Method] = {
    "uniform": MinMax(bits=8),
    "uniform, per channel": MinMax(bits=8, weights=WeightSettings(granularity="per_channel")),
    "uniform, weights not symmetric": MinMax(
        bits=4, weights=WeightSettings(symmetric=False, granularity="per_channel")
    ),
    "piecewise-linear": PLQ(bits=8),
    "piecewise-linear, 4 bits": PLQ(bits=4),
    "free levels, channels centred": SRQuant(bits=4, finetuning=LearningSettings(epochs=1)),
    "piecewise-linear, literal, 3 bits": PLQ(bits=3, plq="literal", reallocate=False),
}


def to_8_bits(image: Tensor):
    return (image[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", NETWORK_NAMES)
def test_each_layer_equals_the_simulated_one_on_equal_inputs(network: str, method: str, low_images: Path) -> None:
    patches = Calibration.from_low_resolution(low_images, count=2, size=16)
    model = METHODS[method].quantize(Model(small_networks()[network], "x"), patches)
    seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}

    def keep(name: str):
        def hook(_module: nn.Module, operands: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = (operands, output.clone())

        return hook

    layers = quant_layers(model.network)
    with hooks(model.network, after={name: keep(name) for name in layers}):
        model(torch.rand(1, 3, 11, 13))
    assert seen.keys() == layers.keys()
    for name, (operands, expected) in seen.items():
        found = IntegerLayer(layers[name])(*operands)
        assert found.dtype == expected.dtype
        assert float((found - expected).abs().max()) <= 1e-4 * float(expected.max() - expected.min()), name


@pytest.mark.parametrize("method", ["uniform, per channel", "piecewise-linear"])
@pytest.mark.parametrize("network", NETWORK_NAMES)
def test_whole_networks_agree_to_50_db_at_8_bits(network: str, method: str, low_images: Path, tmp_path: Path) -> None:
    """Whatever the weights; these are random, so outputs are stretched to the range of images first."""
    patches = Calibration.from_low_resolution(low_images, count=4, size=24)
    made = METHODS[method].quantize(Model(small_networks()[network], "x"), patches)
    model = load(made.save(tmp_path / "m.safetensors"))
    images = patches.batch(range(1))
    simulated, integers = model(images), integer_model(model)(images)
    low, high = simulated.min(), simulated.max()
    error = (simulated - integers).square().mean() / (high - low).square()
    assert float(-10 * error.log10()) >= 50


def make(bits: int, x: Tensor, kind: str) -> Quantizer:
    if kind == "uniform":
        return Uniform(bits, x.min(), x.max())
    if kind == "shifted":
        centres = x.mean((0, 2, 3))[:, None, None]
        return ShiftedUniform(bits, (x - centres).min(), (x - centres).max(), centres)
    return PiecewiseLinear(bits, x.min(), x.max(), x.abs().quantile(0.9))


@pytest.mark.parametrize("kind", ["uniform", "piecewise", "shifted"])
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(6, 4, 3, padding=1),
        nn.Conv2d(6, 4, 3, padding=2, dilation=2, stride=2),
        nn.Conv2d(6, 4, (3, 5), padding="same", bias=False),
        nn.Conv2d(6, 4, 3, padding=1, groups=2),
        nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(6, 4, 1),
        nn.Linear(7, 5),
    ],
    ids=str,
)
def test_all_that_a_convolution_can_be(module: nn.Conv2d | nn.Linear, kind: str) -> None:
    x = torch.randn(2, 6, 9, 7) * 3 + torch.arange(6.0)[:, None, None]
    rows = module.weight.detach().flatten(1)
    for weights in (
        Symmetric(4, rows.abs().amax(1)),
        Symmetric(8, rows.abs().max()),
        Uniform(3, rows.amin(1), rows.amax(1)),
    ):
        layer = QuantLayer(
            product_of(module), make(4, x, kind), CodedWeight.of(module.weight, weights), module.bias
        ).requires_grad_(False)
        expected, found = layer(x), IntegerLayer(layer)(x)
        assert float((found - expected).abs().max()) <= 1e-5 * float(expected.max() - expected.min())


@pytest.mark.parametrize("shape", [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 2, 9, 6), (2, 2, 6, 8))])
def test_products_of_two_activations(shape: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = torch.randn(shape[0]).softmax(-1), torch.randn(shape[1])
    layer = QuantLayer(matrix_product, make(8, a, "uniform"), make(4, b, "piecewise"), None).requires_grad_(False)
    expected, found = layer(a, b), IntegerLayer(layer)(a, b)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_integer_products_are_those_of_exact_arithmetic() -> None:
    """Against float64, which is exact up to 2^53, where float32 no longer is."""
    left, right = torch.randint(0, 256, (1, 300, 6, 6)), torch.randint(-127, 128, (4, 300, 3, 3))
    convolution = product_of(nn.Conv2d(300, 4, 3, padding=1))
    assert 1 << 24 < largest_sum(left, right, weighted=True) < 1 << 31
    found = integer_product(convolution, left, right, weighted=True)
    assert found.dtype == torch.int32
    assert torch.equal(found.double(), F.conv2d(left.double(), right.double(), padding=1))
    wide = integer_product(linear, left.flatten(1) << 8, right.flatten()[None, :10800] << 8, weighted=True)
    assert wide.dtype == torch.int64
    assert torch.equal(wide.double(), (left.flatten(1).double() @ right.flatten()[:10800, None].double()) * 2**16)


@pytest.mark.parametrize("weighted", [True, False])
def test_no_sum_is_larger_than_the_bound(weighted: bool) -> None:
    left, right = torch.full((3, 5, 7), -9), torch.randint(-100, 1, (6, 7) if weighted else (3, 7, 6))
    right[..., 2] = -100
    sums = linear(left, right, None) if weighted else left @ right
    assert int(sums.abs().max()) == largest_sum(left, right, weighted=weighted)


def test_a_float_network_is_refused(edsr: Model) -> None:
    with pytest.raises(ArgumentError, match=r"edsr.pth is a float network; only quantized models"):
        integer_model(edsr)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_real_network(shared: Path, bits: int) -> None:
    torch.set_num_threads(1)
    patches = Calibration.from_photographs(shared / "data/natural", 4, count=4, size=48)
    weights = WeightSettings(granularity="per_channel")
    model = PLQ(bits=bits, weights=weights).quantize(load(shared / "models/edsr_b16_x4.safetensors"), patches)
    images = patches.batch([0])[..., :24, :24]
    simulated, integers = to_8_bits(model(images)), to_8_bits(integer_model(model)(images))
    assert psnr(simulated, integers) >= (50 if bits == 8 else 40)
