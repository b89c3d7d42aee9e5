"""PTQ4SR against slow twins in the paper's notation: DBDC bin by bin, PaC layer by layer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from srquant import configure
from srquant.images import Calibration
from srquant.learning import state as states
from srquant.learning.comparison import Comparison
from srquant.learning.draws import Draws
from srquant.learning.losses import Outputs
from srquant.learning.order import alternating, alternating_apart, one_after_the_other
from srquant.learning.settings import LearningSettings
from srquant.methods import PTQ4SR
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from srquant.methods.ptq4sr import MapLoss
from srquant.model import Model
from srquant.model.swapping import quant_layers
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.quantizers.ranges import DensityClipping
from srquant.support.errors import ArgumentError

SHORT = LearningSettings(epochs=None, steps=8, batch=2, rate=5e-3, schedule="cosine", end=0.4)


@pytest.fixture
def tiny() -> Model:
    """A network small enough for a twin that is written out layer by layer."""
    torch.manual_seed(3)
    return Model(EDSR(EDSRConfig(scale=2, channels=6, blocks=1)).eval().requires_grad_(False), "tiny")


@pytest.fixture
def patches(low_images: Path) -> Calibration:
    return Calibration.from_low_resolution(low_images, count=5, size=16)


# Density-based dual clipping ------------------------------------------------------------------------------------------


def dbdc(x: Tensor, p: float, n: int = 2048) -> tuple[int, int]:
    """The lowest and the highest bin that are kept, by the paper's loop over the values themselves."""
    low, high = float(x.min()), float(x.max())
    edges = np.linspace(low, high, n + 1)
    h = np.array([((x.numpy() >= edges[i]) & (x.numpy() < edges[i + 1])).sum() for i in range(n)])
    h[-1] += (x.numpy() >= edges[-1]).sum()
    i, j = 0, n - 1
    while h[i : j + 1].sum() > (1 - p) * len(x):
        if h[i] < h[j]:
            i += 1
        else:
            j -= 1
    return i, j


