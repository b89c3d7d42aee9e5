"""The range of weights: what saturates, how that is found out, and what export makes of it, on any processor."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.conftest import small_networks
from tests.engines.here import saturating, widest_weight
from torch import Tensor, nn

from srquant.engines import TARGETS, open_exported, saturates
from srquant.engines.agreement import export_onnx
from srquant.engines.disagreement import in_float64
from srquant.engines.exported import Contract, read_contract
from srquant.engines.onnx import can_saturate, write_onnx
from srquant.engines.operands import ExportSettings, Range
from srquant.engines.runtimes import onnxruntime, openvino
from srquant.engines.saturation import Compile, products_saturate
from srquant.engines.written import as_written
from srquant.images import Calibration
from srquant.methods import MSE, PLQ, MinMax
from srquant.methods.base import WeightSettings
from srquant.model import Model
from srquant.support.errors import ExportError, SaturationWarning

CHANNELS = WeightSettings(granularity="per_channel")
W8A8 = MinMax(bits=8, grid="int8", weights=CHANNELS)


@pytest.fixture(scope="module")
def model(low_images: Path) -> Model:
    patches = Calibration.from_low_resolution(low_images, count=3, size=24)
    return W8A8.quantize(Model(small_networks()["edsr"], "edsr.pth"), patches)


@pytest.fixture
def coarse(calibration: Calibration) -> Model:
    """Its weights of reduced range are far from its own: for each output one is 127, the others are 1 and double."""
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.PixelShuffle(2))
    with torch.no_grad():
        weight = network.get_parameter("0.weight").fill_(0.6 / 127)
        weight[:, :, 1, 1] = torch.tensor([0.6, *[0.6 / 127] * 2])
    return W8A8.quantize(Model.wrap(network, 2), calibration)


@pytest.fixture
def fake(model: Model, monkeypatch) -> str:
    """An engine in which products saturate: files of full range come out at a third."""
    monkeypatch.setattr(onnxruntime, "compiled", saturating(onnxruntime.compiled, model, 0.3))
    return "onnxruntime"


@pytest.mark.parametrize("engine", TARGETS)
def test_what_is_tried_once_is_what_networks_do(engine: str, calibration: Calibration, tmp_path: Path) -> None:
    """Largest bytes times largest bytes, in a network of its own: too small where products saturate, else right."""
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.Conv2d(16, 12, 3, padding=1, bias=False), nn.PixelShuffle(2)
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(1 / weight[0].numel())
    model = W8A8.quantize(Model.wrap(network, 2), calibration)
    white = torch.ones(1, 3, 20, 20)
    shares = {}
    for form in ("full", "reduced"):
        write_onnx(model, tmp_path / "m.onnx", ExportSettings(range=form))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            opened = open_exported(tmp_path / "m.onnx", engine, 1)
        assert [w.category for w in caught] == [SaturationWarning] * (form == "full" and saturates(engine))
        shares[form] = float((opened(white) / model(white)).mean())
    assert shares["reduced"] == pytest.approx(1, abs=0.02)
    assert shares["full"] < 0.9 if saturates(engine) else shares["full"] == pytest.approx(1, abs=0.02)


def test_an_engine_that_saturates_is_found_out_and_tried_once(model: Model) -> None:
    runs = []

    def compiled(content: bytes, name: str, threads: int | None = None):
        runs.append(name)
        return saturating(onnxruntime.compiled, model, 0.3)(content, name, threads)

    assert products_saturate(compiled)
    assert products_saturate(compiled)
    assert runs == ["a network of byte products"]


def test_reduced_weights_are_coarser_and_reach_64(model: Model, tmp_path: Path) -> None:
    path, images = tmp_path / "m.onnx", torch.rand(1, 3, 20, 20)
    assert write_onnx(model, path, ExportSettings()).saturates
    assert widest_weight(path.read_bytes()) == 127
    assert not write_onnx(model, path, ExportSettings(range="reduced")).saturates
    assert widest_weight(path.read_bytes()) == 64
    expected, found = model(images), as_written(model, "reduced")(images)
    assert 0 < (expected - found).std() < 0.1 * expected.std()


def test_the_range_is_full_where_products_do_not_saturate_and_reduced_elsewhere(model: Model, tmp_path: Path) -> None:
    for engine in TARGETS:
        found = export_onnx(model, tmp_path / "m.onnx", ExportSettings(), engine, 1)
        contract, _ = read_contract(tmp_path / "m.onnx")
        assert found.range == contract.export["range"] == ("reduced" if saturates(engine) else "full")
        assert list(found.tried) == (["full", "reduced"] if saturates(engine) else ["full"])
        assert found.good_for == ("any processor" if saturates(engine) else "processors with VNNI or AMX")
        assert contract.saturates == found.saturates == (not saturates(engine))
        open_exported(tmp_path / "m.onnx", engine)  # without a warning


def test_reduced_is_taken_where_full_saturates(fake: str, model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    found = export_onnx(model, path, ExportSettings(), fake, 1)
    assert (found.range, found.good_for, found.saturates) == ("reduced", "any processor", False)
    assert list(found.tried) == ["full", "reduced"]
    assert found.tried["full"] < 45 <= found.tried["reduced"] == found.psnr
    assert widest_weight(path.read_bytes()) == 64
    open_exported(path, fake)  # without a warning


def test_reduced_is_taken_even_where_full_agrees_on_the_patch(model: Model, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime, "compiled", saturating(onnxruntime.compiled, model, 0.99999))
    found = export_onnx(model, tmp_path / "m.onnx", ExportSettings(), "onnxruntime", 1)
    assert found.tried["full"] > found.tried["reduced"] > 45
    assert (found.range, found.good_for) == ("reduced", "any processor")


@pytest.mark.parametrize("form", ["auto", "reduced"])
def test_what_coarser_weights_cost_is_said_and_no_reason_to_refuse(
    form: Range, coarse: Model, tmp_path: Path, monkeypatch
) -> None:
    """The engine computes the file rightly; only the file is far from the model."""
    path = tmp_path / "m.onnx"
    monkeypatch.setattr(onnxruntime, "compiled", saturating(onnxruntime.compiled, coarse, 0.3))
    found = export_onnx(coarse, path, ExportSettings(range=form), "onnxruntime", 1)
    assert found.range == "reduced"
    assert found.psnr < 45 <= found.engine_psnr
    assert "; to lose less, quantize again with weights of 6 bits" in str(found)
    assert "\n" not in str(found)
    images = torch.rand(1, 3, 20, 20)
    np.testing.assert_allclose(
        open_exported(path, "onnxruntime", 1)(images), as_written(coarse, "reduced")(images), atol=0.02
    )


def test_full_is_written_with_a_warning_where_it_is_asked_for(model: Model, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime, "compiled", saturating(onnxruntime.compiled, model, 0.99999))
    with pytest.warns(SaturationWarning, match=r"m.onnx agrees with the model on the test patch, but may not on other"):
        found = export_onnx(model, tmp_path / "m.onnx", ExportSettings(range="full"), "onnxruntime", 1)
    assert (found.range, found.good_for) == ("full", "processors with VNNI or AMX")
    assert widest_weight((tmp_path / "m.onnx").read_bytes()) == 127
    with pytest.warns(SaturationWarning, match=r"and those of m.onnx may saturate; export with --range reduced"):
        open_exported(tmp_path / "m.onnx", "onnxruntime")


def halved(compiled: Compile) -> Compile:
    """An engine that gives half of what it should."""

    def wrong(content: bytes, name: str, threads: int | None = None) -> Callable[[Tensor], Tensor]:
        run = compiled(content, name, threads)
        return lambda images: run(images) / 2

    return wrong


def test_saturation_is_named_where_it_is_the_cause(fake: str, model: Model, tmp_path: Path) -> None:
    message = r"and the model agree .* products of full range saturate on this processor; take --range auto"
    with pytest.raises(ExportError, match=message):
        export_onnx(model, tmp_path / "m.onnx", ExportSettings(range="full"), fake, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("two_engines")
@pytest.mark.parametrize("form", ["auto", "full", "reduced"])
def test_a_fault_of_the_engine_is_named_whatever_saturates(
    form: Range, model: Model, tmp_path: Path, monkeypatch
) -> None:
    """The engine's products saturate, and it is wrong in reduced range as well: only the other one is right."""
    monkeypatch.setattr(onnxruntime, "compiled", halved(onnxruntime.compiled))
    assert saturates("onnxruntime")
    message = (
        r"less than \d+.*; nothing was written: a fault of ONNX Runtime, as OpenVINO agrees to \d+.* dB; take --engine"
    )
    with pytest.raises(ExportError, match=message) as caught:
        export_onnx(model, tmp_path / "m.onnx", ExportSettings(range=form), "onnxruntime", 1)
    assert "\n" not in str(caught.value)
    assert "saturate" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("two_engines")
