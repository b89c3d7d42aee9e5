"""Every kind of multiplication: its row in the table, and transposed convolutions all the way through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.engines.exact_integers import IntegerLayer, integer_model
from tests.engines.here import right_range
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from srquant.analysis import bound_percentiles, distributions
from srquant.engines import open_exported
from srquant.engines.onnx import write_onnx
from srquant.engines.operands import ExportSettings
from srquant.images import Calibration
from srquant.learning.settings import LearningSettings
from srquant.methods import PLQ, Method, MinMax, SRQuant
from srquant.methods.base import WeightSettings
from srquant.model import Model, load
from srquant.model.layer import CodedWeight, LearnableWeight, QuantLayer, finished
from srquant.model.multiplications import KINDS, kind_of, product_of, turned
from srquant.model.survey import survey
from srquant.model.swapping import quant_layers
from srquant.networks.modules import MatMul
from srquant.quantizers import Symmetric, Uniform
from srquant.support.errors import ArgumentError

CHANNELS = WeightSettings(granularity="per_channel")
TRANSPOSED = {
    "plain": nn.ConvTranspose2d(6, 4, 3),
    "padded": nn.ConvTranspose2d(6, 4, 9, stride=2, padding=4, output_padding=1),
    "unequal": nn.ConvTranspose2d(6, 4, (3, 5), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), bias=False),
    "dilated": nn.ConvTranspose2d(6, 4, 3, stride=2, padding=2, output_padding=1, dilation=2),
    "grouped": nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1, groups=2),
    "by channel": nn.ConvTranspose2d(6, 6, 4, stride=2, padding=1, groups=6, bias=False),
}
MODULES = {
    "conv": nn.Conv2d(6, 4, 3, stride=2, groups=2),
    **{f"transposed, {name}": module for name, module in TRANSPOSED.items()},
    "linear": nn.Linear(7, 5),
    "matmul": MatMul(),
}


class FSRCNN(nn.Module):
    """Dong et al., ECCV 2016: it enlarges by a transposed convolution at its end."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 12, 5, padding=2), nn.PReLU(12))
        self.body = nn.Sequential(nn.Conv2d(12, 6, 1), nn.PReLU(6), nn.Conv2d(6, 12, 3, padding=1), nn.PReLU(12))
        self.middle = nn.ConvTranspose2d(12, 12, 3, padding=1, groups=groups)
        self.last = nn.ConvTranspose2d(12, 3, 9, stride=2, padding=4, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.body(self.first(x))))


def wrapped(groups: int = 1) -> Model:
    torch.manual_seed(1)
    return Model.wrap(FSRCNN(groups).eval(), 2)


def run(module: nn.Module) -> tuple[tuple[Tensor, ...], Tensor]:
    x = torch.randn(2, 6, 9, 7)
    operands = (x, x.mT) if isinstance(module, MatMul) else (x,)
    with torch.no_grad():
        return operands, module(*operands)


@pytest.mark.parametrize("name", MODULES)
def test_a_row_says_what_a_module_computes(name: str) -> None:
    module = MODULES[name]
    kind = kind_of(module)
    assert kind is not None
    assert kind is KINDS[product_of(module).kind]
    with FlopCounterMode(display=False) as counter:
        operands, expected = run(module)
    assert kind.multiply_adds(module, [x.shape for x in operands], expected.shape) == counter.get_total_flops() / 2
    weight = kind.weight_of(module)
    right = operands[1] if weight is None else weight
    assert (weight is None) != kind.has_weight
    torch.testing.assert_close(kind.product_of(module)(operands[0], right, kind.bias_of(module)), expected)
    if weight is not None:
        outputs = expected.shape[-1] if name == "linear" else expected.shape[1]
        assert len(weight) == outputs, "output channels come first"
        assert torch.equal(turned(weight, product_of(module).inputs_first), module.weight)
        # Each row of the weight belongs to one output channel: without it, that channel alone is zero.
        for channel in range(outputs):
            emptied = weight.clone()
            emptied[channel] = 0
            found = kind.product_of(module)(operands[0], emptied, None).movedim(kind.channel_axis or 0, 0)
            assert [bool((row == 0).all()) for row in found] == [other == channel for other in range(outputs)]


