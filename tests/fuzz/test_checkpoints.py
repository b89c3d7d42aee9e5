"""Broken, odd and hostile files of float weights."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import small_networks
from tests.fuzz.damage import damaged, seeds
from tests.fuzz.lab import Lab, fuzzing
from torch import Tensor

STATES = {name: network.state_dict() for name, network in small_networks().items()}
KINDS = (
    *(torch.complex64, torch.complex128, torch.int8, torch.int32, torch.int64, torch.uint8, torch.bool),
    *(torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
)
ODD_VALUES: tuple[Callable[[Tensor], Any], ...] = (
    lambda value: value[None],
    lambda value: value.reshape(-1),
    lambda value: value[:0],
    lambda value: value[:-1],
    lambda value: value.repeat(2, *[1] * (value.ndim - 1)),
    lambda value: value.transpose(0, -1),
    lambda value: torch.zeros(()),
    lambda value: torch.zeros(1).expand(10**6, 10**6),
    lambda value: torch.zeros(1).expand(10**5, 64, 3, 3),
    lambda value: value.to_sparse(),
    lambda value: value.to("meta"),
    lambda value: value.float() * float("nan"),
    lambda value: torch.full_like(value.float(), float("inf")),
    lambda value: torch.full_like(value.float(), 1e38),
    lambda value: value * 0,
    lambda value: value.tolist(),
    lambda value: None,
    lambda value: "a text",
    lambda value: {"weight": value},
)


def changed(random: Random, state: dict[str, Any]) -> dict[Any, Any]:
    """Weights with one or two things odd about them."""
    state = dict(state)
    for _ in range(random.choice((1, 1, 2))):
        key = random.choice(list(state))
        match random.choice(("kind", "all kinds", "value", "value", "value", "missing", "half", "extra", "rename")):
            case "kind" if isinstance(state[key], Tensor):
                state[key] = state[key].to(random.choice(KINDS))
            case "all kinds" if all(isinstance(value, Tensor) for value in state.values()):
                kind = random.choice(KINDS)
                state = {name: (value.real if value.is_complex() else value).to(kind) for name, value in state.items()}
            case "missing":
                del state[key]
            case "half":
                state = dict(list(state.items())[: len(state) // 2]) or state
            case "extra":
                state[random.choice(("", 0, "extra", "head.0.weight.x", "body.99.body.0.weight"))] = torch.zeros(3)
            case "rename":
                state[f"{key}x"] = state.pop(key)
            case _ if isinstance(state[key], Tensor) and state[key].ndim:
                state[key] = random.choice(ODD_VALUES)(state[key])
            case _:
                state[key] = torch.zeros(0)
    return state


def wrapped(random: Random, state: dict[Any, Any]) -> Any:
    match random.choice(("plain", "plain", "params", "deep", "module", "list", "lone", "beside")):
        case "params":
            return {"params": state, "params_ema": {}}
        case "deep":
            return {"model": {"state_dict": {"net": state}}, "epoch": 3}
        case "module":
            return {f"module.{key}": value for key, value in state.items()}
        case "list":
            return [state]
        case "lone":
            return next(iter(state.values()), None)
        case "beside":
            return {"generator": state, "iteration": torch.tensor(3), "best": float("nan")}
        case _:
            return state


def stored(random: Random, content: Any) -> bytes:
    tensors = isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values())
    small = tensors and all(value.layout == torch.strided and value.numel() < 1 << 20 for value in content.values())
    if small and random.random() < 0.3 and not any(value.is_meta for value in content.values()):
        return safetensors.torch.save({str(key): value.clone().contiguous() for key, value in content.items()})
    buffer = io.BytesIO()
    if random.random() < 0.1:
        return pickle.dumps(content, random.randint(0, 5))
    torch.save(content, buffer, _use_new_zipfile_serialization=random.random() < 0.7)
    return buffer.getvalue()


def use(lab: Lab, random: Random, content: bytes) -> None:
    path = lab.given(random.choice(("n.pth", "n.pth", "n.safetensors", "n.ckpt", "n")), content)
    if random.random() < 0.75:
        lab.law("inspect", path)
        return
    options = ("--calibration", lab.inputs / "low", "--patches", 1, "--patch-size", 16, "--method", "minmax")
    lab.law("quantize", path, *options, "-o", lab.out / "m.safetensors")


@fuzzing(100)
@given(random=seeds(), name=st.sampled_from(sorted(STATES)))
def test_odd_weights(lab: Lab, random: Random, name: str) -> None:
    lab.clear()
    use(lab, random, stored(random, wrapped(random, changed(random, STATES[name]))))


@fuzzing(40)
@given(random=seeds(), name=st.sampled_from(("edsr", "srresnet")))
def test_damaged_bytes(lab: Lab, random: Random, name: str) -> None:
    lab.clear()
    use(lab, random, damaged(random, stored(random, STATES[name])))


class Evil:
    """Makes the marker when its pickle is loaded by a loader that runs what it is told."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def evils(marker: Path) -> list[Evil]:
    return [
        Evil(os.system, f"touch {marker}"),
        Evil(eval, f"open({str(marker)!r}, 'w').close()"),
        Evil(exec, f"open({str(marker)!r}, 'w').close()"),
        Evil(os.mkdir, str(marker)),
        Evil(open, str(marker), "w"),
        Evil(Path.touch, marker),
        Evil(getattr, Evil(__import__, "os"), "sep"),
        Evil(torch.save, {}, str(marker)),
    ]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx", ".png"])
@pytest.mark.parametrize("number", range(8))
def test_hostile_pickles_run_nothing(lab: Lab, number: int, suffix: str) -> None:
    lab.clear()
    marker = lab.work / "marker"
    evil = evils(marker)[number]
    contents: list[bytes] = [pickle.dumps(content, protocol) for content in (evil, {"a": evil}) for protocol in (0, 2)]
    for modern in (True, False):
        for content in ({**STATES["edsr"], "x": evil}, {"params": evil}):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=modern)
            contents.append(buffer.getvalue())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("n/data.pkl", pickle.dumps(evil))
        file.writestr("n/version", "3")
        file.writestr("n/code/__torch__.py", "raise SystemExit(7)")
        file.writestr("n/constants.pkl", pickle.dumps(evil))
    contents.append(archive.getvalue())
    for content in contents:
        path = lab.given(f"n{suffix}", content)
        assert lab.law("upscale", path, lab.inputs / "p.png", "-o", lab.out / "q.png") == 2
        assert not marker.exists()
        assert lab.law("upscale", lab.inputs / "edsr.pth", path, "-o", lab.out / "q.png") == 2
        assert not marker.exists()
    state = lab.given("m.safetensors.state", contents[-2])
    options = ("--calibration", lab.inputs / "low", "--patches", 1, "--patch-size", 16, "--method", "oaptq")
    assert lab.law("quantize", lab.inputs / "edsr.pth", *options, "-o", state.with_suffix("")) == 2
    assert not marker.exists()
