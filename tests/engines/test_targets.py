"""Engines as rows: what is written down of them holds, and a new one needs a file."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from srquant import api
from srquant.engines import TARGETS, Target, open_exported, saturates, target_named
from srquant.engines.runtimes import onnxruntime
from srquant.images import Calibration
from srquant.methods import MinMax
from srquant.model import Model
from srquant.support.errors import ArgumentError, MissingExtraError, UnknownNameError

ROOT = Path(__file__).parent.parent.parent
NARROW = MinMax(bits=8, weight_bits=4, grid="int8", edges="none")
"""No two products of it leave 16 bits."""


@pytest.fixture
def model(edsr: Model, calibration: Calibration) -> Model:
    return NARROW.quantize(edsr, calibration)


@pytest.mark.parametrize("name", TARGETS)
def test_a_row_is_true(name: str) -> None:
    target = TARGETS[name]
    assert target.name == name
    assert target.installed
    assert target.imported("m.onnx").__name__ == target.package
    assert callable(target.compiled)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(line.startswith(target.package) for line in extras[target.extra])


@pytest.mark.usefixtures("two_engines")
def test_the_first_installed_is_taken(model: Model, tmp_path: Path, monkeypatch) -> None:
    first, second = TARGETS.values()
    assert target_named(None) is first
    monkeypatch.setitem(sys.modules, first.package, None)
    assert target_named(None) is second
    assert api.export(model, tmp_path / "m.onnx").engine.startswith(second.title)
    assert open_exported(tmp_path / "m.onnx").engine.startswith(second.title)
    with pytest.raises(MissingExtraError, match=rf"running m.onnx in {first.title} needs .*srquant\[{first.extra}\]"):
        open_exported(tmp_path / "m.onnx", first.name)
    monkeypatch.setitem(sys.modules, second.package, None)
    assert target_named(None) is first


@pytest.mark.usefixtures("two_engines")
def test_unknown_names_get_the_nearest(model: Model, tmp_path: Path) -> None:
    message = r"unknown engine 'onxruntime'; did you mean 'onnxruntime'\? known: onnxruntime, openvino"
    for mistake in (
        lambda: open_exported(tmp_path / "m.onnx", "onxruntime"),
        lambda: saturates("onxruntime"),
        lambda: api.export(model, tmp_path / "m.onnx", engine="onxruntime"),
    ):
        with pytest.raises(UnknownNameError, match=message):
            mistake()
    with pytest.raises(ArgumentError, match="threads=0"):
        open_exported(tmp_path / "m.onnx", "openvino", 0)


def test_an_engine_may_be_registered(model: Model, tmp_path: Path, monkeypatch) -> None:
    """Named as its package is not, so that no name stands for another one."""
    file = ModuleType("file_of_the_new_engine")
    file.compiled = onnxruntime.compiled  # type: ignore[attr-defined]
    package = ModuleType("package_of_the_new_engine")
    package.__version__ = "7.1-rc1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, file.__name__, file)
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr(TARGETS, "registered", {})
    TARGETS.register(Target("new", "New Engine", package.__name__, "new", file.__name__))
    assert api.export(model, tmp_path / "m.onnx", engine="new").engine == "New Engine 7.1"
    images = torch.rand(1, 3, 12, 9)
    np.testing.assert_array_equal(*(open_exported(tmp_path / "m.onnx", n)(images) for n in ("new", "onnxruntime")))
