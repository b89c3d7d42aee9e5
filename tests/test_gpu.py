"""What people do, with a network on a GPU: a pretended one (``tests/pretending.py``), which every machine has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import srquant
from srquant.analysis import bound_percentiles, clip_outliers, distributions, sensitivity
from srquant.images import Calibration, find_pairs
from srquant.learning.photographs import Photographs
from srquant.learning.settings import TrainingConfig
from srquant.learning.trainer import train
from srquant.methods import PLQ, MinMax, all_methods
from srquant.model import Model
from srquant.networks.edsr import EDSR, EDSRConfig
from tests.conftest import write_png
from tests.images.test_pairs import make_pair
from tests.laws.test_methods import configured, data
from tests.pretending import GPUTensor, pretended_gpu

NETWORKS = ("edsr", "swinir")
INTEGERS = MinMax(bits=8, weight_bits=4, grid="int8", edges="none")


@pytest.fixture(autouse=True)
def gpu() -> Iterator[torch.device]:
    with pretended_gpu() as device:
        yield device


@pytest.fixture
def here(networks) -> Model:
    return Model(networks["edsr"], "edsr.pth")


@pytest.fixture
def there(here: Model, gpu: torch.device) -> Model:
    return here.to(gpu)


def all_on_gpu(model: Model) -> bool:
    return all(isinstance(tensor, GPUTensor) for tensor in model.network.state_dict().values())


# The device itself ----------------------------------------------------------------------------------------------------


def test_it_refuses_what_a_gpu_refuses(gpu: torch.device) -> None:
    here, there = torch.rand(3), torch.rand(3, device="cuda")
    assert there.device == (there + 1).device == here.to("cuda").device == gpu
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        there + here
    with pytest.raises(RuntimeError, match="same device"):
        there += here
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())
    assert type(there.cpu()) is torch.Tensor
    assert there.tolist() == there.cpu().tolist()


def test_it_computes_what_the_cpu_computes(gpu: torch.device) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    images = torch.rand(1, 3, 8, 8)
    expected = network(images)
    expected.sum().backward()
    gradient = network[0].weight.grad.clone()
    network.zero_grad()
    network.to(gpu)
    found = network(images.to(gpu))
    found.sum().backward()
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(network[0].weight.grad.cpu(), gradient)


# Models ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_there_and_back(name: str, networks, gpu: torch.device) -> None:
    here = Model(networks[name], name)
    images = torch.rand(2, 3, 20, 24)
    there = here.to(gpu)
    assert all_on_gpu(there)
    assert not any(isinstance(tensor, GPUTensor) for tensor in here.network.state_dict().values())
    assert torch.equal(there(images).cpu(), here(images))
    assert torch.equal(there.to("cpu")(images), here(images))


def test_a_wrapped_module_stays_where_it_is(gpu: torch.device, calibration: Calibration) -> None:
    module = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    images = torch.rand(1, 3, 20, 20)
    expected = module(images)
    model = Model.wrap(module.to(gpu), 2)
    assert model.device == gpu
    torch.testing.assert_close(model(images).cpu(), expected)
    assert all_on_gpu(MinMax(bits=4).quantize(model, calibration))


@pytest.mark.parametrize(
    ("method", "name"),
    [*((method, "edsr") for method in sorted(all_methods())), ("dobi", "swinir"), ("2dquant", "swinir")],
)
def test_every_method(method: str, name: str, networks, gpu: torch.device, low_images: Path) -> None:
    """Finetuning is in bfloat16 there, as on a GPU, so that learned bounds are others; ranges are the same."""
    configuration = configured(method, bits=3, weight_bits=4)
    here = Model(networks[name], name)
    there = here.to(gpu)
    given = data(method, low_images, here.scale, 6)
    found = configuration.quantize(there, given)
    assert all_on_gpu(found)
    assert all_on_gpu(there)
    images = torch.rand(1, 3, 24, 24)
    assert found(images).isfinite().all()
    if not (hasattr(configuration, "finetuning") or hasattr(configuration, "training")):
        assert torch.equal(found(images).cpu(), configuration.quantize(here, given)(images))


def test_saving_and_opening(there: Model, calibration: Calibration, tmp_path: Path) -> None:
    images = torch.rand(1, 3, 24, 24)
    for model in (there, PLQ(bits=3).quantize(there, calibration)):
        opened = srquant.load(model.save(tmp_path / "m.safetensors"))
        assert opened.device.type == "cpu"
        assert torch.equal(opened(images), model(images).cpu())
        assert model.sizes() == opened.sizes()


def test_the_interface(here: Model, there: Model, calibration: Calibration, tmp_path: Path) -> None:
    """Quantize, evaluate and upscale take the GPU if there is one; a model may be there already."""
    make_pair(tmp_path / "Set/x4", "1", 4)
    write_png(tmp_path / "p.png", 40, 50)
    model = srquant.quantize(there, calibration, "minmax")
    assert model.device.type == "cpu"
    (scores,) = srquant.evaluate(model, tmp_path / "Set/x4")
    (other,) = srquant.evaluate(model, tmp_path / "Set/x4", device="cpu", tile=16)
    assert scores.psnr == pytest.approx(other.psnr, abs=0.01)
    for name in ("auto", "cpu"):
        srquant.upscale(model, tmp_path / "p.png", tmp_path / f"{name}.png", tile=16, device=name)
    assert (tmp_path / "auto.png").read_bytes() == (tmp_path / "cpu.png").read_bytes()


# Looking inside, exporting --------------------------------------------------------------------------------------------


def test_analyses(here: Model, there: Model, calibration: Calibration, tmp_path: Path) -> None:
    make_pair(tmp_path / "Set/x4", "1", 4)
    pairs = find_pairs(tmp_path / "Set/x4", 4)[0]
    assert distributions(there, calibration) == distributions(here, calibration)
    quantized = MinMax(bits=3).quantize(here, calibration)
    assert sensitivity(there, quantized.to(there.device), pairs) == sensitivity(here, quantized, pairs)
    low, high = pairs.pairs[0].read()
    for one, other in zip(clip_outliers(there, low, high), clip_outliers(here, low, high), strict=True):
        assert (one.psnr, one.shift) == (other.psnr, other.shift)


def test_bounds_are_compared_wherever_models_are(here: Model, there: Model, calibration: Calibration) -> None:
    """And no model moves for it."""
    quantized = {"here": PLQ(bits=3).quantize(here, calibration), "there": PLQ(bits=3).quantize(there, calibration)}
    for model in (here, there):
        found = bound_percentiles(model, quantized, calibration)
        by_model = {title: [(each.tensor, each.below) for each in found if each.model == title] for title in quantized}
        assert by_model["here"] == by_model["there"]
        assert all_on_gpu(quantized["there"])
        assert not any(isinstance(tensor, GPUTensor) for tensor in quantized["here"].network.state_dict().values())


@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("range_", ["auto", "reduced"])
def test_exporting(storage: str, range_: str, there: Model, calibration: Calibration, tmp_path: Path) -> None:
    model = INTEGERS.quantize(there, calibration)
    for name, device in (("one", "cpu"), ("two", "cuda")):
        srquant.export(model.to(device), tmp_path / f"{name}.onnx", storage=storage, range=range_)  # type: ignore[arg-type]
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


# Learning -------------------------------------------------------------------------------------------------------------


def test_training(tmp_path: Path, gpu: torch.device) -> None:
    for number in range(3):
        write_png(tmp_path / f"{number}.png", 64, 64, number)
    config = TrainingConfig(steps=4, batch=2, patch=16, validation=1, validation_every=2, warmup=1)
    photographs = Photographs.of(tmp_path, 2, config.patch)
    network = EDSR(EDSRConfig(scale=2, channels=8, blocks=1))
    trained = train(network, photographs, config, tmp_path / "s.state", gpu)
    assert [row.step for row in trained.curve]
    assert not isinstance(next(trained.network.cpu().parameters()), GPUTensor)
