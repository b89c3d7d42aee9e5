"""Small networks of the architectures that people train: from weights to an exported file and a larger picture."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tests.architectures import ARCHITECTURES, architecture
from tests.conftest import write_png
from tests.engines.here import right_range
from torch import Tensor, nn

from srquant import api
from srquant.engines import open_exported
from srquant.engines.onnx import write_onnx
from srquant.engines.operands import ExportSettings
from srquant.engines.written import as_written
from srquant.images import Calibration, read_picture
from srquant.methods import MinMax
from srquant.methods.base import ObservationSettings, WeightSettings
from srquant.model import Model, load
from srquant.support.errors import ArgumentError

QUICK = ("Compact", "SPAN", "RCAN", "PLKSR", "SwiftSRGAN")
NOT = {"SeemoRe": "chooses its experts by values of the image"}
"""Networks that cannot be followed, and why."""
W8A8 = MinMax(
    bits=8,
    grid="int8",
    edges="none",
    weights=WeightSettings(granularity="per_channel"),
    observation=ObservationSettings(batch=1),
)


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=[pytest.mark.exhaustive, pytest.mark.architectures])
        for name in ARCHITECTURES
        if name not in NOT
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_from_weights_to_a_larger_picture(name: str, calibration: Calibration, tmp_path: Path) -> None:
    if find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    quantized = W8A8.quantize(Model(architecture(name), name), calibration)
    model = load(quantized.save(tmp_path / "q.safetensors"))
    images = torch.rand(1, 3, 24, 40)
    assert torch.equal(model(images), quantized(images))
    path, form = tmp_path / "m.onnx", right_range("openvino", "onnxruntime")
    contract = write_onnx(model, path, ExportSettings(range=form))
    expected = as_written(model, form)
    step = contract.alignment
    sizes = [(-(-size // step) * step, -(-(size + 9) // step) * step) for size in (32, 51)]
    for size in [contract.tile] if contract.tile else sizes:
        patch = torch.nn.functional.interpolate(calibration.batch([0]), size, mode="bilinear")
        right = expected(patch)
        for engine in ("openvino", "onnxruntime"):
            found = open_exported(path, engine, 1)(patch)
            # Codes that tip spread far in networks of random weights; a wrong file gives some 0 to 15 dB.
            assert float(-10 * ((found - right).square().mean() / right.var()).log10()) > 25, (engine, size)
    api.upscale(open_exported(path, "openvino", 1), write_png(tmp_path / "low.png", 37, 53), tmp_path / "high.png")
    assert read_picture(tmp_path / "high.png").pixels.shape[:2] == (37 * model.scale, 53 * model.scale)


class Choosing(nn.Module):
    """Computes something else where the image is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shuffle = nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, images: Tensor) -> Tensor:
        found = self.conv(images)
        return self.shuffle(found if float(images.mean()) > 0.01 else -found)


def test_what_cannot_be_followed_is_said(calibration: Calibration, tmp_path: Path) -> None:
    model = W8A8.quantize(Model.wrap(Choosing(), 2), calibration)
    with pytest.raises(ArgumentError, match="the network cannot be traced for export"):
        write_onnx(model, tmp_path / "m.onnx", ExportSettings())
    assert not list(tmp_path.iterdir())
