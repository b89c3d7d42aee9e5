"""A server, a cache of the test's own, and a catalogue that leads to that server."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import small_networks, write_png
from tests.fetching.serving import Server, serving

from srquant.fetching import catalogue, downloading
from srquant.fetching.downloading import Patience

Knows = Callable[..., None]


@pytest.fixture
def server() -> Generator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SRQUANT_CACHE", str(folder))
    monkeypatch.setattr(downloading, "PATIENCE", Patience(connect=2, read=2, tries=3, pause=0.01))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return folder


def table(name: str, **fields: Any) -> str:
    """An entry of a catalogue, as TOML."""
    given = {"what": "a test", "kind": "network", "license": "MIT", "page": "https://example.org", **fields}
    if "alias_of" in fields:
        given = fields
    return "\n".join([f"[{name}]", *(f"{key} = {value!r}" for key, value in given.items()), ""])


@pytest.fixture
def knows(monkeypatch: pytest.MonkeyPatch) -> Knows:
    """Make the catalogue one of the given entries; as often as wanted."""

    def make(**tables: Mapping[str, Any]) -> None:
        text = "\n".join(table(name.replace("_", "-"), **fields) for name, fields in tables.items())
        known = catalogue.read_entries(text)
        for module in ("srquant.fetching.fetching.entries", "srquant.fetching.names.entries"):
            monkeypatch.setattr(module, lambda: known)
        monkeypatch.setattr(catalogue, "entries", lambda: known)

    return make


@pytest.fixture(scope="session")
def weights() -> bytes:
    """Of a small EDSR, as its authors publish theirs."""
    network = small_networks()["edsr"]
    file = io.BytesIO()
    torch.save(network.to_published(network.state_dict()), file)
    return file.getvalue()


@pytest.fixture(scope="session")
def old_weights() -> bytes:
    """The same in PyTorch's format before 1.6, which is no archive."""
    network = small_networks()["edsr"]
    file = io.BytesIO()
    torch.save(network.to_published(network.state_dict()), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the one in EDSR's archive: two sets, each with HR, and LR of two scales."""
    root = tmp_path_factory.mktemp("archive") / "benchmark"
    for number, name in enumerate(("Set5", "B100")):
        for image in range(2):
            write_png(root / name / f"HR/{image}.png", 64, 72, 2 * number + image)
            for scale in (2, 4):
                low = root / name / f"LR_bicubic/X{scale}/{image}x{scale}.png"
                write_png(low, 64 // scale, 72 // scale, 2 * number + image)
    return root


def tarred(folder: Path, compression: str = "") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}") as archive:
        archive.add(folder, folder.name)
    return file.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
