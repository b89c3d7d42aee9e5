"""Which cells a grid has, and what decides each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.bench.helpers import small_grid, subject, titled
from tests.conftest import write_png
from tests.images.test_pairs import make_pair

from srquant.bench.cells import DataSet, plan, published_name, widths
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.networks.srresnet import SRResNet, SRResNetConfig
from srquant.networks.swinir import SwinIR, SwinIRConfig
from srquant.support.errors import ArgumentError, ImageError


def keys(folder: Path, low: Path, *methods: str) -> list[str]:
    return [cell.key for cell in small_grid(folder, low, *methods).cells]


def test_a_cell_asked_for_twice_is_there_once(tmp_path: Path, low_images: Path) -> None:
    grid = small_grid(tmp_path, low_images, "minmax", "minmax:edges=8bit", "plq", "minmax:bits=3")
    assert [cell.title for cell in grid.cells] == ["float", "minmax", "plq", "minmax:bits=3"]
    assert grid.cells[3].name == "minmax:bits=3 W3A3 on edsr.pth"
    twice = subject(tmp_path, low_images)
    grid = plan([(twice, [titled("mse")]), (twice, [titled("mse")])], "cpu")
    assert [cell.title for cell in grid.cells] == ["float", "mse"]


def test_all_that_decides_a_cell_is_in_its_key(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all files have the names and sizes of those before."""
    low = tmp_path / "low"
    for number in range(2):
        write_png(low / f"{number}.png", 24, 28, number)
    before = keys(tmp_path, low, "minmax")
    assert keys(tmp_path, low, "minmax") == before
    assert keys(tmp_path, low, "minmax:weights.symmetric=false")[1] != before[1]
    with monkeypatch.context() as patched:
        patched.setattr(torch, "__version__", "1.0")
        assert not set(keys(tmp_path, low, "minmax")) & set(before)
    own = subject(tmp_path, low)
    with torch.no_grad():
        next(own.model.network.parameters()).add_(1e-3)
    assert not {cell.key for cell in plan([(own, [titled("minmax")])], "cpu").cells} & set(before)
    assert not {cell.key for cell in plan([(subject(tmp_path, low), [])], "cuda").cells} & set(before)
    tiled = subject(tmp_path, low)
    tiled = replace(tiled, data=tuple(DataSet(each.folder, 96, 0) for each in tiled.data))
    assert tiled.data[0].scored == {"tile": 96, "overlap": 0}
    assert not {cell.key for cell in plan([(tiled, [])], "cpu").cells} & set(before)
    write_png(low / "1.png", 24, 28, 7)
    assert [new == old for new, old in zip(keys(tmp_path, low, "minmax"), before, strict=True)] == [True, False]
    make_pair(tmp_path / "Set5/x4", "1", 4, seed=1)
    assert not set(keys(tmp_path, low, "minmax")) & set(before)


def test_networks_and_methods_that_do_not_do(tmp_path: Path, low_images: Path) -> None:
    own = subject(tmp_path, low_images)
    quantized = titled("minmax")[1].quantize(own.model, own.calibration)
    with pytest.raises(ArgumentError, match="quantized already; a bench takes float networks"):
        plan([(replace(own, model=quantized), [])], "cpu")
    with pytest.raises(ArgumentError, match="minmax needs calibration patches"):
        plan([(replace(own, calibration=None), [titled("minmax")])], "cpu")
    (own.data[0].folder.pairs[0].high).unlink()
    with pytest.raises(ImageError, match="cannot be read"):
        plan([(own, [])], "cpu")


def test_names_of_papers() -> None:
    assert published_name(EDSR(EDSRConfig(scale=2, value_range=1.0))) == "EDSR-baseline"
    assert published_name(EDSR(EDSRConfig(blocks=15))) == ""
    assert published_name(SRResNet(SRResNetConfig())) == "SRResNet"
    assert published_name(SwinIR(SwinIRConfig(scale=3))) == "SwinIR-light"


def test_widths() -> None:
    assert widths(["4", 3, "8/6"]) == [(4, 4), (3, 3), (8, 6)]
    for text in ("", "4/", "/4", "4/4/4", "4.5", "-4", "²", "four"):
        with pytest.raises(ArgumentError, match="is no number of bits; write 4, or 8/6"):
            widths([text])
