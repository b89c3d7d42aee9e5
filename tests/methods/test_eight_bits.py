"""Eight bits: factors for channels, weights by GPTQ, drawings among the patches, a few layers left float."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import small_networks
from tests.engines.here import skip_if_it_dies
from torch import Tensor, nn

import srquant
from srquant.engines import TARGETS, open_exported
from srquant.images import Calibration
from srquant.images.covering import Covering
from srquant.images.drawings import drawing
from srquant.methods import MinMax, SRQuant
from srquant.methods.base import WeightSettings
from srquant.methods.pipeline import gptq
from srquant.methods.pipeline.plan import make_plan
from srquant.methods.pipeline.samples import Samples
from srquant.methods.pipeline.spare import spare
from srquant.methods.pipeline.start import Start, start_layers
from srquant.model import Model, load
from srquant.model.layer import CodedWeight, QuantLayer
from srquant.model.multiplications import product_of
from srquant.model.swapping import quant_layers, swap
from srquant.quantizers import ScaledUniform, Symmetric, Uniform, times_factor
from srquant.support.errors import NetworkError, NoGainWarning

WEIGHTS = WeightSettings(granularity="per_channel")
START = Start("non_uniform", "free", WEIGHTS, {})


class Uneven(nn.Module):
    """A network whose channels have extents from 1 to 1000, as a concatenation's parts may."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 12, 3, padding=1)
        extents = 10 ** torch.linspace(0, 3, 8)
        with torch.no_grad():
            self.first.weight.mul_(extents[:, None, None, None])
            self.first.bias.mul_(extents)
            self.last.weight.div_(extents[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0) + F.pixel_shuffle(self.last(self.first(x).relu()), 2)


def error(model: Model, quantized: Model) -> float:
    images = torch.rand(2, 3, 24, 24)
    return float((quantized(images) - model(images)).square().mean())


def test_channels_of_different_extents_keep_their_digits(calibration: Calibration) -> None:
    model = Model.wrap(Uneven().eval(), 2)
    ours = SRQuant(bits=8, spare=0).quantize(model, calibration)
    assert error(model, ours) < 0.02 * error(model, MinMax(bits=8, weights=WEIGHTS).quantize(model, calibration))
    left = quant_layers(ours.network)["network.last"].left
    assert isinstance(left, ScaledUniform)
    factor = left.factor.detach()
    assert float(factor.max() / factor.min()) > 50


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(6, 4, 3, padding=1),
        nn.Conv2d(6, 4, 3, padding=1, groups=2, padding_mode="reflect"),
        nn.ConvTranspose2d(6, 4, 2, 2),
        nn.ConvTranspose2d(6, 4, 2, 2, groups=2),
        nn.Linear(6, 4),
    ],
    ids=repr,
)
def test_a_factor_goes_into_the_weights(module: nn.Module) -> None:
    """The folded form, which an engine computes, and the unfolded one are the same product."""
    from srquant.model.multiplications import kind_of

    kind, product = kind_of(module), product_of(module)
    assert kind is not None
    weight, factor = kind.weight_of(module), torch.rand(6) + 0.1
    assert weight is not None
    x = torch.randn(2, 5, 6) if isinstance(module, nn.Linear) else torch.randn(2, 6, 5, 7)
    shape = kind.along_channels(factor)
    low, high = (x / shape).min(), (x / shape).max()
    left = ScaledUniform(8, low, high, shape, "int8")
    rounding = Symmetric(8, times_factor(weight, factor).abs().flatten(1).amax(1), "int8")
    layer = QuantLayer(product, left, CodedWeight.of(times_factor(weight, factor), rounding), None)
    unfolded = product(Uniform(8, low, high, "int8")(x / shape) * shape, kind_weight(layer, product), None)
    torch.testing.assert_close(layer(x), unfolded, atol=1e-5, rtol=1e-5)
    assert layer.weight.shape == module.weight.shape, "as networks see it"
    torch.testing.assert_close(layer.weight, module.weight, atol=0.02, rtol=0.02)
    grid = left.integer_grid()
    assert grid is not None
    assert grid.scale.ndim == 0, "an engine sees one scale for the tensor"


def kind_weight(layer: QuantLayer, product: object) -> Tensor:
    """The layer's weight without factors, output channels first."""
    from srquant.model.multiplications import turned

    return turned(layer.weight, product.inputs_first)  # type: ignore[attr-defined]


