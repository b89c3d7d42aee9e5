"""Bits that follow the image: who looks at it, who hears of it, and what nobody else notices."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import small_networks
from torch import Tensor, nn

import srquant
from srquant.images.evaluation import enlarge
from srquant.images.tiling import Tiling
from srquant.model import Model, load
from srquant.model.adapting import feature_bits, image_factor
from srquant.model.layer import CodedWeight, QuantLayer, finished
from srquant.model.multiplications import KINDS
from srquant.model.record import Record
from srquant.model.swapping import copy_network, quant_layers, swap
from srquant.quantizers import AdaptiveUniform, ImageFactor, Symmetric, Uniform, mean_slope
from srquant.support.errors import ArgumentError, ModelFileError, NetworkError

ADAPTIVE = ("body.0.body.0", "body.0.body.2", "body.1.body.0")
LOWER, UPPER = 8.0, 60.0


def adaptive(layer: float | None = None) -> Model:
    """EDSR ×4 with three layers whose bits follow the image, one of 3 bits that do not, and one of 8."""
    network = small_networks()["edsr"]
    images = ImageFactor(torch.tensor(LOWER), torch.tensor(UPPER), network.value_range)
    layers: dict[str, QuantLayer] = {}
    for name in (*ADAPTIVE, "body.1.body.2", "head.0"):
        module = network.get_submodule(name)
        low, high = torch.tensor(-100.0), torch.tensor(120.0)
        left: Uniform = Uniform({"head.0": 8}.get(name, 3), low, high)
        if name in ADAPTIVE:
            left = AdaptiveUniform(4, low, high, images, None if layer is None else torch.tensor(layer))
        weight = module.weight.detach()
        right = CodedWeight.of(weight, Symmetric(4, weight.abs().max()))
        layers[name] = QuantLayer(KINDS["conv"].product_of(module), left, right, module.bias)
    record = Record("by hand", {}, "nothing", "edsr.pth", 1.0, 1.0)
    return Model(swap(network, layers), "edsr.pth", record)


def pictures() -> Tensor:
    """Of little detail, of some, of much: ``3 3 20 24``."""
    ramp = torch.linspace(0, 1, 24).expand(3, 20, 24)
    noise = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(1))
    return torch.stack((ramp * 0.1, ramp * 0.8 + 0.08 * noise, noise))


def seen_bits(model: Model, images: Tensor) -> dict[str, list[int]]:
    """How many values each image's input of each layer takes, in bits."""
    found: dict[str, list[int]] = {}

    def look(name: str):
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            found[name] = [int(np.ceil(np.log2(len(image.unique())))) for image in output]

        return hook

    handles = [layer.left.register_forward_hook(look(name)) for name, layer in quant_layers(model.network).items()]
    model(images)
    for handle in handles:
        handle.remove()
    return found


# What an image gets ---------------------------------------------------------------------------------------------------


def slope_slowly(image: Tensor) -> float:
    """Pixel by pixel: Sobel's two filters over 8, borders repeated, on luma."""
    gray = (image[0] * 0.299 + image[1] * 0.587 + image[2] * 0.114).double().numpy()
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    padded = np.pad(gray, 1, mode="edge")
    total = 0.0
    for y in range(gray.shape[0]):
        for x in range(gray.shape[1]):
            around = padded[y : y + 3, x : x + 3]
            total += abs((around * kernel).sum()) + abs((around * kernel.T).sum())
    return 1000 * total / (2 * gray.size)


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (2, 5)])
def test_the_slope_is_sobels(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size)
    assert mean_slope(images).tolist() == pytest.approx([slope_slowly(image) for image in images], rel=1e-5, abs=1e-4)
    assert float(mean_slope(torch.full((1, 3, 8, 8), 0.7))) == pytest.approx(0, abs=1e-4)


def test_factors_are_of_images_in_the_networks_range() -> None:
    images = pictures()
    assert mean_slope(images)[0] < LOWER < mean_slope(images)[1] < UPPER < mean_slope(images)[2]
    for value_range in (1.0, 255.0):
        looking = ImageFactor(torch.tensor(LOWER), torch.tensor(UPPER), value_range)
        assert looking(images * value_range).tolist() == [-1, 0, 1]


def test_the_gradient_of_a_threshold_is_that_of_tanh() -> None:
    looking = ImageFactor(torch.tensor(LOWER), torch.tensor(UPPER)).double()
    images, weights = pictures().double(), torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    (looking(images) * weights).sum().backward()

    def soft(lower: float, upper: float) -> float:
        return float((torch.tanh((mean_slope(images) - (upper + lower) / 2) * 2 / (upper - lower)) * weights).sum())

    for name, found in (
        ("lower", (soft(LOWER + 1e-4, UPPER) - soft(LOWER - 1e-4, UPPER)) / 2e-4),
        ("upper", (soft(LOWER, UPPER + 1e-4) - soft(LOWER, UPPER - 1e-4)) / 2e-4),
    ):
        gradient = looking.get_parameter(name).grad
        assert gradient is not None
        assert float(gradient) == pytest.approx(found, rel=1e-4), name


