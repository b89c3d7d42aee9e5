"""The engines' own quantizers beside ours, and the tables that records become."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from tests.conftest import ROOT, small_networks

from benchmarks import eight_bits, low_bits, peers
from srquant.images import Calibration
from srquant.images.enlarging import Upscaler
from srquant.model import Model


def photographs(folder: Path) -> Calibration:
    return Calibration.from_low_resolution(folder, count=4, size=32)


def agreement(network: Model, other: Upscaler) -> float:
    """In dB, relative to the variance of the float network's output."""
    torch.manual_seed(1)
    images = torch.rand(1, 3, 80, 80)
    expected = network(images)
    return float(-10 * ((other(images) - expected).square().mean() / expected.var()).log10())


@pytest.fixture
def task(low_images: Path, tmp_path: Path) -> peers.Task:
    pytest.importorskip("onnx", reason="onnx is absent: float networks cannot be written for peers")
    return peers.Task.of(Model(small_networks()["edsr"], "edsr"), tmp_path, 32)


def test_onnxruntime(task: peers.Task, low_images: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is absent: its quantizer is not tried")
    opened = task.opened(peers.by_onnxruntime(task, photographs(low_images)), "onnxruntime")
    assert 15 < agreement(task.network, opened) < 80, "it works, and it is quantized"


@pytest.mark.filterwarnings("ignore")
def test_nncf(task: peers.Task, low_images: Path) -> None:
    pytest.importorskip("nncf", reason="nncf is absent (the extra peers): its quantizer is not tried")
    run = peers.in_openvino(peers.by_nncf(task, photographs(low_images)))
    assert 15 < agreement(task.network, task.exported(run)) < 80


def test_ours(task: peers.Task, low_images: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is absent")
    opened = task.opened(peers.by_srquant(task, photographs(low_images)), "openvino")
    assert 30 < agreement(task.network, opened) < 80


def test_a_network_that_computes_with_its_size_is_cut_into_tiles(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is absent: float networks cannot be written for peers")
    task = peers.Task.of(Model(small_networks()["swinir"], "swinir"), tmp_path, 80)
    assert task.contract.tile == (80, 80)
    assert task.has_attention
    assert task.tiling is not None


def test_what_cannot_be_done_is_a_row_that_says_why(
    monkeypatch: pytest.MonkeyPatch, shared: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="onnx is absent: float networks cannot be written for peers")

    def refuse(*_: object) -> bytes:
        raise ValueError("no such operator\nand more")

    for name in ("by_srquant", "by_onnxruntime", "by_nncf"):
        monkeypatch.setattr(peers, name, refuse)
    monkeypatch.setattr(peers, "Judge", lambda *_: None)
    options = Namespace(photographs=shared / "data/natural", data=shared / "data", patches=2)
    found = list(peers.rows(shared / "models/edsr_b8_x2.safetensors", options))
    assert [row.quantizer for row in found] == ["srquant", "ONNX Runtime", "NNCF", "ONNX Runtime", "NNCF"]
    assert {(row.losses, row.failure) for row in found} == {(None, "ValueError: no such operator")}
    assert "no such operator" in peers.table(found)


@pytest.mark.parametrize(
    "program", [eight_bits, low_bits, peers], ids=lambda program: program.__name__.partition(".")[2]
)
def test_tables_in_the_documents_are_those_of_the_records(program: object) -> None:
    name = program.__name__.partition(".")[2]  # type: ignore[attr-defined]
    table = program.table(program.read(ROOT / f"docs/records/{name}.json"))  # type: ignore[attr-defined]
    text = (ROOT / "docs/results.md").read_text()
    assert f"benchmarks.{name} --table docs/records/{name}.json -->\n{table.strip()}\n" in text
    assert len(re.findall(r"(?m)^\|", table)) > 4
