"""DDTB beside a twin in the paper's notation."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import write_png
from tests.methods.trained_twins import Twin, clip, far, furthest, short, ste
from torch import Tensor

import srquant
from srquant.learning.photographs import Photographs
from srquant.learning.settings import TruthSettings
from srquant.methods import DDTB
from srquant.methods.pipeline.plan import make_plan
from srquant.methods.pipeline.variation import Variation
from srquant.model import Model
from srquant.model.swapping import quant_layers
from srquant.quantizers import GatedUniform, Uniform
from srquant.support.errors import ArgumentError

BITS = 3
STEPS = 2**BITS - 1
SETTINGS = TruthSettings(steps=8, epochs=8, batch=3, patch=16, decay_every=4)
METHOD = DDTB(bits=BITS, training=SETTINGS, gated=0.5, start="released")


@pytest.fixture
def photographs(tmp_path: Path) -> Photographs:
    for number in range(3):
        write_png(tmp_path / f"photos/{number}.png", 96, 80, number)
    return Photographs.of(tmp_path / "photos", 4, 16)


def rounded(x: Tensor, l: Tensor, u: Tensor) -> Tensor:
    """Between two bounds with a zero point, which is a whole number."""
    scale = short((u.clamp(min=0) - l.clamp(max=0)) / STEPS)
    zero = ste(-l.clamp(max=0) / scale)
    low, high = -zero * scale, (STEPS - zero) * scale
    return (ste(clip(x, low, high) / scale + zero) - zero) * scale


def rounded_weight(_name: str, w: Tensor) -> Tensor:
    l, u = torch.quantile(w.detach().flatten(), torch.tensor([0.01, 0.99]))
    return rounded(w, l, u)


def two_bits(row: Tensor) -> Tensor:
    low, unit = row.min().detach(), (row.max() - row.min()).detach().clamp(min=3e-12) / 3
    return ste((row - low) / unit) * unit + low


def gated(x: Tensor, l: Tensor, u: Tensor, gate: dict[str, Tensor]) -> Tensor:
    """Image after image."""
    images: list[Tensor] = []
    for image in x:
        seen = two_bits(image.flatten(1).mean(1))
        hidden = ste(gate["squeeze"].clamp(-1, 1)) @ seen * gate["scale"] + gate["offset"]
        logits = gate["excite"] @ two_bits(hidden.relu())
        images.append(rounded(image, l * 2 * torch.sigmoid(logits[0]), u * 2 * torch.sigmoid(logits[1])))
    return torch.stack(images)


def attention(features: Tensor) -> Tensor:
    return F.normalize(features.pow(2).mean(1).view(len(features), -1))


def start(edsr: Model, photographs: Photographs, method: DDTB = METHOD) -> dict[str, dict[str, Tensor]]:
    plan = make_plan(edsr, method)
    found = Variation.of(plan, method.patches_of(photographs), 16, method.quantile)
    return {name: bounds for (name, _), bounds in method.first_bounds(plan, found).items()}


def test_a_run_is_that_of_the_paper(edsr: Model, photographs: Photographs) -> None:
    begin = {
        name: {key: value.clone().requires_grad_() for key, value in bounds.items()}
        for name, bounds in start(edsr, photographs).items()
    }
    assert all(
        (float(bounds["lower"]), float(bounds["upper"])) == (-10, 10) for bounds in start(edsr, photographs).values()
    )
    gates = [name for name, bounds in begin.items() if "excite" in bounds]
    assert len(gates) == 2
    epoch = 0

    def activation(name: str, x: Tensor) -> Tensor:
        own = begin[name]
        if name in gates and epoch >= 5:
            return gated(x, own["lower"], own["upper"], own)
        return rounded(x, own["lower"], own["upper"])

    twin = Twin(edsr, activation, rounded_weight)

    def step(number: int, low: Tensor, high: Tensor) -> None:
        nonlocal epoch
        epoch = number
        seen: list[Tensor] = []
        handles = [
            network.get_submodule("tail.0.0").register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
            for network in (twin.network, twin.teacher)
        ]
        image = twin.network(low)
        with torch.no_grad():
            twin.teacher(low)
        for handle in handles:
            handle.remove()
        maps = attention(seen[0]) - attention(seen[1])
        (F.l1_loss(image, high) + 1000 * maps.pow(2).mean()).backward()

    bounds = [own[key] for own in begin.values() for key in ("lower", "upper")]
    inside = [value for name in gates for key, value in begin[name].items() if key not in ("lower", "upper")]
    twin.learn(photographs, SETTINGS, [(bounds, 100.0), (inside, 1.0)], step)
    model = METHOD.quantize(edsr, photographs)
    layers = quant_layers(model.network)
    for key in ("lower", "upper"):
        found = {name: getattr(layer.left, key) for name, layer in layers.items()}
        assert furthest({name: own[key] for name, own in begin.items()}, found) < 1e-4
    for name in gates:
        left = layers[name].left
        assert isinstance(left, GatedUniform)
        assert bool(left.excite.any()), "gates are learned"
        for key in ("squeeze", "scale", "offset", "excite"):
            torch.testing.assert_close(getattr(left, key).detach(), begin[name][key].detach(), rtol=1e-3, atol=2e-5)
    assert far(twin, model, rounded_weight) < 1e-3
    assert model.record is not None
    assert [row["stage"] for row in model.record.curve] == ["bounds"] * 5 + ["gates"] * 3


def test_gates_are_where_ranges_vary_most(edsr: Model, photographs: Photographs) -> None:
    seen: dict[str, list[tuple[float, float]]] = {}
    for batch in METHOD.patches_of(photographs).batches(16):
        handles = [
            edsr.network.get_submodule(name).register_forward_pre_hook(
                lambda _module, given, name=name: seen.setdefault(name, []).append(
                    (float(given[0].min()), float(given[0].max()))
                )
            )
            for name in (f"body.{i}.body.{j}" for i in range(2) for j in (0, 2))
        ]
        edsr.network(batch * 255)
        for handle in handles:
            handle.remove()
    variances = {
        name: sum(statistics.pvariance(ends) for ends in zip(*rows, strict=True)) for name, rows in seen.items()
    }
    assert len(next(iter(seen.values()))) == 16
    most = sorted(variances, key=lambda name: variances[name])[2:]
    assert {name for name, bounds in start(edsr, photographs).items() if "excite" in bounds} == set(most)


@pytest.mark.parametrize("fields", [{"bits": 2}, {"start": "percentiles"}])
def test_bounds_start_at_percentiles(edsr: Model, photographs: Photographs, fields: dict[str, Any]) -> None:
    method = replace(METHOD, gated=0, **fields)
    first = next(iter(method.patches_of(photographs).batches(16)))
    given: list[Tensor] = []
    handle = edsr.network.get_submodule("body.0.body.2").register_forward_pre_hook(lambda _, x: given.append(x[0]))
    edsr.network(first * 255)
    handle.remove()
    expected = torch.quantile(given[0].flatten(), torch.tensor([0.01, 0.99]))
    found = start(edsr, photographs, method)["body.0.body.2"]
    torch.testing.assert_close(torch.stack((found["lower"], found["upper"])), expected)


def test_a_model_without_gates_is_exported_and_one_with_them_refused(
    edsr: Model, photographs: Photographs, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ArgumentError, match="has a gated_uniform quantizer, whose levels follow each image"):
        srquant.export(METHOD.quantize(edsr, photographs), tmp_path / "m.onnx")
    model = replace(METHOD, gated=0).quantize(edsr, photographs)
    assert all(
        isinstance(layer.left, Uniform) and not layer.left.gridless for layer in quant_layers(model.network).values()
    )
    srquant.export(model, tmp_path / "m.onnx", engine="onnxruntime", threads=1)
    opened = srquant.open_exported(tmp_path / "m.onnx", "onnxruntime", 1)
    images = torch.rand(1, 3, 24, 24)
    assert float((opened(images) - model(images)).square().mean() / model(images).var()) < 1e-2


# The quantizer --------------------------------------------------------------------------------------------------------


def made(bits: int, channels: int = 5) -> tuple[GatedUniform, dict[str, Tensor]]:
    gate = {
        "squeeze": torch.randn(32, channels),
        "scale": 0.5 + torch.rand(32),
        "offset": torch.randn(32),
        "excite": 0.05 * torch.randn(2, 32),
    }
    return GatedUniform(bits, torch.tensor(-1.2), torch.tensor(1.7), **gate), gate


def test_values_and_gradients_are_those_of_the_twin() -> None:
    quantizer, gate = made(BITS)
    own = {name: value.clone().requires_grad_() for name, value in gate.items()}
    lower, upper = (torch.tensor(value, requires_grad=True) for value in (-1.2, 1.7))
    x, pull = torch.randn(4, 5, 6, 7), torch.randn(4, 5, 6, 7)
    expected = gated(x, lower, upper, own)
    found = quantizer(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    (found * pull).sum().backward()
    (expected * pull).sum().backward()
    for name, value in {**own, "lower": lower, "upper": upper}.items():
        torch.testing.assert_close(quantizer.get_parameter(name).grad, value.grad, rtol=1e-3, atol=1e-4)
    assert len({tuple(image.unique().tolist()) for image in found.detach()}) == 4, "each image has levels of its own"
    assert max(len(image.unique()) for image in found) <= 2**BITS


def test_the_logits_have_the_gradients_of_finite_differences() -> None:
    quantizer, _ = made(BITS)
    quantizer.double()
    x = torch.randn(3, 5, 6, 7)
    logits = quantizer.gate(x.double())
    pull = torch.randn(3, 2, dtype=torch.float64)
    (logits * pull).sum().backward()
    assert quantizer.excite.grad is not None
    for row, column in ((0, 3), (1, 17), (1, 31)):
        sums: list[float] = []
        for change in (1e-5, -1e-5):
            with torch.no_grad():
                quantizer.excite[row, column] += change
                sums.append(float((quantizer.gate(x.double()) * pull).sum()))
                quantizer.excite[row, column] -= change
        assert float(quantizer.excite.grad[row, column]) == pytest.approx(
            (sums[0] - sums[1]) / 2e-5, rel=1e-4, abs=1e-8
        )


def test_a_gate_of_zeros_changes_nothing() -> None:
    quantizer, gate = made(4)
    still = GatedUniform(4, quantizer.lower, quantizer.upper, **{**gate, "excite": torch.zeros(2, 32)})
    x = torch.randn(3, 5, 6, 7)
    plain = Uniform(4, quantizer.lower, quantizer.upper, "int8")
    torch.testing.assert_close(still(x), plain(x))
