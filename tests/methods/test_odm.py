"""ODM beside a twin in the paper's notation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import write_png
from tests.methods.trained_twins import Twin, clip, far, furthest, ste
from torch import Tensor

from srquant.learning.photographs import Photographs
from srquant.learning.settings import TruthSettings
from srquant.learning.truth_losses import agreeing
from srquant.methods import ODM
from srquant.model import Model
from srquant.model.swapping import quant_layers

BITS = 3
STEPS = 2**BITS - 1
SETTINGS = TruthSettings(steps=6, epochs=3, batch=3, patch=16, decay_every=1)
LAMBDA = 0.01
"""Larger than the paper's, so that a run of six steps feels it."""


@pytest.fixture
def photographs(tmp_path: Path) -> Photographs:
    for number in range(3):
        write_png(tmp_path / f"photos/{number}.png", 96, 80, number)
    return Photographs.of(tmp_path / "photos", 4, 16)


def percentiles(edsr: Model, photographs: Photographs) -> dict[str, tuple[float, float]]:
    """The means over batches of eight of the 1st and the 99th percentile of what goes into each convolution."""
    names = [f"body.{i}.body.{j}" for i in range(2) for j in (0, 2)]
    patches = ODM(training=SETTINGS).patches_of(photographs)
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for batch in patches.batches(8):
        handles = [
            edsr.network.get_submodule(name).register_forward_pre_hook(
                lambda _module, given, name=name: found[name].append(
                    torch.quantile(given[0].flatten(), torch.tensor([0.01, 0.99]))
                )
            )
            for name in names
        ]
        edsr.network(batch * 255)
        for handle in handles:
            handle.remove()
    return {name: tuple(torch.stack(rows).mean(0).tolist()) for name, rows in found.items()}  # type: ignore[misc]


def test_a_run_is_that_of_the_paper(edsr: Model, photographs: Photographs) -> None:
    starts = percentiles(edsr, photographs)
    lower = {name: torch.tensor(low, requires_grad=True) for name, (low, _) in starts.items()}
    upper = {name: torch.tensor(high, requires_grad=True) for name, (_, high) in starts.items()}
    gamma = {name: torch.tensor(1.0, requires_grad=True) for name in starts}
    rounded: dict[str, Tensor] = {}

    def activation(name: str, x: Tensor) -> Tensor:
        l, u = lower[name], upper[name]
        scale = (u - l) / STEPS
        rounded[name] = ste((clip(x, l, u) - l) / scale) * scale + l
        return rounded[name]

    def weight(name: str, w: Tensor) -> Tensor:
        u = torch.quantile(w.detach().abs().flatten(), 0.99) * gamma[name.removesuffix(".weight")]
        scale = 2 * u / STEPS
        return ste((clip(w, -u, u) + u) / scale) * scale - u

    twin = Twin(edsr, activation, weight)
    learned = [*twin.network.parameters(), *lower.values(), *upper.values(), *gamma.values()]

    def step(_number: int, low: Tensor, high: Tensor) -> None:
        loss = F.l1_loss(twin.network(low), high)
        mismatch = torch.stack(
            [
                torch.stack([(a - b).norm() for a, b in zip(x, rounded[name], strict=True)]).mean()
                for name, x in twin.inputs.items()
            ]
        ).sum()
        first, second = (
            torch.autograd.grad(value, learned, retain_graph=True, materialize_grads=True, allow_unused=True)
            for value in (loss, mismatch)
        )
        cosine = F.cosine_similarity(*(torch.cat([g.flatten() for g in grads]) for grads in (first, second)), dim=0)
        for parameter, a, b in zip(learned, first, second, strict=True):
            parameter.grad = a + LAMBDA * (cosine + 1) / 2 * b

    twin.learn(photographs, SETTINGS, [((*lower.values(), *upper.values()), 10.0), (gamma.values(), 1.0)], step)
    model = ODM(bits=BITS, mismatch=LAMBDA, training=SETTINGS).quantize(edsr, photographs)
    layers = quant_layers(model.network)
    assert furthest(upper, {name: layer.left.upper for name, layer in layers.items()}) < 1e-4  # type: ignore[misc]
    for name, layer in layers.items():
        assert float(layer.left.lower) == pytest.approx(lower[name].item(), abs=1e-3)  # type: ignore[arg-type]
        learnt = layer.right.quantizer.bound / torch.quantile(  # type: ignore[union-attr]
            twin.network.get_submodule(name).weight.abs().flatten(), 0.99
        )
        assert learnt.item() == pytest.approx(gamma[name].item(), rel=1e-4)
    assert far(twin, model, weight) < 1e-4


def test_gradients_are_joined_as_far_as_they_agree() -> None:
    first = [torch.tensor([3.0, 0.0]), torch.tensor([0.0])]
    same = [torch.tensor([1.0, 0.0]), torch.tensor([0.0])]
    across = [torch.tensor([0.0, 1.0]), torch.tensor([0.0])]
    for second, part in ((same, 1.0), (across, 0.5), ([-value for value in same], 0.0)):
        found = agreeing({"pixels": first, "mismatch": second})
        for a, b, joined in zip(first, second, found, strict=True):
            torch.testing.assert_close(joined, a + part * b)
    nothing = [torch.zeros(2), torch.zeros(1)]
    assert all(torch.equal(a, b) for a, b in zip(first, agreeing({"a": first, "b": nothing}), strict=True))


def test_each_ablation_of_the_paper_can_be_had(edsr: Model, photographs: Photographs) -> None:
    whole = ODM(bits=2, training=SETTINGS).quantize(edsr, photographs)
    still = ODM(bits=2, training=SETTINGS, factor_rate=0, mismatch=0).quantize(edsr, photographs)
    assert whole.record is not None
    assert still.record is not None
    assert still.record.curve[0]["losses"]["mismatch"] == 0
    assert whole.record.curve[0]["losses"]["mismatch"] > 0
