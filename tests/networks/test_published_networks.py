"""Methods on real networks: the order in which docs/experiments.md has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from srquant import Calibration, configure, evaluate, load, quantize


@pytest.mark.parametrize(
    "name",
    ["edsr_b16_x4", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("edsr_b8_x2", "srresnet_b8_x4"))],
)
def test_the_order_of_the_methods(name: str, shared: Path) -> None:
    """Float > PLQ > MinMax > Percentile at W4A4, and 8 bits lose less than 0.3 dB."""
    model = load(shared / f"models/{name}.safetensors")
    patches = Calibration.from_photographs(shared / "data/natural", model.scale, count=16)
    data = shared / f"data/Set5/x{model.scale}"

    def psnr(method: str, bits: int) -> float:
        (scores,) = evaluate(quantize(model, patches, configure(method, bits)), data)
        return scores.psnr

    (float_scores,) = evaluate(model, data)
    plq, minmax, percentile = (psnr(method, 4) for method in ("plq", "minmax", "percentile"))
    assert float_scores.psnr > plq > minmax > percentile
    assert float_scores.psnr - psnr("plq", 8) < 0.3


@pytest.mark.exhaustive
def test_learning_pays(shared: Path) -> None:
    """PLQ < OAPTQ < our recipe at W4A4, after a few steps on a few patches."""
    model = load(shared / "models/edsr_b8_x2.safetensors")
    patches = Calibration.from_photographs(shared / "data/natural", 2, count=8, size=48)

    def psnr(method: str, *settings: str) -> float:
        (scores,) = evaluate(quantize(model, patches, configure(method, settings=settings)), shared / "data/Set5/x2")
        return scores.psnr

    plq = psnr("plq")
    oaptq = psnr("oaptq", "finetuning.epochs=6")
    ours = psnr("srquant", "finetuning.epochs=6")
    assert plq + 0.1 < oaptq < ours


def test_craft_is_quantized_and_reopened(shared: Path, tmp_path: Path) -> None:
    """A network of spandrel's, nobody's in particular: opened, quantized, saved, reopened."""
    import torch

    model = load(shared / "models/craft_x4.pth")
    patches = Calibration.from_photographs(shared / "data/natural", 4, count=2, size=48)
    quantized = quantize(model, patches, configure("minmax", bits=8))
    assert quantized.record is not None
    assert 0.8 < quantized.record.coverage < 1
    images = patches.batch([0])
    again = load(quantized.save(tmp_path / "craft.safetensors"))
    assert torch.equal(again(images), quantized(images))
    error = (quantized(images) - model(images)).square().mean().sqrt()
    assert float(error) < 0.02