def test_a_file_that_no_engine_computes_is_at_fault(model: Model, tmp_path: Path, monkeypatch) -> None:
    for engine in (onnxruntime, openvino):
        monkeypatch.setattr(engine, "compiled", halved(engine.compiled))
    message = r"a fault of the file, and so of srquant: OpenVINO agrees to \d+.\d dB$"
    with pytest.raises(ExportError, match=message):
        export_onnx(model, tmp_path / "m.onnx", ExportSettings(), "onnxruntime", 1)
    monkeypatch.setitem(sys.modules, "openvino", None)
    message = "a fault of ONNX Runtime, or of srquant; to find out, install another engine and take --engine openvino"
    with pytest.raises(ExportError, match=message):
        export_onnx(model, tmp_path / "m.onnx", ExportSettings(), "onnxruntime", 1)


@pytest.mark.usefixtures("two_engines")
def test_a_model_that_any_order_of_sums_changes_is_at_fault(
    calibration: Calibration, tmp_path: Path, monkeypatch
) -> None:
    """Engines whose sums are exact do not agree with it, and neither does the model with exact sums."""
    model = MinMax(bits=6, grid="int8", edges="none").quantize(Model.wrap(Unsteady(), 2), calibration)
    for engine in (onnxruntime, openvino):
        monkeypatch.setattr(engine, "compiled", lambda *_: in_float64(model))
    with pytest.raises(ExportError, match=r"the model itself agrees with itself in float64 to \d+.\d dB only: .* bits"):
        export_onnx(model, tmp_path / "m.onnx", ExportSettings(), "onnxruntime", 1)


