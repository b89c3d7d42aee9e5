"""Every wrapping that checkpoints are found in: the weights are taken, the averaged ones before others."""

from __future__ import annotations

import argparse
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from srquant.networks.checkpoint import read_checkpoint
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.networks.opening import load_network
from srquant.networks.srresnet import SRResNet, SRResNetConfig
from srquant.networks.unwrapping import fold_weight_norms
from srquant.support.errors import NetworkError, WeightsWarning

Content = Callable[[dict[str, Tensor]], Any]


def weights() -> dict[str, Tensor]:
    """A small EDSR in the layout of EDSR-PyTorch, whose keys are of one tree."""
    torch.manual_seed(0)
    state = dict(EDSR(EDSRConfig(scale=2, channels=8, blocks=2)).state_dict())
    mean = state.pop("mean")
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        state |= {f"{name}.weight": torch.eye(3).view(3, 3, 1, 1), f"{name}.bias": sign * mean}
    return state


def behind(prefix: str, state: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict((prefix + key, value) for key, value in state.items())


def other(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the same network that must not be taken."""
    return {key: value + 1 for key, value in state.items()}


def zeros(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in state.items()}


def normalised(state: dict[str, Tensor], length: str, direction: str) -> dict[str, Tensor]:
    """With the convolutions' weights as length and direction, the direction of another length."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".weight") and "mean" not in key:
            name = key.removesuffix("weight")
            found[f"{name}{length}"] = value.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            found[f"{name}{direction}"] = 3 * value
        else:
            found[key] = value
    return found


COUNTERS = {key: torch.zeros(1, dtype=torch.float64) for key in ("total_ops", "head.total_ops", "head.0.total_params")}

STATE = torch.zeros(3, 4)
"""Of a metric."""

PLAIN: dict[str, Content] = {
    "plain": lambda s: s,
    "module": lambda s: behind("module.", s),
    "model": lambda s: behind("model.", s),
    "net": lambda s: behind("net.", s),
    "generator": lambda s: behind("generator.", s),
    "module.model": lambda s: behind("module.model.", s),
    "compiled": lambda s: behind("_orig_mod.", s),
    "module.compiled": lambda s: behind("module._orig_mod.", s),
    "a name of its own": lambda s: behind("upscaler.backbone.", s),
    "lightning": lambda s: {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": behind("model.", s),
        "loops": {},
        "callbacks": {},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 1e-4},
    },
    "swa": lambda s: {"n_averaged": torch.tensor(5), **behind("module.", s)},
    "mmagic": lambda s: {"meta": {}, "state_dict": {"step_counter": torch.tensor(1), **behind("generator.", s)}},
    "thop": lambda s: {**s, **COUNTERS},
    "thop behind module": lambda s: behind("module.", {**s, **COUNTERS}),
    "ema": lambda s: {"ema": s, "step": 5},
    "model_ema": lambda s: {"model_ema": s, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "ema_state_dict": lambda s: {"ema_state_dict": s},
    "params-ema": lambda s: {"params-ema": s},
    "netG": lambda s: {"epoch": 1, "netG": s, "optG": {}},
    "generator and discriminator": lambda s: {
        "generator_state_dict": s,
        "discriminator_state_dict": {"conv.weight": torch.ones(8, 3, 3, 3), "conv.bias": torch.ones(8)},
    },
    "discriminator first": lambda s: {"netD": {"conv.weight": torch.ones(8, 3, 3, 3)}, "netG": s},
    "weights": lambda s: {"weights": s},
    "an unknown key": lambda s: {"best_so_far": s, "psnr": 31.2},
    "deep": lambda s: {"model": {"state_dict": {"net": s}}, "epoch": 3},
    "beside numbers": lambda s: {"generator": s, "iteration": torch.tensor(3), "best": float("nan")},
    "options of a parser": lambda s: {"state_dict": s, "args": argparse.Namespace(scale=2)},
    "weight_norm": lambda s: normalised(s, "weight_g", "weight_v"),
    "parametrized weight_norm": lambda s: {
        "params": behind(
            "module.", normalised(s, "parametrizations.weight.original0", "parametrizations.weight.original1")
        )
    },
}

TOLD: dict[str, tuple[Content, str]] = {
    "params_ema": (lambda s: {"params": other(s), "params_ema": s}, "averaged weights params_ema .*left .* params$"),
    "params-ema": (lambda s: {"params": other(s), "params-ema": s}, "averaged weights params-ema "),
    "zeros": (lambda s: {"params_ema": zeros(s), "params": s}, "took the weights params .*left .* params_ema$"),
    "model and ema": (
        lambda s: {"model": behind("module.", other(s)), "ema": behind("module.", s)},
        "averaged weights ema .*left the weights model$",
    ),
    "ema inside": (
        lambda s: {
            "state_dict": {
                "step_counter": torch.tensor(1),
                **behind("generator.", other(s)),
                **behind("generator_ema.", s),
            }
        },
        r"averaged weights state_dict\.generator_ema .*left the weights state_dict\.generator$",
    ),
    "model_ema beside model": (lambda s: {"model": other(s), "model_ema": s}, "averaged weights model_ema "),
    "ema deeper": (lambda s: {"model": other(s), "extra": {"ema": {"params": s}}}, r"averaged .* extra\.ema\.params "),
    "at the top": (lambda s: {**s, "ema": zeros(s)}, "took the weights at the top of .*left the weights ema$"),
    "metrics": (
        lambda s: {"state_dict": {**behind("net.", s), "loss_fn.weight": torch.ones(1), "psnr.total": torch.zeros(())}},
        r"took the weights state_dict\.net .*left loss_fn\.weight, psnr\.total$",
    ),
    "metrics behind a common prefix": (
        lambda s: {
            "state_dict": behind(
                "module._orig_mod.", {**behind("net.", s), "psnr.sum": torch.zeros(3, 4), "psnr.total": torch.zeros(())}
            )
        },
        r"took the weights state_dict\.module\._orig_mod\.net .*left module\._orig_mod\.psnr\.sum, ",
    ),
    "average of a network with metrics": (
        lambda s: {
            "state_dict": {
                "n_averaged": torch.tensor(2),
                **behind("module.", behind("model.", s) | {"psnr.sum": STATE}),
            },
            "current_model_state": behind("model.", other(s)) | {"psnr.sum": STATE},
        },
        r"took the weights state_dict\.module\.model .*left .* current_model_state\.model and module\.psnr\.sum$",
    ),
    "broken metrics": (
        lambda s: {**behind("net.", s), "best.value": torch.tensor(float("nan"))},
        r"took the weights net .*left best\.value$",
    ),
}


def store(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def require_the_weights(path: Path) -> None:
    network, expected = load_network(path), weights()
    assert isinstance(network, EDSR)
    found = network.state_dict()
    for key in found.keys() - {"mean"}:
        torch.testing.assert_close(found[key], expected[key])
    torch.testing.assert_close(found["mean"], expected["add_mean.bias"])


@contextmanager
def silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("wrapping", PLAIN)
def test_wrapped_weights_are_found(wrapping: str, tmp_path: Path) -> None:
    with silent():
        require_the_weights(store(PLAIN[wrapping](weights()), tmp_path / "n.pth"))


@pytest.mark.parametrize("wrapping", TOLD)
def test_what_was_taken_is_told_where_there_is_more(wrapping: str, tmp_path: Path) -> None:
    content, message = TOLD[wrapping]
    path = store(content(weights()), tmp_path / "n.pth")
    with pytest.warns(WeightsWarning, match=message):
        require_the_weights(path)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_kinds_of_numbers_and_files(legacy: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    state = behind("model.", {key: value.to(dtype) for key, value in weights().items()})
    torch.save(state, tmp_path / "n.pth", _use_new_zipfile_serialization=not legacy)
    save_file(dict(state), tmp_path / "n.safetensors")
    expected = {key: value.to(dtype).float() for key, value in weights().items()}
    for name in ("n.pth", "n.safetensors"):
        found = load_network(tmp_path / name).state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in found.keys() - {"mean"})


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_eight_bit_floats_are_opened(name: str, kind: str, tmp_path: Path) -> None:
    state = {key: value.to(getattr(torch, name)) for key, value in weights().items()}
    path = tmp_path / f"n.{kind}"
    save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    found = load_network(path).state_dict()
    assert all(torch.equal(found[key], state[key].float()) for key in found.keys() - {"mean"})


def test_nothing_but_zeros_is_taken_where_there_is_nothing_else(tmp_path: Path) -> None:
    state = {key: value for key, value in zeros(weights()).items() if "mean" not in key}
    network = load_network(store({"params": state}, tmp_path / "n.pth"))
    assert not any(bool(value.any()) for value in network.parameters())


def test_broken_weights_are_not_taken(tmp_path: Path) -> None:
    broken = weights()
    broken["head.0.weight"] = broken["head.0.weight"] * float("nan")
    with pytest.raises(NetworkError, match=r"NaN or infinite: head\.0\.weight"):
        load_network(store({"ema": broken}, tmp_path / "n.pth"))


def test_a_piece_of_an_unknown_network_is_no_network(tmp_path: Path) -> None:
    state = behind("first_stage.", weights()) | {
        f"second_stage.{i}.weight": torch.ones(3) for i in range(len(weights()))
    }
    with pytest.raises(NetworkError, match="no known network has these weights"):
        load_network(store(state, tmp_path / "n.pth"))


@pytest.mark.parametrize("content", [{"param_groups": [], "state": {}}, {"epoch": 1, "optimizers": [{}], "iter": 2}])
def test_states_of_a_training_are_named(content: object, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"n\.state holds no weights, only the state of a training"):
        load_network(store(content, tmp_path / "n.state"))


@pytest.mark.parametrize("make", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.parametrize("module", [nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(3, 8, 3), nn.Linear(4, 5)])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_weight_norms_are_what_pytorch_computes(make: Callable[..., nn.Module], module: nn.Module) -> None:
    with torch.no_grad():
        made = make(type(module)(*((3, 8, 3) if module.weight.ndim == 4 else (4, 5))))
        for parameter in made.parameters():
            parameter.mul_(torch.rand_like(parameter) + 0.5)
        made(torch.zeros(1, *((3, 8, 8) if module.weight.ndim == 4 else (4,))))  # the old form computes it in a call
        folded = fold_weight_norms(dict(made.state_dict()))
    assert folded is not None
    assert folded.keys() == {"weight", "bias"}
    torch.testing.assert_close(folded["weight"], made.weight.detach())
    assert fold_weight_norms(dict(module.state_dict())) is None


def test_batch_counters_are_no_bookkeeping(tmp_path: Path) -> None:
    network = SRResNet(SRResNetConfig(scale=2, channels=8, blocks=1))
    state = behind("module.", dict(network.state_dict()))
    assert load_network(store(state, tmp_path / "n.pth")).config == network.config


def test_a_file_with_a_header_is_taken_whole(tmp_path: Path) -> None:
    """Whatever its modules are called."""
    state = {"ema.weight": torch.ones(3), "body.weight": torch.ones(4)}
    save_file(state, tmp_path / "n.safetensors")
    assert read_checkpoint(tmp_path / "n.safetensors").keys() == state.keys()
