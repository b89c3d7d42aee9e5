"""The networks of the zoo: they open, score what their cards say, and lose little when quantized."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import ROOT

from srquant import Calibration, configure, evaluate, load, quantize
from srquant.networks.checkpoint import read_metadata

ZOO = sorted((ROOT / "zoo").glob("*.safetensors"))


def card(path: Path) -> str:
    return path.with_suffix(".md").read_text()


def test_there_is_a_transformer() -> None:
    assert any(load(path).network.name == "swinir" for path in ZOO)
    assert {path.stem for path in ZOO} == {path.stem for path in (ROOT / "zoo").glob("*_x?.md")}


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_every_network_opens_and_says_how_it_was_trained(path: Path) -> None:
    model = load(path)
    assert path.stat().st_size <= 8 * 2**20
    assert f"{model.sizes().parameters:,} parameters" in card(path)
    recipe = json.loads(read_metadata(path)["srquant.recipe"])
    assert recipe["network"]["scale"] == model.scale
    assert f"seed {recipe['training']['seed']}" in card(path)


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_scores_are_those_of_the_card(path: Path, shared: Path) -> None:
    model = load(path)
    score = evaluate(model, shared / f"data/Set5/x{model.scale}")[0]
    names, _, values = [
        [cell.strip() for cell in line.split("|")] for line in card(path).splitlines() if line.startswith("|")
    ][:3]
    assert f"{score.psnr:.2f}" == values[names.index("Set5")]


@pytest.mark.parametrize("method", ["dobi", pytest.param("2dquant", marks=pytest.mark.exhaustive)])
def test_a_real_transformer_keeps_its_pictures_at_four_bits(method: str, shared: Path) -> None:
    path = next(path for path in ZOO if load(path).network.name == "swinir")
    model = load(path)
    patches = Calibration.from_photographs(shared / "data/natural", model.scale, count=8, size=64)
    learning = ["finetuning.steps=20", "finetuning.batch=2"] if method == "2dquant" else []
    quantized = quantize(model, patches, configure(method, 4, settings=learning))
    folder = shared / f"data/Set5/x{model.scale}"
    before, after = (evaluate(each, folder)[0].psnr for each in (model, quantized))
    assert before - 2 < after < before
    crude = quantize(model, patches, configure("minmax", 4, settings=["scope=transformer"]))
    assert after > evaluate(crude, folder)[0].psnr