def test_the_gradient_of_bits_is_that_of_the_number_of_intervals() -> None:
    """With rounding straight through: between two codes x̂ is linear in 1/n, n = 2^b − 1."""
    low, high = torch.tensor(-1.0, dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64)
    quantizer = AdaptiveUniform(4, low, high, ImageFactor(low, high), torch.tensor(0.2, dtype=torch.float64)).double()
    x, weights = torch.randn(2, 300, dtype=torch.float64), torch.randn(2, 300, dtype=torch.float64)
    (quantizer(x) * weights).sum().backward()
    position = (x.clamp(low, high) - low) / (high - low)

    def value(b: float, rounding: Tensor) -> float:
        n = 2**b - 1
        return float((((position * n + rounding) / n * (high - low) + low) * weights).sum())

    rounding = (position * 15).round() - position * 15  # a constant, to a straight-through rounding
    of_bits = (value(4 + 1e-5, rounding) - value(4 - 1e-5, rounding)) / 2e-5
    assert quantizer.layer.grad is not None
    assert float(quantizer.layer.grad) == pytest.approx(of_bits * (1 - np.tanh(0.2) ** 2), rel=1e-5)


@pytest.mark.parametrize(("layer", "own"), [(-3.0, 3), (-0.51, 3), (-0.4, 4), (0.5, 4), (0.51, 5), (9.0, 5)])
def test_a_finished_layer_has_its_factor_in_its_bits(layer: float, own: int) -> None:
    learned = adaptive(layer)
    for layer_ in quant_layers(learned.network).values():
        if layer_.left.follows_image:
            assert finished(layer_).left.bits == own
            assert [name for name, _ in finished(layer_).left.named_parameters()] == ["lower", "upper"]
    ends = {name: finished(layer_) for name, layer_ in quant_layers(learned.network).items()}
    settled = Model(swap(small_networks()["edsr"], ends), "x", learned.record)
    assert torch.equal(settled(pictures()), learned(pictures()))
    expected = [(3 * (own + factor) + 3) / 4 for factor in (-1, 0, 1)]
    for model in (learned, settled):
        assert model.feature_bits(pictures()).tolist() == pytest.approx(expected)


def test_bits_stay_within_two_and_eight() -> None:
    low, high = torch.tensor(-1.0), torch.tensor(1.0)
    for bits, expected in ((2, [2, 2, 3]), (8, [7, 8, 8]), (5, [4, 5, 6])):
        quantizer = AdaptiveUniform(bits, low, high, ImageFactor(low, high))
        assert quantizer.bits_of(torch.tensor([-1.0, 0.0, 1.0])).tolist() == expected


# The pass -------------------------------------------------------------------------------------------------------------


def test_each_image_of_a_batch_gets_its_own_bits() -> None:
    model, images = adaptive(), pictures()
    assert all(bits <= own for bits, own in zip(seen_bits(model, images)[ADAPTIVE[0]], (3, 4, 5), strict=True))
    together = model(images)
    for number in range(3):
        torch.testing.assert_close(model(images[number : number + 1])[0], together[number], rtol=0, atol=1e-2)
    few, many = (seen_bits(model, images[k : k + 1])[ADAPTIVE[0]][0] for k in (0, 2))
    assert few <= 3 < many


def test_outside_a_pass_there_is_no_image() -> None:
    model = adaptive()
    looking = image_factor(model.network)
    assert looking is not None
    model(pictures())
    assert looking.factors is None
    with pytest.raises(RuntimeError):
        model.network(torch.rand(1, 7, 20, 20))
    with pytest.raises(RuntimeError):
        model.network.get_submodule("body.0.body.0")(torch.rand(1, 3, 4, 4))
    assert looking.factors is None, "a pass that fails ends too"


def test_threads_have_images_of_their_own() -> None:
    model, images = adaptive(), pictures()
    expected = [model(image[None]) for image in images]
    inside, done = threading.Barrier(3), {}

    def run(number: int) -> None:
        own = copy_of_hook(inside)
        handle = model.network.get_submodule("body.0").register_forward_hook(own)
        done[number] = model(images[number][None])
        handle.remove()

    def copy_of_hook(barrier: threading.Barrier):
        thread = threading.get_ident()

        def wait(*_: object) -> None:
            if threading.get_ident() == thread:
                barrier.wait(30)

        return wait

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(done[number], expected[number]) for number in range(3))