class Unsteady(nn.Module):
    """Enlarges what float32 loses of a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, images: Tensor) -> Tensor:
        x = self.network(images)
        return (x + 1000 - 1000) * 30000 - x * 30000 + x


def test_the_way_out_is_one(fake: str, low_images: Path, tmp_path: Path) -> None:
    """Weights of 6 bits cannot saturate: the model's own integers are written."""
    patches = Calibration.from_low_resolution(low_images, count=3, size=24)
    method = MSE(bits=8, weight_bits=6, grid="int8", weights=CHANNELS, edges="float")
    floats = Model(small_networks()["srresnet"], "x.pth")
    model = method.quantize(floats, patches)
    found = export_onnx(model, tmp_path / "m.onnx", ExportSettings(), fake, 1)
    assert (found.range, found.good_for, list(found.tried)) == ("full", "any processor", ["full"])
    assert not can_saturate(model)
    assert not can_saturate(PLQ(bits=4, grid="int8", weights=CHANNELS, edges="none").quantize(floats, patches))


def test_files_of_the_former_option_are_read(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_onnx(model, path, ExportSettings(range="reduced"))
    content = onnx.load(path)
    (entry,) = (entry for entry in content.metadata_props if entry.key == Contract.KEY)
    said = json.loads(entry.value)
    said["export"] = {"tile": None, "storage": "int8", "reduced_range": True}
    entry.value = json.dumps(said)
    onnx.save(content, path)
    contract, _ = read_contract(path)
    assert contract.export["reduced_range"] is True
    assert not contract.saturates
    images = torch.rand(1, 3, 9, 9)
    np.testing.assert_allclose(open_exported(path)(images), as_written(model, "reduced")(images), atol=0.02)
