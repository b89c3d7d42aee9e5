"""Who a process is among several, and on which device it computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.pretending import pretended_gpu

from srquant.api import pick_device
from srquant.model import Model
from srquant.support.errors import ArgumentError
from srquant.support.processes import Processes, processes

WHOLE = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


def say(monkeypatch: pytest.MonkeyPatch, **variables: str | None) -> None:
    for name in WHOLE:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        if value is not None:
            monkeypatch.setenv(name, value)


def test_alone_where_nothing_is_said(monkeypatch) -> None:
    say(monkeypatch)
    assert Processes.here() == Processes(0, 1, 0)
    assert Processes.here().first
    with processes(torch.device("cpu")) as group:
        assert group == Processes()


def test_what_torchrun_says(monkeypatch) -> None:
    say(monkeypatch, **WHOLE)
    assert Processes.here() == Processes(3, 4, 1)
    assert not Processes.here().first
    say(monkeypatch, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    assert Processes.here() == Processes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"WORLD_SIZE": None, "LOCAL_RANK": None},
            r"has RANK=3, but no WORLD_SIZE and no LOCAL_RANK; start .* unset RANK$",
        ),
        ({"RANK": None}, "has WORLD_SIZE=4, LOCAL_RANK=1, but no RANK"),
        ({"RANK": None, "LOCAL_RANK": None}, "has WORLD_SIZE=4, but no RANK and no LOCAL_RANK"),
        ({"LOCAL_RANK": None}, "but no LOCAL_RANK; start several processes with torchrun, or unset RANK, WORLD_SIZE"),
        ({"MASTER_PORT": None}, "but no MASTER_PORT"),
        ({"MASTER_ADDR": ""}, "but no MASTER_ADDR"),
        ({"RANK": "4"}, "RANK=4, WORLD_SIZE=4, LOCAL_RANK=1; ranks count from 0"),
        ({"RANK": "0"}, "RANK=0, WORLD_SIZE=4, LOCAL_RANK=1; ranks count from 0"),
        ({"RANK": "-1"}, "RANK=-1, .* not all whole numbers"),
        ({"WORLD_SIZE": "four"}, "WORLD_SIZE=four, .* not all whole numbers"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK=, which are not all whole numbers"),
    ],
)
def test_halves_are_refused(changed: dict[str, str | None], message: str, monkeypatch) -> None:
    say(monkeypatch, **WHOLE | changed)
    with pytest.raises(ArgumentError, match=message):
        Processes.here()
    with pytest.raises(ArgumentError, match=message), processes(torch.device("cpu")):
        pass
    with pytest.raises(ArgumentError, match=message):
        pick_device("cpu")


def test_a_command_with_half_an_environment_does_not_end_in_silence(
    edsr: Model, low_images: Path, tmp_path: Path
) -> None:
    """It used to run to the end, and to write and print nothing."""
    network = edsr.save(tmp_path / "edsr.safetensors")
    command = ["quantize", network, "--calibration", low_images, "-o", tmp_path / "o.safetensors"]
    done = subprocess.run(
        [sys.executable, "-m", "srquant.cli", *map(str, command)],
        check=False,
        env=os.environ | {"RANK": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: the environment has RANK=3, but no WORLD_SIZE")
    assert list(tmp_path.iterdir()) == [network]


# Devices --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["meta", "foo", "", "cuda", "cuda:9", "cuda:x", "mps", "xla", "hpu", "privateuseone", "cpu:-1", "vulkan"]
)
def test_devices_that_are_not_there(name: str) -> None:
    if name == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ArgumentError, match=f"device='{name}' is not available here; use auto or cpu"):
        pick_device(name)


def test_the_device_alone(monkeypatch) -> None:
    say(monkeypatch)
    assert pick_device("cpu") == torch.device("cpu")
    with pretended_gpu(2):
        assert pick_device("auto") == torch.device("cuda")
        assert pick_device("cuda:0") == torch.device("cuda:0")


def test_each_process_has_its_own_gpu(monkeypatch) -> None:
    say(monkeypatch, **WHOLE)
    assert pick_device("cpu") == torch.device("cpu")
    with pretended_gpu(2):
        for name in ("auto", "cuda"):
            assert pick_device(name) == torch.device("cuda:1")
            monkeypatch.setenv("LOCAL_RANK", "0")
            assert pick_device(name) == torch.device("cuda:0")
            monkeypatch.setenv("LOCAL_RANK", "1")
        assert pick_device("cpu") == torch.device("cpu")
        with pytest.raises(ArgumentError, match=r"device='cuda:1' is one GPU for 4 processes; use cuda or auto"):
            pick_device("cuda:1")
    with (
        pretended_gpu(1),
        pytest.raises(ArgumentError, match=r"process 1 of this machine has no GPU .* there are 1; st"),
    ):
        pick_device("auto")
