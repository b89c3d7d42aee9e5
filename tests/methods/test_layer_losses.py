"""The layers that lose most: measured as said, kept in the file, and printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import small_networks

from srquant.images import Calibration
from srquant.methods import MinMax, SRQuant
from srquant.methods.pipeline.plan import make_plan
from srquant.model import Model, load
from srquant.model.record import LayerLosses
from srquant.model.swapping import quant_layers, swap


def slow_agreement(student: Model, teacher: Model, images: torch.Tensor) -> float:
    with torch.no_grad():
        error = (student(images).clamp(0, 1) - teacher(images).clamp(0, 1)).square().mean()
    return float(-10 * error.clamp(min=1e-10).log10())


@pytest.mark.parametrize("name", ["edsr", "srresnet", "swinir"])
def test_each_alone_and_each_left_out(name: str, calibration: Calibration) -> None:
    model = Model(small_networks()[name], name)
    method = MinMax(bits=3)
    quantized = method.quantize(model, calibration)
    losses = quantized.record and quantized.record.losses
    assert losses
    layers = quant_layers(quantized.network)
    assert losses.layers == len(layers)
    assert len(losses.worst) == 3
    numbers = [number * 5 // (losses.patches - 1) for number in range(losses.patches)]
    images = calibration.batch(numbers)
    assert losses.size == images.shape[-1] == 24
    network = make_plan(model, method).network
    alone = {
        layer: slow_agreement(Model(swap(network, {layer: module}), name), model, images)
        for layer, module in layers.items()
    }
    worst = sorted(alone, key=alone.__getitem__)[:3]
    assert [alone[loss.name] for loss in losses.worst] == pytest.approx([alone[layer] for layer in worst], abs=0.02)
    together = slow_agreement(quantized, model, images)
    assert losses.together == pytest.approx(together, abs=0.05)
    for loss in losses.worst:
        assert loss.alone == pytest.approx(alone[loss.name], abs=0.05)
        others = {layer: module for layer, module in layers.items() if layer != loss.name}
        without = slow_agreement(Model(swap(network, others), name), model, images)
        assert loss.gain == pytest.approx(without - together, abs=0.05)
        assert 0 < loss.coverage < 1


def test_it_is_measured_after_the_spared_layers_and_kept_in_the_file(
    edsr: Model, calibration: Calibration, tmp_path: Path
) -> None:
    quantized = SRQuant(bits=8, spare=0.3).quantize(edsr, calibration)
    record = quantized.record
    assert record is not None
    assert record.losses is not None
    spared = {kept.name for kept in record.kept}
    assert spared
    assert not spared & {loss.name for loss in record.losses.worst}
    assert load(quantized.save(tmp_path / "m.safetensors")).record == record


def test_few_patches_and_few_layers(low_images: Path) -> None:
    model = Model.wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.PixelShuffle(2)), 2)
    for network in model.network.modules():
        network.requires_grad_(False)
    calibration = Calibration.from_low_resolution(low_images, count=1, size=16)
    losses = MinMax(bits=2, edges="none").quantize(model, calibration).record.losses
    assert isinstance(losses, LayerLosses)
    assert (losses.layers, losses.patches, losses.size) == (1, 1, 16)
    assert losses.worst[0].alone == losses.together
    assert losses.together + losses.worst[0].gain == pytest.approx(100), "nothing is left that is quantized"
