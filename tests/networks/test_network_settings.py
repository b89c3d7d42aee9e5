"""What weights do not tell is said by who knows it, when a network is opened, and kept from there on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import small_networks
from tests.images.test_pairs import make_pair
from torch import Tensor

from srquant import Calibration, Model, configure, evaluate, export, load, quantize, upscale
from srquant.model.observing import warn_if_unlike
from srquant.networks.base import SRNetwork
from srquant.networks.edsr import DIV2K_MEAN, EDSR, EDSRConfig
from srquant.networks.opening import save_network
from srquant.networks.samples import EDSR_X4
from srquant.networks.swinir import SwinIR, SwinIRConfig
from srquant.support.errors import ArgumentError, ExportError, NetworkError, UnknownNameError, UnlikeWarning


def published(network: SRNetwork) -> dict[str, Tensor]:
    state = network.to_published(dict(network.state_dict()))
    return {key: value for key, value in state.items() if key != "mean"}


def store(network: SRNetwork, path: Path) -> Path:
    torch.save(published(network), path)
    return path


CONFIGS = {
    "residual_scale=0.1": EDSRConfig(scale=2, channels=8, blocks=2, residual_scale=0.1),
    "mean=0,0,0": EDSRConfig(scale=2, channels=8, blocks=2, mean=(0.0, 0.0, 0.0)),
    "mean=0.5, 0.25, 0.125": EDSRConfig(scale=2, channels=8, blocks=2, mean=(0.5, 0.25, 0.125)),
    "value_range=1": EDSRConfig(scale=2, channels=8, blocks=2, value_range=1.0),
    "value_range=2.5": EDSRConfig(scale=2, channels=8, blocks=2, value_range=2.5),
}


def of(config: EDSRConfig) -> EDSR:
    torch.manual_seed(0)
    return EDSR(config).eval()


@pytest.mark.parametrize("setting", CONFIGS)
def test_a_setting_makes_the_network_that_was_trained(setting: str, tmp_path: Path) -> None:
    network = of(CONFIGS[setting])
    path = store(network, tmp_path / "n.pth")
    images = torch.rand(1, 3, 9, 11)
    expected = network(images * network.value_range) / network.value_range
    assert not torch.allclose(load(path)(images), expected, atol=1e-4)
    opened = load(path, settings=[setting])
    assert opened.network.config == network.config
    torch.testing.assert_close(opened(images), expected)


@pytest.mark.parametrize("setting", CONFIGS)
def test_a_setting_counts_for_a_file_that_tells_otherwise(setting: str, tmp_path: Path) -> None:
    """The header of a file, and the mean among published weights."""
    plain, wanted = of(EDSRConfig(scale=2, channels=8, blocks=2)), of(CONFIGS[setting])
    save_network(tmp_path / "n.safetensors", plain, {})
    torch.save(dict(plain.state_dict()), tmp_path / "n.pth")
    images = torch.rand(1, 3, 9, 11) * wanted.value_range
    for name in ("n.safetensors", "n.pth"):
        opened = load(tmp_path / name, settings=[setting]).network
        assert opened.config == wanted.config
        torch.testing.assert_close(opened(images), wanted(images), rtol=0, atol=1e-6 * 255)


def test_the_mean_of_swinir(tmp_path: Path) -> None:
    config = SwinIRConfig(scale=2, channels=12, depths=(2,), heads=(2,), window=4, mean=(0.0, 0.0, 0.0))
    network = SwinIR(config).eval()
    opened = load(store(network, tmp_path / "n.pth"), settings=["mean=0,0,0"])
    images = torch.rand(1, 3, 8, 8)
    assert opened.network.config == config
    torch.testing.assert_close(opened.network(images), network(images))


def test_the_mean_that_weights_tell_is_kept(tmp_path: Path) -> None:
    network = of(EDSRConfig(scale=2, channels=8, blocks=2, mean=(0.5, 0.25, 0.125)))
    torch.save(dict(network.state_dict()), tmp_path / "n.pth")
    assert load(tmp_path / "n.pth").network.config == network.config
    assert EDSRConfig().mean == DIV2K_MEAN


@pytest.mark.parametrize("name", ["edsr", "swinir", "rdn", "srresnet", "msrresnet"])
def test_the_value_range_is_one_of_the_settings(name: str, tmp_path: Path) -> None:
    path = store(small_networks()[name], tmp_path / "n.pth")
    models = [load(path, value_range=3.0), load(path, settings=["value_range=3"])]
    images = torch.rand(1, 3, 8, 8)
    assert models[0].network.config == models[1].network.config
    assert models[0].network.value_range == 3
    assert torch.equal(models[0](images), models[1](images))
    with pytest.raises(ArgumentError, match=r"^value_range=4 contradicts value_range=3\.0"):
        load(path, value_range=3.0, settings=["value_range=4"])


def test_a_quantized_model_keeps_what_its_network_was_opened_with(tmp_path: Path, calibration: Calibration) -> None:
    path = store(of(CONFIGS["residual_scale=0.1"]), tmp_path / "n.pth")
    settings = ["residual_scale=0.1", "mean=0.5,0.25,0.125"]
    model = quantize(load(path, settings=settings), calibration, configure("minmax", 8))
    again = load(model.save(tmp_path / "m.safetensors"))
    assert (again.network.config.residual_scale, again.network.config.mean) == (0.1, (0.5, 0.25, 0.125))
    images = torch.rand(1, 3, 12, 12)
    assert torch.equal(again(images), model(images))
    with pytest.raises(ArgumentError, match=r"residual_scale=1 is for float networks; .*m\.safetensors is quantized"):
        load(tmp_path / "m.safetensors", settings=["residual_scale=1"])
    with pytest.raises(ArgumentError, match=r"value_range=255.* is for float networks"):
        load(tmp_path / "m.safetensors", value_range=255)


def test_a_float_network_keeps_them_too(tmp_path: Path) -> None:
    network = of(CONFIGS["residual_scale=0.1"])
    opened = load(store(network, tmp_path / "n.pth"), settings=["residual_scale=0.1"])
    assert load(opened.save(tmp_path / "n.safetensors")).network.config == network.config


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("residual_scal=1", UnknownNameError, "unknown field 'residual_scal'; did you mean 'residual_scale'?"),
        ("residual_scale", ArgumentError, "'residual_scale' is not an assignment"),
        ("residual_scale=-1", ArgumentError, "residual_scale=-1 is outside"),
        ("value_range=nan", ArgumentError, "value_range=nan is not a finite number"),
        ("value_range", ArgumentError, "'value_range' is not an assignment"),
        ("mean=0,0", ArgumentError, "mean"),
        ("mean=2,0,0", ArgumentError, r"mean.0=2 is outside \[0, 1\]"),
        ("blocks=3", NetworkError, "look like edsr but do not fit: missing keys: body.2"),
        ("scale=3", NetworkError, "do not fit"),
    ],
)
def test_settings_that_are_none(setting: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    network = of(EDSRConfig(scale=2, channels=8, blocks=2))
    save_network(tmp_path / "n.safetensors", network, {})
    for path in (store(network, tmp_path / "n.pth"), tmp_path / "n.safetensors"):
        with pytest.raises(error, match=message) as caught:
            load(path, settings=[setting])
        assert "\n" not in str(caught.value)


@pytest.fixture
def misread(tmp_path: Path) -> Path:
    """A working network whose second convolutions are ten times as large: it was "trained" with a residual scale of
    0.1, of which its file says nothing.
    """
    state = load_file(EDSR_X4)
    save_file(
        {key: 10 * value if ".body.2." in key else value for key, value in state.items()}, tmp_path / "n.safetensors"
    )
    return tmp_path / "n.safetensors"


@pytest.mark.filterwarnings("always::srquant.support.errors.UnlikeWarning")
def test_a_misread_network_is_warned_of_wherever_it_meets_pictures(
    misread: Path, low_images: Path, tmp_path: Path
) -> None:
    make_pair(tmp_path / "Set/x4", "1", 4)
    patches = Calibration.from_low_resolution(low_images, count=2, size=32)
    model = load(misread)
    message = r"does not look like its input .* residual_scale=1.0, value_range=\S+, mean=.*--set network\.FIELD=VALUE"
    with pytest.warns(UnlikeWarning, match=message):
        evaluate(model, tmp_path / "Set")
    with pytest.warns(UnlikeWarning, match=message):
        upscale(model, low_images / "0.png", tmp_path / "o.png")
    with pytest.warns(UnlikeWarning, match=message):
        upscale(model, low_images, tmp_path / "o")
    with pytest.warns(UnlikeWarning, match=message):
        quantized = quantize(model, patches, configure("minmax", 8, settings=["grid=int8"]))
    pytest.importorskip("onnx")
    with pytest.warns(UnlikeWarning, match=message), suppress(ExportError):  # chaos: no engine agrees with another
        export(quantized, tmp_path / "m.onnx")


@pytest.mark.filterwarnings("error::srquant.support.errors.UnlikeWarning")
def test_a_network_that_is_read_rightly_is_not_warned_of(misread: Path, low_images: Path, tmp_path: Path) -> None:
    upscale(load(misread, settings=["residual_scale=0.1"]), low_images, tmp_path / "o")


def test_only_the_first_output_is_looked_at(misread: Path, low_images: Path, tmp_path: Path) -> None:
    with pytest.warns(UnlikeWarning) as caught:
        upscale(load(misread), low_images, tmp_path / "o", tile=16)
    assert len([warning for warning in caught if warning.category is UnlikeWarning]) == 1


def test_what_a_wrapped_network_does_not_tell() -> None:
    model = Model.wrap(small_networks()["edsr"], 4, 255.0)
    with pytest.warns(UnlikeWarning, match="do not tell value_range=255"):
        warn_if_unlike(model.network, torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 32, 32))
