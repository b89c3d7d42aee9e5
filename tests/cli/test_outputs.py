"""No command writes over what it reads, whatever link leads there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from tests.conftest import small_networks, write_png
from tests.images.test_pairs import make_pair

from srquant import configure, load
from srquant.cli.main import app
from srquant.images import Calibration

CALIBRATION = ("--calibration", "low", "--patches", 2, "--patch-size", 16)
DATA = ("--data", "Set/x4")


@dataclass(frozen=True)
class Case:
    """A command without its output: its words, the output's ending, and other files that it writes beside."""

    words: tuple[object, ...]
    ending: str
    beside: tuple[str, ...] = ()
    option: str = "-o"
    reads: tuple[str, ...] = field(default=("edsr.pth",))
    """Input files; pictures of input folders are found by themselves."""


CASES = {
    "quantize": Case(("edsr.pth", *CALIBRATION, "--method", "plq"), ".safetensors", (".safetensors.state",)),
    "evaluate": Case(("edsr.pth", "Set/x4"), ".json", option="--json"),
    "upscale": Case(("edsr.pth", "p.png"), ".png", reads=("edsr.pth", "p.png")),
    "export": Case(("m.safetensors",), ".onnx", reads=("m.safetensors",)),
    "compare": Case(
        ("edsr.pth", "m.safetensors", "--image", "p.png"), ".html", reads=("edsr.pth", "m.safetensors", "p.png")
    ),
    "report": Case(("runs", "--network", "edsr.pth", *DATA), ".html"),
    "train": Case(("EDSR", "--data", "low"), ".safetensors", (".png", ".json", ".safetensors.state"), reads=()),
    "analyze outliers": Case(("edsr.pth", *DATA), ".png", (".csv",)),
    "analyze distributions": Case(("edsr.pth", *CALIBRATION), ".png", (".csv",)),
    "analyze bounds": Case(
        ("edsr.pth", "m.safetensors", *CALIBRATION), ".png", (".csv",), reads=("edsr.pth", "m.safetensors")
    ),
    "analyze sensitivity": Case(("edsr.pth", *CALIBRATION, *DATA), ".png", (".csv",)),
    "analyze learning": Case(("m.safetensors",), ".png", reads=("m.safetensors",)),
    "analyze compare": Case(
        ("edsr.pth", "m.safetensors", *DATA), ".png", (".csv",), reads=("edsr.pth", "m.safetensors")
    ),
}
READ_NOTHING = {"demo"}
INTO_FOLDERS = {"bench run", "bench large-pictures"}
"""Whose outputs have names that inputs do not have; tested in ``tests/bench``."""


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def test_every_command_that_writes_has_a_case() -> None:
    writing = {
        name
        for name, command in commands(typer.main.get_command(app))
        if any({"--output", "--json"} & set(parameter.opts) for parameter in command.params)
    }
    assert writing == CASES.keys() | READ_NOTHING | INTO_FOLDERS


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    torch.save(small_networks()["edsr"].state_dict(), folder / "edsr.pth")
    for number in range(2):
        write_png(folder / f"low/{number}.png", 24, 28, number)
    write_png(folder / "p.png", 20, 24)
    make_pair(folder / "Set/x4", "1", 4)
    patches = Calibration.from_low_resolution(folder / "low", count=2, size=16)
    method = configure("oaptq", 8, settings=["grid=int8", "finetuning.epochs=1"])
    method.quantize(load(folder / "edsr.pth"), patches).save(folder / "m.safetensors")
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_an_output_is_never_an_input(run, inputs: Path, tmp_path: Path, name: str) -> None:
    """Each input file, and a picture of each input folder, is what the output, or a file beside it, links to."""
    case = CASES[name]
    words = [inputs / str(word) if (inputs / str(word)).exists() else word for word in case.words]
    targets = [inputs / read for read in case.reads]
    targets += [
        next(path for path in sorted(Path(str(word)).rglob("*.png")) if path.parent.name != "LR")
        for word in words
        if Path(str(word)).is_dir()
    ]
    assert targets
    before = contents(inputs)
    for number, target in enumerate(targets):
        for ending in (case.ending, *case.beside):
            out = tmp_path / f"{number}{ending.replace('.', '_')}/out{case.ending}"
            out.parent.mkdir()
            link = out.with_suffix(ending)
            link.symlink_to(target)
            code, _, error = run(*name.split(), *words, case.option, out)
            assert (code, error.count("\n"), error[:20]) == (2, 1, "error: cannot write "), (target.name, ending, error)
            assert contents(inputs) == before
            assert [path.name for path in out.parent.iterdir()] == [link.name]
