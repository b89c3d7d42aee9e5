"""Importing spandrel, whose torchvision may not fit the PyTorch that is installed."""

from __future__ import annotations

import importlib

import pytest
import torch

from srquant.networks import spandrel
from srquant.support.errors import MissingExtraError


def test_operators_are_declared_only_where_torchvision_fails_without_them(monkeypatch) -> None:
    """Where its compiled part was loaded, declaring its operators again would end the process."""
    declared: list[object] = []

    class Library:
        def __init__(self, *arguments: str) -> None:
            declared.append(arguments)

        def define(self, signature: str) -> None:
            declared.append(signature.partition("(")[0])

    monkeypatch.setattr(torch.library, "Library", Library)
    monkeypatch.setattr(importlib, "import_module", lambda name: name)
    assert spandrel.import_spandrel() == "spandrel"
    assert not declared

    failures = iter([RuntimeError("operator torchvision::nms does not exist")])

    def fails_once(name: str):
        for failure in failures:
            raise failure
        return name

    monkeypatch.setattr(importlib, "import_module", fails_once)
    assert spandrel.import_spandrel() == "spandrel"
    assert declared == [("torchvision", "DEF"), "nms", "qnms"]


@pytest.mark.parametrize("package", ["spandrel", "torchvision"])
def test_a_missing_package_is_named(package: str, monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'srquant\[spandrel\]'"):
        spandrel.import_spandrel()
