"""DAQ beside a twin in the paper's notation; what cannot have levels of an image's channels is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.nn.functional as F
from tests.conftest import write_png
from tests.methods.trained_twins import Twin, far
from tests.quantizers.test_distribution_aware import twin as nearest
from torch import Tensor

import srquant
from srquant.learning.photographs import Photographs
from srquant.learning.settings import TruthSettings
from srquant.methods import DAQ
from srquant.model import Model
from srquant.model.swapping import quant_layers
from srquant.networks import SRNetwork
from srquant.quantizers import DistributionAware
from srquant.support.errors import ArgumentError

BITS, C = 3, 0.996
SETTINGS = TruthSettings(steps=4, epochs=2, batch=2, patch=16, decay=1.0)


@pytest.fixture
def photographs(tmp_path: Path) -> Photographs:
    for number in range(3):
        write_png(tmp_path / f"photos/{number}.png", 96, 80, number)
    return Photographs.of(tmp_path / "photos", 4, 16)


def straight(x: Tensor, rounded: Tensor) -> Tensor:
    return x + (rounded - x).detach()


def rounded_weight(_name: str, w: Tensor) -> Tensor:
    """±(k + ½) steps, k < 2^(b−1)."""
    half = 2 ** (BITS - 1)
    step = C * w.detach().std()
    return straight(w, ((w / step).floor().clamp(-half, half - 1) + 0.5) * step)


def test_a_run_is_that_of_the_paper(edsr: Model, photographs: Photographs) -> None:
    twin = Twin(edsr, lambda _, x: straight(x, nearest(x.detach(), BITS)), rounded_weight)
    twin.learn(photographs, SETTINGS, [], lambda _, low, high: F.l1_loss(twin.network(low), high).backward())
    model = DAQ(bits=BITS, training=SETTINGS).quantize(edsr, photographs)
    assert far(twin, model, rounded_weight) < 2e-3


def test_as_released_nothing_is_clamped(edsr: Model, photographs: Photographs) -> None:
    for as_released in (False, True):
        model = DAQ(bits=BITS, training=SETTINGS, as_released=as_released).quantize(edsr, photographs)
        for layer in quant_layers(model.network).values():
            assert isinstance(layer.left, DistributionAware)
            assert layer.left.clamp is not as_released


def test_what_is_no_convolution_is_refused_by_name(networks: dict[str, SRNetwork], photographs: Photographs) -> None:
    model = Model(networks["swinir_classical"], "swinir.pth")
    with pytest.raises(ArgumentError, match=r"^daq: layers\.0\..*attn\.q is no convolution, .* with layers="):
        DAQ(training=SETTINGS).quantize(model, photographs)


def test_it_cannot_be_exported_and_says_the_way_out(edsr: Model, photographs: Photographs, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    model = DAQ(bits=BITS, training=SETTINGS).quantize(edsr, photographs)
    with pytest.raises(
        ArgumentError, match=r"body\.0\.body\.0 has a distribution_aware quantizer, whose levels follow"
    ):
        srquant.export(model, tmp_path / "m.onnx")
    with pytest.raises(ArgumentError, match="levels of daq follow each image"):
        DAQ(grid="int8")