def test_copies_have_a_look_of_their_own() -> None:
    model, images = adaptive(), pictures()
    expected = model(images)
    for copied in (copy_network(model.network), copy.deepcopy(model.network), model.to("cpu").network):
        looking = image_factor(copied)
        assert looking is not None
        assert looking is not image_factor(model.network)
        assert all(layer.left.images is looking for layer in quant_layers(copied).values() if layer.left.follows_image)
        assert torch.equal(Model(copied, "x", model.record)(images), expected)
        with torch.no_grad():
            looking.upper.fill_(1e6)
        assert feature_bits(copied, images) is not None
        assert float(feature_bits(copied, images)[2]) < float(model.feature_bits(images)[2])
    assert torch.equal(model(images), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    network = copy_network(adaptive().network).to(dtype)
    layers = quant_layers(network)
    output = layers[ADAPTIVE[0]].left(torch.randn(2, 8, 5, 5, dtype=dtype) * 50)
    assert output.dtype == dtype
    assert bool(image_factor(network)(pictures().to(dtype) * 255).isfinite().all())


def test_rows_that_are_no_images_are_refused() -> None:
    class Halves(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat(self.inner(torch.cat(x.chunk(2, 3))).chunk(2), 3)

    network = adaptive().network
    network.set_submodule("body.0", Halves(network.get_submodule("body.0")))
    with pytest.raises(NetworkError, match="given 6 rows for 3 images"):
        Model(network, "x")(pictures())


# Files, reports, scores -----------------------------------------------------------------------------------------------


def test_saved_and_reopened_it_gives_the_same_bits(tmp_path: Path) -> None:
    model, images = adaptive(), pictures()
    path = model.save(tmp_path / "m.safetensors")
    again = load(path)
    assert torch.equal(again(images), model(images))
    assert torch.equal(again.feature_bits(images), model.feature_bits(images))
    assert again.save(tmp_path / "n.safetensors").read_bytes() == path.read_bytes()
    sizes, plain = again.sizes(), Model(small_networks()["edsr"], "x").sizes()
    assert sizes.parameters == plain.parameters


def test_a_file_without_what_looks_at_images_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = copy_network(adaptive().network)
    record = adaptive().record
    assert record is not None
    monkeypatch.setattr("srquant.model.storage.image_factor", lambda _: None)
    monkeypatch.setattr("srquant.model.storage._require_readable", lambda *_: None)
    path = Model(network, "x", record).save(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match="nothing looks at images"):
        load(path)


def test_feature_bits_leave_out_layers_of_eight_bits() -> None:
    model, images = adaptive(), pictures()
    assert model.bits_follow_image
    assert model.feature_bits(images).tolist() == pytest.approx([(3 * b + 3) / 4 for b in (3, 4, 5)])
    plain = Model(small_networks()["edsr"], "x")
    assert not plain.bits_follow_image
    assert plain.feature_bits(images) is None


def test_an_export_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(ArgumentError, match=r"follow the image, .* quantize again with grid=int8, by a method"):
        srquant.export(adaptive(), tmp_path / "m.onnx")


def test_scores_come_with_the_bits_of_what_the_model_was_given(tmp_path: Path, run) -> None:
    """The whole image, or each tile of one: a tile is an image to the network, as in AdaBM's patch-wise scores."""
    model, images = adaptive(), pictures()
    sides = torch.cat((images[0], images[2]), 2)  # flat on the left, busy on the right
    pixels = (sides.permute(1, 2, 0) * 255).round().byte().numpy()
    (tmp_path / "set/HR").mkdir(parents=True)
    (tmp_path / "set/LR/X4").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "set/LR/X4/ax4.png")
    Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(tmp_path / "set/HR/a.png")
    (whole,) = srquant.evaluate(model, tmp_path / "set")
    (patches,) = srquant.evaluate(model, tmp_path / "set", tile=24, overlap=0)
    low = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    assert whole.image_bits == pytest.approx(model.feature_bits(low).tolist())
    each = [float(model.feature_bits(part)) for part in low.split(24, 3)]
    assert each == pytest.approx([3, 4.5])
    assert patches.fab == pytest.approx(sum(each) / 2)
    assert whole.to_json()["images"]["a.png"]["bits"] == whole.to_json()["fab"] == whole.fab
    assert f"FAB {whole.fab:.2f}" in repr(whole)
    cut = enlarge(model, pixels, 4, Tiling(24, 0))
    for number, part in enumerate(np.split(pixels, 2, 1)):
        assert np.array_equal(np.split(cut, 2, 1)[number], enlarge(model, part, 4))
    (plain,) = srquant.evaluate(Model(small_networks()["edsr"], "x"), tmp_path / "set")
    assert plain.fab is None
    assert "fab" not in plain.to_json()
    path = model.save(tmp_path / "m.safetensors")
    code, text, _ = run("evaluate", path, tmp_path / "set")
    assert (code, text.split("\n")[0].split()[-1]) == (0, "FAB")
    code, text, _ = run("inspect", path)
    assert code == 0
    assert "4/4±1" in text
    assert "mean slope below 8.0" in text
