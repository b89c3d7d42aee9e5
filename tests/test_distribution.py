"""The source distribution is whole: its tests can be run from it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

sdist = pytest.importorskip("hatchling.builders.sdist", reason="hatchling, which builds distributions, is absent")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the source distribution."""
    folder = tmp_path_factory.mktemp("distribution")
    (archive,) = sdist.SdistBuilder(str(ROOT)).build(directory=str(folder))
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (content,) = (path for path in folder.iterdir() if path.is_dir())
    return content


def test_what_tests_read_is_in_it(unpacked: Path) -> None:
    """Every folder and file of the repository that a test names by its place."""
    named: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        named |= set(re.findall(r'ROOT / f?"([\w.-]+)', path.read_text()))
        assert (unpacked / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    assert {"tools", "docs", "zoo"} <= named
    assert [name for name in sorted(named) if not (unpacked / name).exists()] == []


def test_nothing_else_is_in_it(unpacked: Path) -> None:
    for path in unpacked.rglob("*"):
        name = path.relative_to(unpacked)
        assert name.name == "PKG-INFO" or (ROOT / name).exists()
        assert not {"__pycache__", ".venv", ".git"} & set(name.parts)


@pytest.mark.exhaustive
def test_its_tests_can_be_collected(unpacked: Path) -> None:
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0"]
    environment = os.environ | {"PYTHONPATH": str(unpacked / "src")}
    done = subprocess.run(words, check=False, cwd=unpacked, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
