"""Running commands on broken input, in this process, and the law they must keep.

The law: a command ends with exit code 0, or with 2 and one line that says what is wrong; it changes no input, leaves no
temporary file, and whatever it wrote is whole.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Generator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import FrameType

import torch
from hypothesis import HealthCheck, Phase, settings
from tests.conftest import small_networks, write_png
from tests.images.test_pairs import make_pair

import srquant
from srquant.cli import main as cli
from srquant.engines.onnx import write_onnx
from srquant.engines.operands import ExportSettings
from srquant.images.reading import open_picture
from srquant.model import Model
from srquant.support.files import PICTURES

OUTPUTS = ("-o", "--json")
"""Options that name what is written."""
_PATIENCE = 15
"""Seconds after which a case is taken for hanging; the slowest of them takes one."""


def fuzzing(cases: int) -> settings:
    """So many cases, the same ones in every run."""
    return settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),
    )


class HangsError(BaseException):
    """Nothing in the project may catch it."""


@contextmanager
def _within(seconds: int) -> Generator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise HangsError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Lab:
    """A folder of small inputs, kept as they are, and one for what a case makes.

    Args:
        inputs: Networks, models, an exported file, pictures, a benchmark pair.
        work: Emptied before every case; the case's own broken files go into ``work/in``, results into ``work/out``.
    """

    inputs: Path
    work: Path
    _kept: dict[Path, bytes] = field(default_factory=dict[Path, bytes], init=False, repr=False)

    def __post_init__(self) -> None:
        self._kept = _contents(self.inputs)

    def clear(self) -> None:
        """Begin a case."""
        _remove(self.work)
        (self.work / "in").mkdir(parents=True)
        (self.work / "out").mkdir()

    def given(self, name: str, content: bytes) -> Path:
        """Put a file of the case's own into ``work/in``."""
        path = self.work / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    @property
    def out(self) -> Path:
        """Where results of a case go."""
        return self.work / "out"

    def law(self, *words: object) -> int:
        """Run a command, hold it to the law, and give its exit code."""
        own = _contents(self.work / "in")
        code, error = _run(list(map(str, words)), self.out)
        try:
            assert code in (0, 2), f"exit code {code}: {error}"
            if code == 2:
                _require_one_line(error)
            found = _contents(self.work / "in") | _contents(self.inputs)
            read = [Path(str(word)) for option, word in pairwise(("", *words)) if option not in OUTPUTS]
            for path, content in (own | self._kept).items():
                if any(place in (path, *path.parents) for place in read):
                    assert found.get(path) == content, f"{path.name} was read and is changed"
        finally:
            self._restore()
        for path in sorted(_contents(self.work).keys() - own.keys()):
            require_whole(path)
        return code

    def _restore(self) -> None:
        if _contents(self.inputs) != self._kept:
            _remove(self.inputs)
            for path, content in self._kept.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def _run(words: list[str], place: Path) -> tuple[int, str]:
    before, threads = sys.argv, torch.get_num_threads()
    sys.argv = ["srquant", *words]
    output, error = io.StringIO(), io.StringIO()
    try:
        with (
            chdir(place),
            _within(_PATIENCE),
            redirect_stdout(output),
            redirect_stderr(error),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            cli.main()
    except SystemExit as stopped:
        return int(stopped.code or 0), error.getvalue()
    finally:
        sys.argv = before
        torch.set_num_threads(threads)
    return 0, error.getvalue()


def _require_one_line(error: str) -> None:
    """One line, or a usage message of the command-line library; progress and warnings may stand before it."""
    if "Usage: " in error:
        return
    said = error[error.find("error: ") :]
    assert said.startswith("error: "), error
    first, *more = said.removesuffix("\n").split("\n")
    assert all(line.startswith("  ") for line in more), f"more than a line: {said}"
    assert "Traceback" not in said
    assert len(first) > len("error: ") + 10


def require_whole(path: Path) -> None:
    """Open what a command wrote."""
    assert not path.name.startswith(".srquant-"), f"{path.name} was left over"
    if path.suffix == ".safetensors":
        srquant.load(path)
    elif path.suffix.lower() in PICTURES:
        with open_picture(path) as file:
            assert all(picture.pixels.size for picture in file)
    elif path.suffix == ".onnx":
        import onnx

        onnx.checker.check_model(onnx.load(path))
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".state":
        torch.load(io.BytesIO(path.read_bytes().split(b"\n", 1)[1]), weights_only=True)  # after the line of its owner
    else:
        assert path.read_text().endswith("\n")


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _remove(folder: Path) -> None:
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            (Path(parent) / name).unlink()
        for name in folders:
            (Path(parent) / name).rmdir()


def make_inputs(folder: Path) -> None:
    """Small inputs of every kind."""
    networks = small_networks()
    for name in ("edsr", "srresnet", "swinir"):
        torch.save(networks[name].state_dict(), folder / f"{name}.pth")
    for number in range(2):
        write_png(folder / f"low/{number}.png", 16, 20, number)
        write_png(folder / f"photos/{number}.png", 64, 80, number)
    write_png(folder / "p.png", 16, 17)
    make_pair(folder / "Set/x4", "1", 4)
    patches = srquant.Calibration.from_low_resolution(folder / "low", count=2, size=16)
    for name, title, bits, options in (
        ("edsr", "minmax", 4, ()),
        ("srresnet", "plq", 3, ()),
        ("swinir", "mse", 5, ("weights.granularity=per_channel",)),
        ("edsr", "int8", 8, ("grid=int8",)),
    ):
        method = srquant.configure("mse" if title == "int8" else title, bits, settings=options)
        model = srquant.quantize(Model(networks[name], f"{name}.pth"), patches, method)
        model.save(folder / f"{name}_{title}.safetensors")
    # Coarser weights, so that engines on every processor compute what the model computes.
    write_onnx(srquant.load(folder / "edsr_int8.safetensors"), folder / "edsr.onnx", ExportSettings(range="reduced"))