def slow_gptq(weight: Tensor, hessian: Tensor, quantizer: Symmetric) -> Tensor:
    """The algorithm box, column by column, with the inverse of the columns that are left computed anew each time."""
    inputs = len(hessian)
    damped = hessian + gptq._DAMPING * hessian.diagonal().mean() * torch.eye(inputs, dtype=hessian.dtype)
    order = damped.diagonal().argsort(descending=True).tolist()
    left, rounded = weight.double().clone(), torch.zeros_like(weight, dtype=torch.float64)
    for place, column in enumerate(order):
        rest = order[place:]
        inverse = torch.linalg.inv(damped[rest][:, rest])
        rounded[:, column] = quantizer(left[:, column : column + 1].float())[:, 0].double()
        moved = (left[:, column] - rounded[:, column]) / inverse[0, 0]
        left[:, rest] -= moved[:, None] * inverse[0]
    return rounded.float()


def test_gptq_is_the_algorithm_box_and_better_than_rounding() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(500, 20) @ torch.randn(20, 20)
    weight = torch.randn(7, 20)
    quantizer = Symmetric(3, weight.abs().amax(1), "int8")
    hessian = (inputs.T @ inputs).double()
    with torch.no_grad():
        found, rounded = gptq._round(weight, hessian[None], quantizer), quantizer(weight)
        torch.testing.assert_close(found, slow_gptq(weight, hessian, quantizer))

    def of_outputs(rounded: Tensor) -> float:
        return float((inputs @ (rounded - weight).T).square().mean())

    assert of_outputs(found) < 0.7 * of_outputs(rounded)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, (3, 1), stride=2, padding="valid"),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, padding_mode="reflect"),
        nn.Linear(4, 6),
    ],
    ids=repr,
)
def test_rows_are_what_weights_are_multiplied_with(module: nn.Module) -> None:
    x = torch.randn(2, 9, 4) if isinstance(module, nn.Linear) else torch.randn(2, 4, 8, 9)
    product = product_of(module)
    rows = gptq._rows(product, x, module.weight.shape)
    assert rows is not None
    groups = len(rows)
    by_group = torch.einsum("gnpi,goi->ngop", rows, module.weight.flatten(1).reshape(groups, -1, rows.shape[-1]))
    expected = product(x, module.weight, None)
    expected = expected.movedim(-1, 1) if isinstance(module, nn.Linear) else expected.flatten(2)
    torch.testing.assert_close(by_group.flatten(1, 2), expected, atol=1e-5, rtol=1e-5)


def test_patches_on_which_the_float_network_breaks_are_passed_over(calibration: Calibration) -> None:
    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)
            self.limit = 0.999

        def forward(self, x: Tensor) -> Tensor:
            y = F.interpolate(x, scale_factor=2.0) + 0 * F.pixel_shuffle(self.conv(x), 2)
            return torch.where((x > self.limit).any(), 1000 * y, y)  # drawings are white, photographs are not

    model = Model.wrap(Exploding().eval(), 2)
    plan = make_plan(model, SRQuant(bits=8))
    layers = start_layers(plan, Samples(plan, Covering(calibration)), START)
    assert layers.keys() == {"network.conv"}
    model.network.network.limit = -1.0
    with pytest.raises(NetworkError, match=r"far outside .* on every calibration patch"):
        Samples(make_plan(model, SRQuant(bits=8)), Covering(calibration))


def test_the_layers_that_cost_most_stay_float(edsr: Model, calibration: Calibration) -> None:
    plan = make_plan(edsr, SRQuant(bits=8))
    patches = Covering(calibration)
    layers = start_layers(plan, Samples(plan, patches), START)
    images = patches.sample(4, 24)
    costs = {each.name: each.multiply_adds / plan.survey.multiply_adds for each in plan.survey.multiplications}
    chosen = spare(plan, layers, images, 0.3)
    assert chosen
    assert sum(costs[name] for name in chosen) <= 0.3
    assert not spare(plan, layers, images, 0.0)

    def distance(without: list[str]) -> float:
        student = swap(plan.network, {name: layer for name, layer in layers.items() if name not in without})
        with torch.no_grad():
            return float((student(255 * images) - plan.network(255 * images)).square().mean((1, 2, 3)).sqrt().mean())

    assert distance(chosen) < 0.97 * distance([])
    record = SRQuant(bits=8, spare=0.3).quantize(edsr, calibration).record
    assert record is not None
    assert {kept.name for kept in record.kept if kept.reason == "costs most"} == set(chosen)
    assert record.coverage == pytest.approx(1 - sum(costs[name] for name in chosen))
    assert "12 drawings, 4 saturated patches" in record.calibration