@pytest.mark.parametrize("p", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("kind", ["normal", "heavy", "relu", "two far values"])
def test_density_clipping_is_the_loop_over_bins(kind: str, p: float) -> None:
    x = torch.randn(5000, dtype=torch.float64)
    x = {
        "normal": x,
        "heavy": x**3,
        "relu": x.relu(),
        "two far values": torch.cat((x, torch.tensor([900.0, -700.0], dtype=torch.float64))),
    }[kind]
    i, j = dbdc(x, p)
    low, high = float(x.min()), float(x.max())
    width = (high - low) / 2048
    for released in (False, True):
        found = DensityClipping(p, as_released=released)(x[None])
        # float32 counts, which the code uses, may put a value at an edge into the next bin
        assert float(found["lower"]) == pytest.approx(low + (i + released) * width, abs=1.01 * width)
        assert float(found["upper"]) == pytest.approx(low + (j + 1) * width, abs=1.01 * width)
    kept = float(((x >= found["lower"]) & (x <= found["upper"])).double().mean())
    assert kept < 1


def test_density_clipping_of_rows_is_that_of_each() -> None:
    rows = torch.randn(3, 4000) * torch.tensor([[1.0], [30.0], [1e-3]])
    together, alone = DensityClipping(1e-2)(rows), [DensityClipping(1e-2)(row[None]) for row in rows]
    for name, value in together.items():
        assert torch.equal(value, torch.cat([each[name] for each in alone]))


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_constant_keeps_its_value(value: float) -> None:
    found = DensityClipping()(torch.full((2, 10), value))
    assert found["lower"].tolist() == found["upper"].tolist() == [value, value]


def test_ranges_are_plain_means_over_batches(tiny: Model, low_images: Path) -> None:
    patches = Calibration.from_low_resolution(low_images, count=37, size=16)
    method = PTQ4SR(bits=4)
    observed = observe_ranges(make_plan(tiny, method), patches, method, method.range)
    seen: list[Tensor] = []
    handle = tiny.network.get_submodule("body.0.body.2").register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    for batch in patches.batches(16):
        tiny(batch)
    handle.remove()
    assert len(seen) == 3
    each = [DensityClipping(1e-4)(x.reshape(1, -1)) for x in seen]
    for name in ("lower", "upper"):
        mean = float(torch.stack([found[name][0] for found in each]).mean())
        assert float(observed["body.0.body.2", "left"][name]) == pytest.approx(mean, rel=1e-5)


def test_eight_bits_clip_a_tenth(tiny: Model) -> None:
    method = PTQ4SR()
    assert (method.range(4).tail, method.range(8).tail) == (1e-4, 1e-5)
    assert PTQ4SR(as_released=True).range(4).as_released


# Pixel-aware calibration ----------------------------------------------------------------------------------------------


def ste(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def uniform(x: Tensor, l: Tensor, u: Tensor, b: int) -> Tensor:
    n = 2**b - 1
    x = torch.where(x > u, u, torch.where(x < l, l, x))
    return ste((x - l) / (u - l) * n) / n * (u - l) + l


def twin(
    model: Model, start: dict[str, Tensor], counts: dict[str, int], patches: Calibration, steps: int, released: bool
) -> tuple[dict[str, Tensor], list[float]]:
    """PaC, half of the steps on activations and half on weights; for EDSR ×2 with one block."""
    network = model.network
    mean = network.get_buffer("mean").view(3, 1, 1)
    names = ("head.0", "body.0.body.0", "body.0.body.2", "body.1", "tail.0.0", "tail.1")
    bits = {name: 4 if name.startswith("body") else 8 for name in names}
    theta = {name: value.clone().requires_grad_() for name, value in start.items()}

    def forward(x: Tensor, quantized: bool) -> tuple[Tensor, Tensor]:
        def convolve(name: str, x: Tensor) -> Tensor:
            module = network.get_submodule(name)
            weight = module.weight
            if quantized:
                x = uniform(x, theta[f"{name}.left.lower"], theta[f"{name}.left.upper"], bits[name])
                l, u = (theta[f"{name}.right.{end}"].view(-1, 1, 1, 1) for end in ("lower", "upper"))
                weight = uniform(weight, l, u, bits[name])
            return F.conv2d(x, weight, module.bias, padding=1)

        x = convolve("head.0", x - mean)
        block = convolve("body.0.body.2", convolve("body.0.body.0", x).relu()) + x
        y = F.pixel_shuffle(convolve("tail.0.0", convolve("body.1", block) + x), 2)
        return convolve("tail.1", y) + mean, block

    def map_of(block: Tensor) -> Tensor:
        maps = [(sample**2).mean(0) for sample in block]
        return torch.stack([m / m.norm() for m in maps])

    half, losses = steps // 2, []
    for stage, rate in enumerate((5e-3, 5e-6)):
        side = (".left.", ".right.")[stage]
        own = [theta[name] for name in start if side in name]
        adam = torch.optim.Adam(own, rate)
        for k in range(half):
            for group in adam.param_groups:  # CosineAnnealingLR(T_max=half, eta_min=0.4 · rate)
                group["lr"] = 0.4 * rate + 0.6 * rate * (1 + math.cos(math.pi * k / half)) / 2
            step = stage * half + k
            first = step * 2
            order = [np.random.default_rng((0, turn)).permutation(len(patches)) for turn in range(steps)]
            drawn = [int(i) for i in np.concatenate(order)[first : first + 2]]
            images = patches.batch(drawn) * 255
            with torch.no_grad():
                teacher, block = forward(images, False)
            student, quantized = forward(images, True)
            fea = ((map_of(quantized) - map_of(block)) ** 2).mean()
            loss = (student / 255 - teacher / 255).abs().mean() + 5 * (fea.detach() if released else fea)
            adam.zero_grad()
            loss.backward()
            for name in start:
                if side in name:
                    b = bits[name.split(side)[0]]
                    theta[name].grad *= 1 / math.sqrt(counts[name] * (2 ** (b - 1) - 1))
            adam.step()
            losses.append(float(loss.detach()))
    return {name: value.detach() for name, value in theta.items()}, losses


def bounds_of(model: Model) -> dict[str, Tensor]:
    return {
        f"{name}.{side}.{key}": value.detach().clone()
        for name, layer in quant_layers(model.network).items()
        for side, quantizer in layer.quantizers().items()
        for key, value in quantizer.named_parameters()
    }


@pytest.mark.parametrize("released", [False, True])
def test_learning_is_pixel_aware_calibration(
    tiny: Model, patches: Calibration, released: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = PTQ4SR(bits=4, finetuning=SHORT, as_released=released)
    with monkeypatch.context() as patched:
        patched.setattr("srquant.methods.ptq4sr.finetune", lambda *_, **__: ())
        start = bounds_of(method.quantize(tiny, patches))
    counts: dict[str, int] = {}
    for name in make_plan(tiny, method).names:
        pixels = 5 * 16 * 16 * (4 if name == "tail.1" else 1)  # all five patches are one batch
        for end in ("lower", "upper"):
            counts[f"{name}.left.{end}"] = pixels * tiny.network.get_submodule(name).in_channels
            counts[f"{name}.right.{end}"] = tiny.network.get_submodule(name).weight.numel()
    expected, losses = twin(tiny, start, counts, patches, SHORT.steps or 0, released)
    after = method.quantize(tiny, patches)
    for name, value in bounds_of(after).items():
        moved = (expected[name] - start[name]).abs()
        assert bool((moved > 0).all()) or ".right." in name, name
        assert bool(((value - expected[name]).abs() <= 3e-6 * expected[name].abs() + 0.05 * moved).all()), name
    assert after.record is not None
    curve = after.record.curve
    assert [row["stage"] for row in curve] == ["activations"] * 4 + ["weights"] * 4
    assert [sum(row["losses"].values()) for row in curve] == pytest.approx(losses, rel=1e-3)


def test_gradients_of_the_loss_are_those_of_finite_differences() -> None:
    student, teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, 4, 5)
    images = torch.zeros(1, 3, 2, 2)
    loss = MapLoss(("body",))

    def value(features: Tensor) -> Tensor:
        return loss(Outputs(images, {"body": features}), Outputs(images, {"body": teacher}))["L_feature"]

    (gradient,) = torch.autograd.grad(value(student), student)
    for place in ((0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3)):
        nudge = torch.zeros_like(student)
        nudge[place] = 1e-1
        difference = (value(student.detach() + nudge) - value(student.detach() - nudge)) / 2e-1
        assert float(gradient[place]) == pytest.approx(float(difference), rel=0.05, abs=1e-5)
    released = MapLoss(("body",), learned=False)
    assert not released(Outputs(images, {"body": student}), Outputs(images, {"body": teacher}))[
        "L_feature"
    ].requires_grad


def test_orders() -> None:
    """Of two stages; what an epoch is, the draws say: here 10 of 2 patches are 5 steps."""
    draws = Draws(10, LearningSettings(epochs=4, batch=2))
    turns = {order: [order(step, draws, 2) for step in range(20)] for order in (alternating, alternating_apart)}
    for order, own in turns.items():
        assert [turn.stage for turn in own] == [0] * 5 + [1] * 5 + [0] * 5 + [1] * 5, order
    assert [turn.epoch for turn in turns[alternating]] == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    assert [turn.epoch for turn in turns[alternating_apart]] == [0] * 10 + [1] * 10
    assert [turn.done for turn in turns[alternating_apart]][5:15:5] == [0.0, 0.5]
    halves = [one_after_the_other(step, draws, 2) for step in range(20)]
    assert [turn.stage for turn in halves] == [0] * 10 + [1] * 10
    assert [turn.done for turn in halves] == pytest.approx([step / 10 for step in range(10)] * 2)
    odd = [one_after_the_other(step, Draws(10, LearningSettings(epochs=None, steps=7)), 2) for step in range(7)]
    assert [turn.stage for turn in odd] == [0, 0, 0, 0, 1, 1, 1]
    assert [turn.done for turn in odd][4:] == pytest.approx([0, 1 / 3, 2 / 3])


@pytest.mark.parametrize("killed_at", [2, 4, 7])
def test_a_killed_run_goes_on_to_the_same_bytes(
    tiny: Model, patches: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """In the first stage, where the second begins, and in it."""
    method, state = PTQ4SR(bits=4, finetuning=SHORT), tmp_path / "run.state"
    monkeypatch.setattr(states, "SAVE_EVERY", 0)
    straight = method.quantize(tiny, patches).save(tmp_path / "a.safetensors")
    gradients, steps = Comparison.gradients, 0

    def killed(self: Comparison, *arguments: Any) -> dict[str, float]:
        nonlocal steps
        if steps == killed_at:
            raise KeyboardInterrupt
        steps += 1
        return gradients(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Comparison, "gradients", killed)
        method.quantize(tiny, patches, state)
    assert state.exists()
    again = method.quantize(tiny, patches, state).save(tmp_path / "b.safetensors")
    assert again.read_bytes() == straight.read_bytes()


def test_patches_are_cut_to_the_papers_size(tiny: Model, low_images: Path) -> None:
    large = Calibration.from_low_resolution(low_images, count=3, size=32)
    method = configure("ptq4sr", 4, settings=["patch=16", "finetuning.steps=2"])
    record = method.quantize(tiny, large).record
    assert record is not None
    assert record.calibration.startswith("3 patches of 16x16")
    for bad in ("patch=8", "tail=0", "tail=0.6", "weight_rate=0", "observation.average=median"):
        with pytest.raises(ArgumentError):
            configure("ptq4sr", settings=[bad])
