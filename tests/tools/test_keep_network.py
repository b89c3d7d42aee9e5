"""The script that puts trained networks into the zoo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.conftest import script, small_networks, write_png

from srquant.model import load
from srquant.networks.checkpoint import read_checkpoint, read_metadata
from srquant.networks.opening import save_network

keeper = script("keep_network")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    path = tmp_path / "runs/small_x4.safetensors"
    path.parent.mkdir()
    recipe = {"network": {"scale": 4, "channels": 12}, "training": {"steps": 7, "seed": 3, "minutes": None}}
    notes = {"srquant.recipe": json.dumps(recipe), "srquant.device": "2 CPU threads"}
    save_network(path, small_networks()["swinir"], notes)
    rows = [{"step": 7, "loss": 0.1, "psnr": 20.0, "seconds": 180.0}]
    path.with_suffix(".json").write_text(json.dumps(rows))
    path.with_suffix(".png").write_bytes(b"a picture")
    return path


@pytest.fixture
def words(trained: Path, tmp_path: Path) -> list[str]:
    write_png(tmp_path / "Set5/x4/HR/1.png", 64, 48)
    return [str(trained), "--to", str(tmp_path / "zoo"), "--data", str(tmp_path / "Set5/x4"), "--about", "two walls"]


def test_half_precision_where_it_costs_nothing(words: list[str], trained: Path, tmp_path: Path) -> None:
    assert keeper.main(words) == 0
    kept = tmp_path / "zoo/small_x4.safetensors"
    assert {value.dtype for value in read_checkpoint(kept).values() if value.is_floating_point()} == {torch.float16}
    assert kept.stat().st_size < 0.7 * trained.stat().st_size
    assert read_metadata(kept)["srquant.device"] == "2 CPU threads"
    opened = load(kept).network
    assert next(opened.parameters()).dtype == torch.float32
    for name, value in load(trained).network.named_parameters():
        torch.testing.assert_close(opened.get_parameter(name), value, rtol=1e-3, atol=1e-6)
    text = kept.with_suffix(".md").read_text()
    for part in (
        "in float16",
        "channels 12",
        "seed 3",
        "2 CPU threads, 3 minutes for 7 steps",
        "two walls",
        "| Set5 |",
    ):
        assert part in text
    assert "minutes None" not in text
    assert kept.with_suffix(".png").read_bytes() == b"a picture"


def test_float_precision_where_half_costs(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LEAST_CHANGE", 0.0)
    assert keeper.main(words) == 0
    state = read_checkpoint(tmp_path / "zoo/small_x4.safetensors")
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    assert "in float32" in (tmp_path / "zoo/small_x4.md").read_text()


def test_what_is_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(keeper, "LARGEST", 1000)
        assert keeper.main(words) == 2
    assert "a file of the zoo may take 1,000" in capsys.readouterr().err
    save_network(tmp_path / "plain.safetensors", small_networks()["edsr"], {})
    assert keeper.main([str(tmp_path / "plain.safetensors"), *words[1:]]) == 2
    assert "does not say how it was trained" in capsys.readouterr().err
    assert not list(tmp_path.glob("zoo/*"))
