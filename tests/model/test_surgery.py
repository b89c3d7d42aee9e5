from __future__ import annotations

import copy
import warnings

import pytest
import torch
from tests.conftest import small_networks
from torch import nn

from srquant.api import configure
from srquant.images import Calibration
from srquant.model import Model
from srquant.model.layer import CodedWeight, LearnableWeight, QuantLayer, finished
from srquant.model.multiplications import product_of
from srquant.model.observing import observe
from srquant.model.preparing import prepare
from srquant.model.survey import survey
from srquant.model.swapping import quant_layers, swap, without_activation_quantizers
from srquant.networks.modules import MatMul
from srquant.quantizers import ScaledUniform, Symmetric, Uniform, times_factor
from srquant.support.errors import ImageError, NetworkError


def state_bytes(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def test_multiply_adds_by_hand() -> None:
    """EDSR ×4, 8 channels, 2 blocks: a 3×3 convolution from a to b channels costs 9ab per pixel it gives."""
    found = survey(small_networks()["edsr"])
    work = {multiplication.name: multiplication.multiply_adds for multiplication in found.multiplications}
    assert work["head.0"] == 9 * 3 * 8
    assert work["body.0.body.0"] == 9 * 8 * 8
    assert work["tail.0.0"] == 9 * 8 * 32
    assert work["tail.0.2"] == 4 * 9 * 8 * 32
    assert work["tail.1"] == 16 * 9 * 8 * 3
    assert found.multiply_adds == sum(work.values())
    assert [multiplication.name for multiplication in found.multiplications][:3] == [
        "head.0",
        "body.0.body.0",
        "body.0.body.2",
    ]


def test_attention_products_are_points() -> None:
    multiplications = {
        multiplication.name: multiplication for multiplication in survey(small_networks()["swinir"]).multiplications
    }
    products = [multiplication for multiplication in multiplications.values() if multiplication.kind.name == "matmul"]
    assert len(products) == 2 * 4, "two in each of four blocks"
    assert all(multiplication.weights == 0 for multiplication in products)
    linears = [multiplication for multiplication in multiplications.values() if multiplication.kind.name == "linear"]
    assert len(linears) == 4 * 6, "q, k, v, proj, fc1, fc2"
    # Windows of 16 tokens, 12 channels: q·kᵀ and scores·v cost 16·12 per token each.
    assert multiplications["layers.0.residual_group.blocks.0.attn.scores"].multiply_adds == 16 * 12


def test_folding_changes_nothing_but_the_norms() -> None:
    network = small_networks()["srresnet"]
    before = state_bytes(network)
    folded, _, folds, _ = prepare(network)
    assert len(folds) == 2 * 2 + 1
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    images = torch.rand(1, 3, 20, 20)
    torch.testing.assert_close(folded(images), network(images), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_norm_whose_input_is_used_elsewhere_is_left() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
            self.shuffle = nn.PixelShuffle(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.shuffle(self.norm(y) + y)

    module = Forked().eval()
    module.norm.running_mean.normal_()
    network = Model.wrap(module, 2).network
    folded, _, folds, _ = prepare(network)
    assert not folds
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(folded(images), network(images))


def test_observing_shows_every_operand_as_the_network_computes_it() -> None:
    network = small_networks()["swinir"]
    seen: dict[tuple[str, int], list[torch.Tensor]] = {}
    names = [multiplication.name for multiplication in survey(network).multiplications]
    batches = [torch.rand(2, 3, 12, 12), torch.rand(1, 3, 12, 12)]
    observe(network, names, batches, lambda name, operand, x: seen.setdefault((name, operand), []).append(x.clone()))
    assert all(len(values) == 2 for values in seen.values())
    assert sum(1 for _, operand in seen if operand == "right") == 8
    torch.testing.assert_close(seen["conv_first", "left"][0], batches[0] - network.get_buffer("mean").view(3, 1, 1))
    assert not network._forward_hooks
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_observing_refuses_images_that_are_not_finite() -> None:
    network = small_networks()["edsr"]
    with pytest.raises(ImageError, match="NaN or infinite"):
        observe(network, ["head.0"], [torch.full((1, 3, 8, 8), torch.nan)], lambda *_: None)


def layer_of(module: nn.Module, bits: int = 8) -> QuantLayer:
    left = Uniform(bits, torch.tensor(-4.0), torch.tensor(4.0))
    if isinstance(module, MatMul):
        return QuantLayer(product_of(module), left, Uniform(bits, torch.tensor(-4.0), torch.tensor(4.0)), None)
    weights = Symmetric(bits, module.weight.abs().max())
    return QuantLayer(product_of(module), left, LearnableWeight(module.weight, weights), module.bias)


CONVOLUTIONS = {
    "plain": nn.Conv2d(3, 5, 3, padding=1),
    "strided, dilated": nn.Conv2d(3, 5, 3, stride=2, padding=2, dilation=2),
    "grouped, no bias": nn.Conv2d(6, 6, 3, padding=1, groups=3, bias=False),
    "same": nn.Conv2d(3, 5, 5, padding="same"),
    "reflect": nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"),
    "replicate": nn.Conv2d(3, 5, (1, 5), padding=(0, 2), padding_mode="replicate"),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_quantized_convolution_multiplies_rounded_operands(name: str) -> None:
    module = CONVOLUTIONS[name]
    layer = layer_of(module, 4)
    x = torch.randn(2, module.in_channels, 9, 11)
    with torch.no_grad():
        rounded = copy.deepcopy(module)
        rounded.weight.copy_(layer.weight)
        assert len(layer.weight.unique()) <= 16
        torch.testing.assert_close(layer(x), rounded(layer.left(x)))
        torch.testing.assert_close(finished(layer)(x), layer(x), atol=1e-5, rtol=1e-5)


def test_linears_and_products() -> None:
    linear = nn.Linear(7, 5)
    x = torch.randn(4, 6, 7)
    with torch.no_grad():
        torch.testing.assert_close(layer_of(linear)(x), linear(x), atol=0.1, rtol=0)
        product = layer_of(MatMul())
        torch.testing.assert_close(product(x, x.mT), x @ x.mT, atol=0.3, rtol=0)
    with pytest.raises(AttributeError, match="weight"):
        _ = product.weight


def test_a_finished_layer_has_codes_only() -> None:
    layer = finished(layer_of(nn.Conv2d(3, 5, 3), 3))
    assert isinstance(layer.right, CodedWeight)
    codes = layer.right.get_buffer("codes")
    assert codes.dtype == torch.uint8
    assert int(codes.max()) < 8
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert not any("weight" in name for name, _ in layer.named_parameters())


def test_swapping_leaves_the_original_alone() -> None:
    network = small_networks()["edsr"]
    before = state_bytes(network)
    swapped = swap(network, {"body.0.body.0": layer_of(network.get_submodule("body.0.body.0"))})
    assert list(quant_layers(swapped)) == ["body.0.body.0"]
    assert not quant_layers(network)
    with torch.no_grad():
        for parameter in swapped.parameters():
            parameter.zero_()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_broken_networks_are_named() -> None:
    from srquant.images import Calibration
    from srquant.methods import MinMax

    network = small_networks()["edsr"]
    network.get_submodule("body.0.body.0").weight.data.fill_(3e38)

    class Patches(Calibration):
        def batches(self, size: int):
            yield torch.rand(2, 3, 16, 16)

    patches = Patches((), (), 2, 16, 0, 1, 16)
    with pytest.raises(NetworkError, match=r"input of body\.0\.body\.2 becomes NaN or infinite"):
        MinMax().quantize(Model(network, "x"), patches)


class Narrow(nn.Module):
    """Two linear maps meet in no channel at all, as in attention that is cut too thin."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch, on weights without elements
            self.thin, self.wide = nn.Linear(12, 0), nn.Linear(0, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        y = y + self.wide(self.thin(y.movedim(1, -1))).movedim(-1, 1)
        return nn.functional.pixel_shuffle(y, 2)


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "plq", "dobi", "srquant"])
def test_what_multiplies_nothing_stays_float(method: str, calibration: Calibration) -> None:
    model = Model.wrap(Narrow(), scale=2)
    found = survey(model.network)
    assert [multiplication.name for multiplication in found.multiplications] == ["network.conv"]
    assert {each.name for each in found.left_out} == {"network.thin", "network.wide"}
    settings = ["finetuning.epochs=1"] if method == "srquant" else []
    record = configure(method, settings=[*settings, "edges=none"]).quantize(model, calibration).record
    assert record is not None
    assert {(kept.name, kept.reason) for kept in record.kept} == {
        ("network.thin", "an operand has no elements"),
        ("network.wide", "an operand has no elements"),
    }
    assert record.coverage == 1


class Gain(nn.Module):
    """Enlarges without multiplying a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_a_network_that_multiplies_nothing(calibration: Calibration) -> None:
    with pytest.raises(NetworkError, match="not one multiplication ran on an image of 48x48"):
        configure("minmax").quantize(Model.wrap(Gain(), scale=2), calibration)


class Fading(Narrow):
    """An operand is there on large images only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        tokens = y[..., 24:].flatten(2).mT
        return nn.functional.pixel_shuffle(y + 0 * self.mix(tokens).sum(), 2)

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 12)


def test_an_operand_that_is_empty_on_some_sizes(calibration: Calibration) -> None:
    with pytest.raises(NetworkError, match=r"an operand of network\.mix has no elements .* layers=network\.mix=float"):
        configure("minmax").quantize(Model.wrap(Fading(), scale=2), calibration)
    quantized = configure("minmax", layers=["network.mix=float"]).quantize(Model.wrap(Fading(), scale=2), calibration)
    assert [layer.name for layer in quantized.layers()] == ["network.conv"]


def test_bare_layers_multiply_what_was_not_divided() -> None:
    """Weights that have taken in the factors of channels belong to divided channels, and bare layers divide nothing."""
    torch.manual_seed(0)
    convolution, images = nn.Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 6, 6)
    factor = torch.tensor([1.0, 0.1, 20.0, 0.5])[:, None, None]
    weight = times_factor(convolution.weight.detach(), factor)
    bounds = torch.tensor(-9.0), torch.tensor(9.0)
    coded = CodedWeight.of(weight, Symmetric(8, weight.abs().max()))
    layer = QuantLayer(product_of(convolution), ScaledUniform(8, *bounds, factor), coded, convolution.bias)
    network = nn.Sequential(layer)
    bare = without_activation_quantizers(network)
    expected = nn.functional.conv2d(images, layer.weight, convolution.bias, padding=1)
    torch.testing.assert_close(bare(images), expected)
    torch.testing.assert_close(bare(images), convolution(images), rtol=0, atol=0.5)
