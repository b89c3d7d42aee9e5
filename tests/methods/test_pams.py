"""PAMS beside a twin in the paper's notation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import write_png
from tests.methods.trained_twins import Twin, clip, far, furthest, short, ste
from torch import Tensor

from srquant.learning.photographs import Photographs
from srquant.learning.settings import TruthSettings
from srquant.methods import PAMS
from srquant.model import Model
from srquant.model.swapping import quant_layers

BITS = 3
Q = 2 ** (BITS - 1) - 1
SETTINGS = TruthSettings(steps=6, epochs=3, batch=3, patch=16, decay_every=2)


@pytest.fixture
def photographs(tmp_path: Path) -> Photographs:
    for number in range(3):
        write_png(tmp_path / f"photos/{number}.png", 96, 80, number)
    return Photographs.of(tmp_path / "photos", 4, 16)


def rounded_weight(_name: str, w: Tensor) -> Tensor:
    """Eq. 2 with the largest magnitude, through which no gradient goes."""
    scale = short(w.detach().abs().max() * (1 + 2**-15) / Q)
    return ste(w / scale) * scale


def attention(features: Tensor) -> Tensor:
    return F.normalize(features.pow(2).mean(1).view(len(features), -1))


def test_a_run_is_that_of_the_paper(edsr: Model, photographs: Photographs) -> None:
    alpha = {f"body.{i}.body.{j}": torch.tensor(10.0, requires_grad=True) for i in range(2) for j in (0, 2)}
    epoch = 0

    def rounded(name: str, x: Tensor) -> Tensor:
        a = alpha[name]
        if epoch == 0:
            a.data = torch.stack([image.abs().max() for image in x.detach()]).mean()
            scale = short(a.detach() / Q)
            return ste(x / scale) * scale
        scale = short(a / Q)
        return ste(clip(x, -scale * Q, scale * Q) / scale) * scale

    twin = Twin(edsr, rounded, rounded_weight)

    def step(number: int, low: Tensor, high: Tensor) -> None:
        nonlocal epoch
        epoch = number
        seen: dict[str, Tensor] = {}
        for name, network in (("student", twin.network), ("teacher", twin.teacher)):
            with torch.set_grad_enabled(name == "student"):
                handle = network.get_submodule("tail.0.0").register_forward_pre_hook(
                    lambda _module, given, name=name: seen.update({name: given[0]})
                )
                output = network(low)
                handle.remove()
            if name == "student":
                image = output
        maps = attention(seen["student"]) - attention(seen["teacher"])
        (F.l1_loss(image, high) + 1000 * maps.pow(2).mean()).backward()
        if epoch == 0:
            for a in alpha.values():
                a.grad = None

    twin.learn(photographs, SETTINGS, [(alpha.values(), 100.0)], step)
    model = PAMS(bits=BITS, training=SETTINGS).quantize(edsr, photographs)
    found = {name: layer.left.bound for name, layer in quant_layers(model.network).items()}  # type: ignore[misc]
    assert furthest(alpha, found) < 1e-5
    assert far(twin, model, rounded_weight) < 1e-5
    assert model.record is not None
    assert [row["stage"] for row in model.record.curve] == ["following", "all", "all"]


def test_there_are_two_to_the_bits_less_one_levels_and_zero_is_one(edsr: Model, photographs: Photographs) -> None:
    model = PAMS(bits=BITS, training=SETTINGS).quantize(edsr, photographs)
    for layer in quant_layers(model.network).values():
        for quantizer in layer.quantizers().values():
            levels = quantizer.levels()
            assert len(levels) == 2**BITS - 1
            assert float(levels[Q]) == 0
            assert torch.allclose(levels, -levels.flip(0))
