"""A command that was killed and is given again ends with the bytes of one that nobody disturbed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tests.conftest import small_networks, write_png
from tests.images.test_pairs import make_pair
from tests.interruptions.killing import Moment, Run, run

QUANTIZE = ("quantize", "edsr.pth", "--calibration", "low", "--patches", 4, "-o", "OUT/m.safetensors")
BENCH = ("--calibration", "low", "--data", "Set/x4", "--patches", 4, "--threads", 1, "--keep-models", "-o", "OUT")
TRAINING = (
    "network.channels=8",
    "network.blocks=1",
    "training.batch=2",
    "training.patch=12",
    "training.validation=1",
    "training.validation_every=20",
)
SETTINGS = tuple(word for pair in TRAINING for word in ("--set", pair))
TRUTH = ("--set", "training.patch=16", "--set", "training.batch=2", "--set", "training.epochs=3")
QUANTIZE_PAIRS = ("quantize", "edsr.pth", "--data", "large", *TRUTH, "-o", "OUT/m.safetensors")
COMMANDS: dict[str, tuple[object, ...]] = {
    "oaptq": (*QUANTIZE, "--method", "oaptq", "--set", "finetuning.epochs=6"),
    "ptq4sr": (*QUANTIZE, "--method", "ptq4sr", "--set", "finetuning.steps=12"),
    "adabm": (*QUANTIZE, "--method", "adabm", "--set", "finetuning.epochs=6"),
    "srquant": (*QUANTIZE, "--method", "srquant", "--set", "finetuning.steps=15"),
    "2dquant": (*QUANTIZE, "--method", "2dquant", "--set", "finetuning.steps=12"),
    "pams": (*QUANTIZE_PAIRS, "--method", "pams", "--steps", 12),
    "train": ("train", "EDSR", "--data", "photos", "--scale", 2, "--steps", 60, *SETTINGS, "-o", "OUT/n.safetensors"),
    "bench": ("bench", "run", "edsr.pth", *BENCH, "--method", "mse", "--method", "plq"),
    "workers": ("bench", "run", "edsr.pth", *BENCH, "--method", "mse", "--method", "plq", "--workers", 2),
    "upscale": ("upscale", "edsr.pth", "pictures", "-o", "OUT"),
    "upscale_on": ("upscale", "edsr.pth", "pictures", "-o", "OUT", "--skip-existing"),
}
WRITTEN: dict[str, set[str]] = {
    "train": {"n.safetensors", "n.png", "n.json"},
}
MOMENTS = 10
FEW = 2
TIMES = ("process_seconds", "wall_seconds", "scoring_seconds", "latency", "peak_memory", "finished")
"""In records of a bench, what no two runs have in common."""


@dataclass(frozen=True)
class Undisturbed:
    """A run that ended by itself: what it wrote, and how it went."""

    files: dict[str, bytes]
    run: Run

    def moments(self, name: str, count: int) -> list[Moment]:
        """Seeded moments, by turns about renamings and by the clock, spread over the run."""
        draw = random.Random(name)
        places = [(number + draw.random()) / count for number in range(count)]
        return [
            Moment(seconds=0.95 * self.run.seconds * place)
            if number % 2
            else Moment(renaming=1 + int(place * self.run.renamings), after=draw.random() < 0.5)
            for number, place in enumerate(places)
        ]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, calibration images, pictures of several formats, photographs, and a benchmark pair."""
    folder = tmp_path_factory.mktemp("inputs")
    torch.save(small_networks()["edsr"].state_dict(), folder / "edsr.pth")
    for number in range(4):
        write_png(folder / f"low/{number}.png", 24, 28, number)
        write_png(folder / f"photos/{number}.png", 50, 60, number)
        write_png(folder / f"large/{number}.png", 70, 80, number)
    for number, name in enumerate(("a.png", "b.jpg", "c.webp", "sub/d.tif", "sub/e.bmp", "sub/deep/f.png")):
        write_png(folder / "pictures" / name, 20 + number, 24, number)
    deep = np.random.default_rng(0).integers(0, 1 << 16, (20, 24, 3), np.uint16)
    tifffile.imwrite(folder / "pictures/deep.tif", deep, photometric="rgb")
    Image.fromarray(deep[..., 0]).save(folder / "pictures/gray.png")
    make_pair(folder / "Set/x4", "1", 4)
    return folder


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    """By the command's name; filled when a test first asks."""
    return {}


def start(inputs: Path, name: str, out: Path, moment: Moment | None = None) -> Run:
    words = [
        str(word).replace("OUT", str(out))
        if "OUT" in str(word)
        else inputs / word
        if (inputs / str(word)).exists()
        else word
        for word in COMMANDS[name]
    ]
    return run(words, out.with_suffix(".log"), moment)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): content(path) for path in folder.rglob("*") if path.is_file()}


def content(path: Path) -> bytes:
    """Of a file; of a record of a bench, what two runs have in common."""
    if path.parent.name != "records" or path.name.startswith("."):
        return path.read_bytes()
    return json.dumps(
        {name: value for name, value in json.loads(path.read_text()).items() if name not in TIMES}
    ).encode()


def hidden(files: Sequence[str] | dict[str, bytes]) -> list[str]:
    return [name for name in files if Path(name).name.startswith(".")]


def require_whole(found: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    """No file under its own name is a part of one."""
    for name, content in found.items():
        if name in hidden(found):
            continue
        if name.endswith(".state"):
            assert content
        else:
            assert content == wanted[name], f"{name} is not whole"


def check(name: str, count: int, inputs: Path, known: dict[str, Undisturbed], folder: Path) -> None:
    if name not in known:
        out = folder / "undisturbed"
        ended = start(inputs, name, out)
        assert ended.code == 0
        known[name] = Undisturbed(contents(out), ended)
        assert not hidden(known[name].files)
        assert not [file for file in known[name].files if file.endswith(".state")]
        assert known[name].files.keys() >= WRITTEN.get(name, set())
    wanted = known[name]
    killed = 0
    for number, moment in enumerate(wanted.moments(name, count)):
        out = folder / f"{name}{number}"
        died = start(inputs, name, out, moment)
        assert died.code in (-9, 0), moment
        killed += died.code == -9
        left = contents(out)
        assert len(hidden(left)) <= 3, moment
        require_whole(left, wanted.files)
        again = start(inputs, name, out)
        assert again.code == 0, moment
        assert contents(out) == wanted.files, moment
    assert killed >= count / 2, "the moments about renamings at least"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "workers"])
def test_killed_at_a_few_moments(name: str, inputs: Path, undisturbed: dict[str, Undisturbed], tmp_path: Path) -> None:
    check(name, FEW, inputs, undisturbed, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_ten_moments(name: str, inputs: Path, undisturbed: dict[str, Undisturbed], tmp_path: Path) -> None:
    check(name, MOMENTS, inputs, undisturbed, tmp_path)


def test_what_killed_runs_leave_does_not_pile_up(inputs: Path, tmp_path: Path) -> None:
    """Killed again and again at the same command, in the middle of a write, and never ended."""
    for number in range(4):
        died = start(inputs, "oaptq", tmp_path / "out", Moment(renaming=1))
        assert died.code == -9
        assert len(hidden(contents(tmp_path / "out"))) == 1, number