@pytest.mark.parametrize("sizes", [(4, 0), (0, 4)])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_weights_without_elements(sizes: tuple[int, int]) -> None:
    modules = (nn.Conv2d(*sizes, 3), nn.ConvTranspose2d(*sizes, 3), nn.Linear(*sizes))
    for module in modules:
        kind = kind_of(module)
        assert kind is not None
        weight = kind.weight_of(module)
        assert weight is not None
        assert len(weight) == sizes[1]
        assert kind.channels_of(module) == sizes[0]
        shapes = (torch.Size((1, sizes[0], 5, 0)), torch.Size((1, sizes[1], 5, 0)))
        assert kind.multiply_adds(module, shapes[:1], shapes[1]) == 0


def test_subclasses_and_other_modules_are_no_kind() -> None:
    class Own(nn.ConvTranspose2d):
        pass

    assert kind_of(Own(3, 3, 1)) is None
    with pytest.raises(TypeError, match="ReLU is no multiplication"):
        product_of(nn.ReLU())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_a_quantized_transposed_convolution(name: str, per_channel: bool) -> None:
    """Against the float module with rounded operands, to 8 bits, as codes, and in exact integers."""
    module = TRANSPOSED[name]
    weight = KINDS["conv_transpose"].weight_of(module)
    assert weight is not None
    rows = weight.detach().abs().flatten(1)
    for bits in (3, 8):
        quantizer = Symmetric(bits, rows.amax(1) if per_channel else rows.max())
        left = Uniform(8, torch.tensor(-4.0), torch.tensor(4.0))
        layer = QuantLayer(product_of(module), left, LearnableWeight(weight, quantizer), module.bias)
        (x,), expected = run(module)
        with torch.no_grad():
            own = turned(layer.weight, module.groups).flatten(1)
            assert layer.weight.shape == module.weight.shape
            assert max(len(row.unique()) for row in (own if per_channel else own.reshape(1, -1))) <= 2**bits
            rounded = torch.func.functional_call(module, {"weight": layer.weight}, (layer.left(x),))
            torch.testing.assert_close(layer(x), rounded)
            coded = finished(layer)
            torch.testing.assert_close(coded(x), rounded, atol=1e-5, rtol=1e-5)
            exact = IntegerLayer(coded)(x)
            torch.testing.assert_close(exact, rounded, atol=1e-5, rtol=1e-5)
            if bits == 8:
                assert float((layer(x) - expected).square().mean() / expected.var()) < 1e-3


def slowly(x: Tensor, weight: Tensor, module: nn.ConvTranspose2d) -> Tensor:
    """A transposed convolution as a sum over pixels, in the numbers of its operands."""
    (high, wide), (top, left) = module.stride, module.padding
    (down, across), (lower, right) = module.dilation, module.output_padding
    each_in, each_out = module.in_channels // module.groups, weight.shape[1]
    height = (x.shape[2] - 1) * high + down * (weight.shape[2] - 1) + 1
    width = (x.shape[3] - 1) * wide + across * (weight.shape[3] - 1) + 1
    full = x.new_zeros(len(x), module.out_channels, height + lower, width + right)
    for channel in range(module.in_channels):
        group = channel // each_in
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                for out in range(each_out):
                    rows = slice(i * down, i * down + (x.shape[2] - 1) * high + 1, high)
                    columns = slice(j * across, j * across + (x.shape[3] - 1) * wide + 1, wide)
                    full[:, group * each_out + out, rows, columns] += x[:, channel] * weight[channel, out, i, j]
    return full[..., top : height + lower - top, left : width + right - left]


@pytest.mark.parametrize("name", TRANSPOSED)
def test_integers_are_those_of_the_slow_sum(name: str) -> None:
    module = TRANSPOSED[name]
    x, weight = torch.randint(0, 256, (1, 6, 4, 3)), torch.randint(-127, 128, module.weight.shape)
    product = product_of(module)
    assert torch.equal(product(x, turned(weight, product.inputs_first), None), slowly(x, weight, module))