@pytest.mark.parametrize("engine", TARGETS)
@pytest.mark.parametrize("network", ["edsr", "srresnet", "swinir", "uneven"])
def test_files_compute_the_same(network: str, engine: str, low_images: Path, tmp_path: Path) -> None:
    skip_if_it_dies(engine, network)
    patches = Calibration.from_low_resolution(low_images, count=3, size=24)
    model = Model.wrap(Uneven().eval(), 2) if network == "uneven" else Model(small_networks()[network], network)
    quantized = SRQuant(bits=8).quantize(model, patches)
    tile = (80, 84) if network == "swinir" else None
    srquant.export(quantized, tmp_path / "m.onnx", engine=engine, tile=tile, threads=1)
    images = torch.rand(1, 3, *(tile or (19, 23)))
    expected, found = quantized(images), open_exported(tmp_path / "m.onnx", engine, 1)(images)
    assert float(-10 * ((expected - found).square().mean() / expected.var()).log10()) > 25
    network_again = Uneven().eval() if network == "uneven" else None
    again = load(quantized.save(tmp_path / "m.safetensors"), network=network_again)
    assert torch.equal(again(images), quantized(images))


@pytest.mark.parametrize("name", ["span_ch48_x4", "realesr_animevideov3_x4"])
def test_published_networks_at_eight_bits(name: str, shared: Path, tmp_path: Path) -> None:
    """Networks that lost up to 12 dB: layers with weights fused in the forward pass, activations in place."""
    model = load(shared / f"models/{name}.safetensors")
    patches = Calibration.from_photographs(shared / "data/natural", 4, count=8, size=48)
    quantized = SRQuant(bits=8).quantize(model, patches)
    images = Calibration.from_photographs(shared / "data/natural", 4, count=4, size=48, seed=1).batch(range(4))
    expected = model(images).clamp(0, 1)
    distance = (quantized(images).clamp(0, 1) - expected).square().mean((1, 2, 3))
    assert float(-10 * distance.log10().max()) > 35
    srquant.export(quantized, tmp_path / "m.onnx", engine="onnxruntime", threads=1)
    found = open_exported(tmp_path / "m.onnx", "onnxruntime", 1)(images[:1])
    assert float(-10 * (found - quantized(images[:1])).square().mean().log10()) > 40


def test_the_same_seed_gives_the_same_bytes(edsr: Model, calibration: Calibration, tmp_path: Path) -> None:
    files = [SRQuant(bits=8).quantize(edsr, calibration).save(tmp_path / f"{name}.safetensors") for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_learning_at_eight_bits_is_for_who_asks(edsr: Model, calibration: Calibration) -> None:
    assert not SRQuant(bits=8).quantize(edsr, calibration).record.curve
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoGainWarning)
        learned = srquant.configure("srquant", 8, finetuning={"epochs": 2}).quantize(edsr, calibration)
    assert len(learned.record.curve) == 2


def test_it_is_what_quantizing_means() -> None:
    assert srquant.configure(bits=8) == SRQuant(bits=8)
    assert srquant.configure(bits=4) == srquant.configure() == SRQuant()


def test_drawings_are_of_four_kinds_and_always_the_same() -> None:
    drawings = [drawing(seed, 32) for seed in range(8)]
    assert all(picture.shape == (32, 32, 3) for picture in drawings)
    assert len({picture.tobytes() for picture in drawings}) == 8
    assert all((drawing(seed, 32) == picture).all() for seed, picture in enumerate(drawings))
    assert any(picture.min() == 0 and picture.max() == 255 for picture in drawings)


def test_covering_patches(calibration: Calibration) -> None:
    patches = Covering(calibration, drawings=3, saturated=2)
    assert len(patches) == len(calibration) + 5
    whole = torch.cat(list(patches.batches(4)))
    assert torch.equal(whole[: len(calibration)], calibration.batch(range(len(calibration))))
    assert whole.shape == (len(patches), 3, calibration.size, calibration.size)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    colours = [float((image - image.mean(0)).abs().mean()) for image in whole]
    assert colours[-1] > 1.5 * colours[1]
    assert patches.sample(2, 16).shape == (2 + 5, 3, 16, 16)
