"""Files that compute in floats: float networks, and quantized ones whose activations stay float."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from tests.conftest import small_networks
from torch import Tensor, nn

from srquant import export
from srquant.api import configure
from srquant.engines import TARGETS, open_exported
from srquant.engines.onnx import require_exportable, write_onnx
from srquant.engines.operands import RANGES, ExportSettings
from srquant.images import Calibration
from srquant.model import Model
from srquant.model.swapping import without_activation_quantizers
from srquant.support.errors import ArgumentError, ExportError


@pytest.mark.parametrize("engine", TARGETS)
@pytest.mark.parametrize(("precision", "least"), [("float32", 90), ("float16", 50)])
def test_a_float_network(engine: str, precision: str, least: float, tmp_path: Path) -> None:
    model, path = Model(small_networks()["edsr"], "edsr.pth"), tmp_path / "m.onnx"
    found = export(model, path, engine=engine, precision=precision, threads=1)  # pyright: ignore
    assert str(found).startswith(f"{precision} network, good for any processor; ")
    assert found.psnr > least
    images = torch.rand(2, 3, 17, 23)
    exported = open_exported(path, engine, 1)
    assert float((exported(images) - model(images)).square().mean()) < 10 ** (-least / 10)
    parts = onnx.load(path)
    stored = {tensor.data_type for tensor in parts.graph.initializer if onnx.numpy_helper.to_array(tensor).size > 100}
    assert stored == {onnx.TensorProto.FLOAT16 if precision == "float16" else onnx.TensorProto.FLOAT}
    ends = {each.type.tensor_type.elem_type for each in (*parts.graph.input, *parts.graph.output)}
    assert ends == {onnx.TensorProto.FLOAT}


def test_numbers_that_half_precision_does_not_hold(tmp_path: Path) -> None:
    """Activations of a million: float32 carries them, float16 does not, and that is said."""
    network = small_networks()["edsr"]
    with torch.no_grad():
        for module, factor in ((network.get_submodule("head.0"), 1e7), (network.get_submodule("tail.1"), 1e-7)):
            assert isinstance(module, nn.Conv2d)
            module.weight.mul_(factor)
    model, path = Model(network, "edsr.pth"), tmp_path / "m.onnx"
    with pytest.raises(ExportError, match=r"less than 40, in float16; nothing was written: its numbers end at 65,504"):
        export(model, path, precision="float16", threads=1)
    assert not list(tmp_path.iterdir())
    export(model, path, threads=1)


@pytest.mark.parametrize("engine", TARGETS)
@pytest.mark.parametrize("method", ["minmax", "srquant"])
def test_weights_alone(engine: str, method: str, calibration: Calibration, tmp_path: Path) -> None:
    """Of integers are the weights, factors of channels taken off again; no activation is rounded."""
    floats = Model(small_networks()["srresnet"], "srresnet.pth")
    settings = {"norms": "folded"} if method == "minmax" else {"drawings": 1, "saturated": 1, "spare": 0.0}
    model = configure(method, 8, grid="int8", **settings).quantize(floats, calibration)
    found = export(model, tmp_path / "m.onnx", engine=engine, activations="float", threads=1)
    assert str(found).startswith("weights as integers, activations float, good for any processor; ")
    assert found.psnr > 90
    export(model, tmp_path / "bytes.onnx", engine=engine, threads=1)
    images = torch.rand(1, 3, 24, 24)
    bare = Model(without_activation_quantizers(model.network), "x")(images)
    away = {name: open_exported(tmp_path / f"{name}.onnx", engine, 1)(images) - bare for name in ("m", "bytes")}
    assert float(away["m"].square().mean()) < 1e-3 * float(away["bytes"].square().mean())
    contract = open_exported(tmp_path / "m.onnx", engine, 1).contract
    assert (contract.bits, contract.saturates) == ("W8Afloat", False)
    operators = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "QuantizeLinear" not in operators


def test_settings_that_do_not_fit(calibration: Calibration, tmp_path: Path) -> None:
    model = configure("minmax", 8, grid="int8").quantize(Model(small_networks()["edsr"], "edsr.pth"), calibration)
    with pytest.raises(ArgumentError, match=r"range=full and processor=avx2: the processor decides the range"):
        export(model, tmp_path / "m.onnx", range="full", processor="avx2")
    with pytest.raises(ArgumentError, match=r"range=reduced with activations=float: there are no byte products"):
        export(model, tmp_path / "m.onnx", range="reduced", activations="float")
    with pytest.raises(ArgumentError, match=r"processor=.sse2"):
        export(model, tmp_path / "m.onnx", processor="sse2")  # pyright: ignore
    with pytest.raises(ArgumentError, match=r"precision=.bfloat16"):
        export(model, tmp_path / "m.onnx", precision="bfloat16")  # pyright: ignore
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("processor", "form"), [("amx", "full"), ("vnni", "full"), ("avx2", "reduced")])
def test_files_for_other_processors(processor: str, form: str, calibration: Calibration, tmp_path: Path) -> None:
    settings = {"weights": {"granularity": "per_channel"}, "edges": "none", "grid": "int8"}
    model = configure("minmax", 8, **settings).quantize(Model(small_networks()["edsr"], "edsr.pth"), calibration)
    contract = write_onnx(model, tmp_path / "m.onnx", ExportSettings(range=RANGES[processor]))  # pyright: ignore
    assert contract.export["range"] == form
    assert contract.saturates == (form == "full")


def test_a_file_explains_itself(calibration: Calibration, tmp_path: Path) -> None:
    """A script of somebody else's, who knows nothing of srquant, gets the right picture."""
    runtime = pytest.importorskip("onnxruntime")
    model = configure("minmax", 8, grid="int8").quantize(Model(small_networks()["edsr"], "edsr.pth"), calibration)
    path = tmp_path / "m.onnx"
    export(model, path, engine="onnxruntime", processor="avx2", threads=1)

    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    keys = session.get_modelmeta().custom_metadata_map
    assert (keys["colour"], keys["layout"], keys["value_range"], keys["size"]) == ("RGB", "NCHW", "0..1", "any")
    assert (keys["alignment"], keys["halo"], keys["bits"], keys["method"]) == ("1", "8", "W8A8", "minmax")
    image = torch.rand(1, 3, 20, 31)
    (enlarged,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    scale = int(keys["scale"])
    assert enlarged.shape == (1, 3, scale * 20, scale * 31)
    torch.testing.assert_close(torch.from_numpy(enlarged), open_exported(path, "onnxruntime", 1)(image))
    assert "Enlarges RGB images 4 times" in onnx.load(path).doc_string


@pytest.mark.parametrize("form", ["quantized", "float", "attention"])
def test_a_host_that_fixes_the_size(form: str, calibration: Calibration, tmp_path: Path) -> None:
    """Programs that enlarge videos take one float32 tensor of four axes, overwrite its size, and infer all others."""
    path = tmp_path / "m.onnx"
    model = Model(small_networks()["swinir" if form == "attention" else "edsr"], "x")
    if form != "float":
        model = configure("minmax", 8, grid="int8").quantize(model, calibration)
    contract = write_onnx(model, path, ExportSettings())
    parts = onnx.load(path)
    (given,), (found,) = parts.graph.input, parts.graph.output
    kind = given.type.tensor_type
    assert (kind.elem_type, len(kind.shape.dim)) == (onnx.TensorProto.FLOAT, 4)
    size = contract.tile or (48, 64)
    for axis, length in enumerate((1, 3, *size)):
        kind.shape.dim[axis].dim_value = length
    for dimension in found.type.tensor_type.shape.dim:
        dimension.Clear()
    parts = onnx.shape_inference.infer_shapes(parts, strict_mode=True, data_prop=True)
    shape = [each.dim_value for each in parts.graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, 3, *(model.scale * length for length in size)]


class Sorting(nn.Module):
    """Computes something else where the image is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shuffle = nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, images: Tensor) -> Tensor:
        found = self.conv(images)
        return self.shuffle(found if float(images.mean()) > 0.01 else -found)


def test_what_cannot_be_exported_is_known_before() -> None:
    require_exportable(Model(small_networks()["edsr"], "x"), None)
    with pytest.raises(ArgumentError, match="the network cannot be traced for export"):
        require_exportable(Model.wrap(Sorting(), 2), None)