@pytest.mark.parametrize("weights", [WeightSettings(), CHANNELS], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_a_network_with_transposed_convolutions(
    groups: int, weights: WeightSettings, calibration: Calibration, tmp_path: Path
) -> None:
    model = wrapped(groups)
    multiplications = {multiplication.name: multiplication for multiplication in survey(model.network).multiplications}
    assert [multiplication.kind.name for multiplication in multiplications.values()] == ["conv"] * 3 + [
        "conv_transpose"
    ] * 2
    assert multiplications["network.first.0"].role == "first"
    assert multiplications["network.last"].role == "last"
    assert multiplications["network.last"].multiply_adds == 81 * 12 * 3
    assert multiplications["network.middle"].multiply_adds == 9 * 12 * 12 / groups
    assert multiplications["network.middle"].weights == 9 * 12 * 12 // groups
    images = torch.rand(2, 3, 13, 17)
    for method in (MinMax(bits=8, weights=weights), PLQ(bits=3, weights=weights, edges="none")):
        quantized = method.quantize(model, calibration)
        assert quantized.record is not None
        assert not quantized.record.kept, "no multiplication stays float"
        assert quantized.record.coverage == pytest.approx(1)
        path = quantized.save(tmp_path / "m.safetensors")
        again = load(path, network=FSRCNN(groups))
        assert torch.equal(again(images), quantized(images))
        assert again.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
        layer = quant_layers(again.network)["network.middle"]
        assert isinstance(layer.right, CodedWeight)
        assert layer.weight.shape == (12, 12 // groups, 3, 3)
        rows = layer.right().flatten(1) if weights.granularity == "per_channel" else layer.right().reshape(1, -1)
        bits = method.bits
        assert max(len(row.unique()) for row in rows) <= 2**bits
        expected = quantized(images)
        found = integer_model(quantized)(images)
        assert float((found - expected).square().mean() / expected.var()) < (1e-5 if bits == 8 else 1e-2)
        if bits == 8:
            assert float((expected - model(images)).square().mean() / model(images).var()) < 1e-3


@pytest.mark.parametrize("method", [SRQuant(bits=4, finetuning=LearningSettings(epochs=1, batch=2))])
def test_learning_and_analyses_take_them(method: Method, calibration: Calibration, tmp_path: Path) -> None:
    model = wrapped(3)
    quantized = method.quantize(model, calibration)
    images = torch.rand(1, 3, 9, 8)
    assert torch.equal(load(quantized.save(tmp_path / "m.safetensors"), network=FSRCNN(3))(images), quantized(images))
    rows = distributions(model, calibration, layers=("*middle",), weights=True)
    assert {row.layer for row in rows} == {"network.middle", "network.middle.weight"}
    places = bound_percentiles(model, {"ours": quantized}, calibration)
    assert {"network.middle.left", "network.middle.weight"} <= {place.tensor for place in places}


def test_scope_transformer_keeps_them_float(calibration: Calibration) -> None:
    with pytest.raises(ArgumentError, match="no linear maps or attention products"):
        MinMax(scope="transformer").quantize(wrapped(), calibration)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_they_are_exported(engine: str, calibration: Calibration, tmp_path: Path) -> None:
    model = wrapped()
    images = torch.rand(1, 3, 9, 14)
    quantized = MinMax(bits=8, grid="int8", weights=CHANNELS).quantize(model, calibration)
    for form in {"reduced", right_range(engine)}:
        write_onnx(quantized, tmp_path / "m.onnx", ExportSettings(range=form))
        expected, found = quantized(images), open_exported(tmp_path / "m.onnx", engine, 1)(images)
        assert float(-10 * ((found - expected).square().mean() / expected.var()).log10()) > 30, form
    write_onnx(model, tmp_path / "f.onnx", ExportSettings())
    torch.testing.assert_close(
        open_exported(tmp_path / "f.onnx", engine, 1)(images), model(images), atol=1e-4, rtol=1e-3
    )


def test_groups_of_them_are_not_exported(calibration: Calibration, tmp_path: Path) -> None:
    quantized = MinMax(bits=8, grid="int8").quantize(wrapped(3), calibration)
    with pytest.raises(ArgumentError, match=r"network\.middle is a transposed convolution with 3 groups"):
        write_onnx(quantized, tmp_path / "m.onnx", ExportSettings())
    assert not list(tmp_path.iterdir())
