"""``--set network.FIELD=value`` in every command that opens a float network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import small_networks, write_png
from tests.images.test_pairs import make_pair

from srquant.model import load
from srquant.networks.samples import EDSR_X4


@pytest.fixture
def network(tmp_path: Path) -> Path:
    torch.save(dict(small_networks()["edsr"].state_dict()), tmp_path / "edsr.pth")
    return tmp_path / "edsr.pth"


@pytest.fixture
def commands(network: Path, low_images: Path, tmp_path: Path) -> dict[str, list[object]]:
    """Every command that opens a float network."""
    make_pair(tmp_path / "Set/x4", "1", 4)
    load(network).save(tmp_path / "o.safetensors")
    calibration = ["--calibration", low_images, "--patches", 2, "--patch-size", 16]
    data = ["--data", tmp_path / "Set/x4"]
    out = ["-o", tmp_path / "out.png"]
    return {
        "quantize": ["quantize", network, *calibration, "--effort", "none", "-o", tmp_path / "m.safetensors"],
        "evaluate": ["evaluate", network, tmp_path / "Set/x4"],
        "upscale": ["upscale", network, low_images / "0.png", *out],
        "inspect": ["inspect", network],
        "outliers": ["analyze", "outliers", network, *data, *out],
        "distributions": ["analyze", "distributions", network, *calibration, *out],
        "bounds": ["analyze", "bounds", network, tmp_path / "o.safetensors", *calibration, *out],
        "compare": ["analyze", "compare", network, *data, *out],
        "sensitivity": ["analyze", "sensitivity", network, *data, *calibration, *out],
        "bench": ["bench", "run", network, *data, *calibration, "-o", tmp_path / "runs", "--method", "minmax"],
    }


COMMANDS = (
    *("quantize", "evaluate", "upscale", "inspect", "outliers", "distributions", "bounds", "sensitivity", "compare"),
    "bench",
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("network.residual_scal=1", "unknown field 'residual_scal'; did you mean 'residual_scale'?"),
        ("network.residual_scale=-1", "residual_scale=-1 is outside"),
        ("network.value_range=0", "value_range=0 is outside (0, 65,535]"),
        ("network.mean", "'mean' is not an assignment"),
    ],
)
def test_every_command_takes_settings_of_the_network(
    command: str, setting: str, message: str, commands: dict[str, list[object]], run
) -> None:
    code, _, error = run(*commands[command], "--set", setting)
    assert (code, error[:7], error.count("\n")) == (2, "error: ", 1), error
    assert message in error


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"quantize", "bench"}))
def test_a_field_of_a_method_is_none_of_the_network(command: str, commands: dict[str, list[object]], run) -> None:
    code, _, error = run(*commands[command], "--set", "share=0.9")
    assert (code, error.count("\n")) == (2, 1), error
    assert "--set share=0.9: this command sets fields of the float network only; write network.FIELD=value" in error


def test_both_in_one_command(commands: dict[str, list[object]], tmp_path: Path, run) -> None:
    settings = ["--set", "network.residual_scale=0.5", "--set", "weights.granularity=per_channel"]
    code, _, error = run(*commands["quantize"], *settings, "--set", "network.mean=0.5,0.25,0", "--value-range", 3)
    assert code == 0, error
    model = load(tmp_path / "m.safetensors")
    config = model.network.config
    assert (config.residual_scale, config.mean, config.value_range) == (0.5, (0.5, 0.25, 0), 3)
    assert model.record is not None
    assert model.record.settings["weights"]["granularity"] == "per_channel"
    code, text, _ = run("inspect", tmp_path / "m.safetensors")
    assert "residual_scale=0.5" in text


def test_a_quantized_model_and_an_exported_file_take_none(
    commands: dict[str, list[object]], low_images: Path, tmp_path: Path, run
) -> None:
    run(*commands["quantize"])
    for option in (["--set", "network.residual_scale=0.1"], ["--value-range", 1]):
        for path in (tmp_path / "m.safetensors", tmp_path / "m.onnx"):
            code, _, error = run("upscale", path, low_images / "0.png", "-o", tmp_path / "o.png", *option)
            assert (code, error.count("\n")) == (2, 1), error
            assert "for float networks" in error


@pytest.mark.filterwarnings("always::srquant.support.errors.UnlikeWarning")
def test_a_network_that_is_misread_is_warned_of_with_the_way_out(tmp_path: Path, run) -> None:
    """Its second convolutions are ten times as large, as if it were trained with a residual scale of 0.1."""
    state = {key: 10 * value if ".body.2." in key else value for key, value in load_file(EDSR_X4).items()}
    save_file(state, tmp_path / "n.safetensors")
    write_png(tmp_path / "p.png", 20, 24)
    words = ["upscale", tmp_path / "n.safetensors", tmp_path / "p.png", "-o", tmp_path / "o.png"]
    code, _, error = run(*words)
    assert code == 0
    assert error.count("warning: the network's output does not look like its input") == 1
    assert "residual_scale=1.0" in error
    assert "--set network.FIELD=VALUE" in error
    code, _, error = run(*words, "--set", "network.residual_scale=0.1")
    assert (code, error) == (0, "")
    right = (tmp_path / "o.png").read_bytes()
    run("upscale", EDSR_X4, tmp_path / "p.png", "-o", tmp_path / "o.png")
    assert (tmp_path / "o.png").read_bytes() == right


@pytest.mark.filterwarnings("always::srquant.support.errors.WeightsWarning")
def test_what_was_taken_of_a_file_is_told(tmp_path: Path, run) -> None:
    state = dict(small_networks()["edsr"].state_dict())
    torch.save({"params": state, "params_ema": {key: 2 * value for key, value in state.items()}}, tmp_path / "n.pth")
    code, _, error = run("inspect", tmp_path / "n.pth")
    assert (code, error) == (
        0,
        f"warning: took the averaged weights params_ema of {tmp_path / 'n.pth'}, and left the weights params\n",
    )
