"""OAPTQ against a slow twin in the paper's notation: equations 4 to 7 and algorithm 1."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.conftest import run_in_two_processes, small_networks, write_png
from torch import Tensor

from srquant import configure
from srquant.images import Calibration
from srquant.learning import finetuning
from srquant.learning import state as states
from srquant.learning.comparison import Comparison
from srquant.learning.feature_distance import normalised_distance
from srquant.learning.sensitivity import sensitivities
from srquant.learning.settings import LearningSettings
from srquant.methods import OAPTQ, PLQ
from srquant.methods.base import ObservationSettings
from srquant.methods.pipeline.output_sizes import OutputSizes
from srquant.model import Model, load
from srquant.model.swapping import quant_layers
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.quantizers import PiecewiseLinear, Uniform
from srquant.support.errors import ArgumentError, FinetuningError

SHORT = LearningSettings(epochs=3, rate=1e-2)


@pytest.fixture
def tiny() -> Model:
    """A network small enough for a twin that is written out layer by layer."""
    torch.manual_seed(3)
    network = EDSR(EDSRConfig(scale=2, channels=6, blocks=1)).eval().requires_grad_(False)
    return Model(network, "tiny")


@pytest.fixture
def patches(low_images: Path) -> Calibration:
    return Calibration.from_low_resolution(low_images, count=5, size=16)


def bounds_of(model: Model) -> dict[str, Tensor]:
    return {
        f"{name}.{side}.{key}": value.detach().clone()
        for name, layer in quant_layers(model.network).items()
        for side, quantizer in (("left", layer.left), ("right", layer.right.quantizer))
        for key, value in quantizer.named_parameters()
    }


# Equations ------------------------------------------------------------------------------------------------------------


def test_equation_4() -> None:
    """σ_k is the mean over images of the standard deviation over C, H, W; s = σ / Σσ, or a softmax."""
    first, second = torch.randn(5, 3, 4, 6) * 3 + 2, torch.randn(5, 3, 4, 6)
    sizes = OutputSizes()
    for batch in (slice(0, 2), slice(2, 5)):
        sizes("a", first[batch])
        sizes("b", second[batch])
    sigma = torch.stack([torch.stack([image.std(correction=0) for image in f]).mean() for f in (first, second)])
    assert list(sizes.deviations().values()) == pytest.approx(sigma.tolist(), rel=1e-5)
    for kind, expected in (
        ("proportional", sigma / sigma.sum()),
        ("normalised", (sigma / sigma.mean()).softmax(0)),
        ("raw", sigma.softmax(0)),
        ("uniform", torch.full((2,), 0.5)),
    ):
        found = sensitivities(sizes.deviations(), kind)
        assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-5)


def test_raw_sensitivities_do_not_overflow() -> None:
    assert sensitivities({"a": 2000.0, "b": 1.0}, "raw") == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 7, 5), (1, 2)])
def test_the_distance_of_equation_6_and_its_gradient(shape: tuple[int, ...]) -> None:
    student = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(shape, dtype=torch.float64)

    def plain(f: Tensor) -> Tensor:
        norms = [x / x.square().sum().sqrt() for x in f]
        both = zip(norms, teacher, strict=True)
        return torch.stack([(x - y / y.square().sum().sqrt()).square().sum().sqrt() for x, y in both])

    weights = torch.rand(shape[0], dtype=torch.float64)
    torch.testing.assert_close(normalised_distance(student, teacher), plain(student))
    (found,) = torch.autograd.grad((normalised_distance(student, teacher) * weights).sum(), student)
    (expected,) = torch.autograd.grad((plain(student) * weights).sum(), student)
    torch.testing.assert_close(found, expected)


def test_the_distance_of_equal_and_of_zero_features_has_no_nan() -> None:
    for student, teacher in ((torch.ones(1, 3), torch.ones(1, 3)), (torch.zeros(1, 3), torch.ones(1, 3))):
        student = student.requires_grad_()
        distance = normalised_distance(student, teacher)
        distance.sum().backward()
        assert bool(distance.isfinite().all())
        assert student.grad is not None
        assert bool(student.grad.isfinite().all())


# Algorithm 1 ----------------------------------------------------------------------------------------------------------


def ste(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def dense_and_outliers(x: Tensor, l: Tensor, u: Tensor, bp: Tensor, b: int, sides: str) -> Tensor:
    """Eq. 3, distinct form, region by region; an empty side gives its codes to the other."""
    low = {"both": -bp, "upper": l, "lower": -bp, "none": l}[sides]
    high = {"both": bp, "upper": bp, "lower": u, "none": u}[sides]
    n = 2**b - 1 if sides == "none" else 2 ** (b - 1) - 1
    m = 2 ** (b - 2) if sides == "both" else 2 ** (b - 1)
    dense = ste((x - low) / (high - low) * n) / n * (high - low) + low
    above = bp + ste((x - bp) / (u - bp) * m) * (u - bp) / m
    below = -bp - ste((-bp - x) / (-bp - l) * m) * (-bp - l) / m
    result = torch.where(x > high, above, torch.where(x < low, below, dense))
    return torch.where(x > u, u, torch.where(x < l, l, result))


def symmetric(w: Tensor, u_w: Tensor, b: int) -> Tensor:
    n = 2**b - 1
    w = torch.where(w > u_w, u_w, torch.where(w < -u_w, -u_w, w))
    return ste((w + u_w) / (2 * u_w) * n) / n * 2 * u_w - u_w


def twin(
    model: Model,
    start: dict[str, Tensor],
    sides: dict[str, str],
    patches: Calibration,
    epochs: int,
    bits: dict[str, int],
    relative: bool,
) -> tuple[dict[str, Tensor], list[float]]:
    """Finetuning as algorithm 1 prints it, on θ = θ₀ + δ or θ = θ₀·exp(δ); for EDSR ×2 with one block."""
    network, names = model.network, list(sides)
    mean = network.get_buffer("mean").view(3, 1, 1)
    delta = {name: torch.zeros((), requires_grad=True) for name in start}
    kinds = {
        1: [name for name in start if ".right." in name],
        2: [name for name in start if name.endswith(("left.lower", "left.upper"))],
        0: [name for name in start if name.endswith("breakpoint") and sides[name.split(".left")[0]] != "none"],
    }
    adams = {kind: torch.optim.Adam([delta[name] for name in members], 1e-2) for kind, members in kinds.items()}
    losses: list[float] = []
    inputs: dict[str, Tensor] = {}

    def bound(name: str) -> Tensor:
        return start[name] * delta[name].exp() if relative else start[name] + delta[name]

    def forward(x: Tensor, quantized: bool) -> tuple[Tensor, dict[str, Tensor]]:
        features: dict[str, Tensor] = {}
        theta = {name: bound(name) for name in start}

        def convolve(name: str, x: Tensor) -> Tensor:
            module = network.get_submodule(name)
            weight = module.weight
            inputs[name] = x
            if quantized:
                l, u, bp = (theta[f"{name}.left.{key}"] for key in ("lower", "upper", "breakpoint"))
                x = dense_and_outliers(x, l, u, bp, bits[name], sides[name])
                weight = symmetric(weight, theta[f"{name}.right.bound"], bits[name])
            features[name] = F.conv2d(x, weight, module.bias, padding=1)
            return features[name]

        x = convolve("head.0", x - mean)
        y = convolve("body.0.body.2", convolve("body.0.body.0", x).relu()) + x
        y = convolve("body.1", y) + x
        y = F.pixel_shuffle(convolve("tail.0.0", y), 2)
        return convolve("tail.1", y) + mean, features

    with torch.no_grad():
        seen = [forward(patches.batch([i]) * 255, False) and dict(inputs) for i in range(len(patches))]
        sigma = torch.stack([torch.stack([x[name].std(correction=0) for x in seen]).mean() for name in names])
        s = sigma / sigma.sum()
    for e in range(1, epochs + 1):
        order = np.random.default_rng((0, e - 1)).permutation(len(patches))
        for first in range(0, len(patches), 2):
            images = patches.batch([int(i) for i in order[first : first + 2]])
            with torch.no_grad():
                teacher, F_k = forward(images * 255, False)
            student, F_hat = forward(images * 255, True)
            L_rec = (student / 255 - teacher / 255).abs().mean()
            L_sen = torch.zeros(())
            for k, name in enumerate(names):
                for a, b in zip(F_hat[name], F_k[name], strict=True):
                    L_sen = L_sen + s[k] * (a / a.norm() - b / b.norm()).norm() / len(images) / len(names)
            loss = L_sen + 5 * L_rec
            adam = adams[e % 3]
            for group in adam.param_groups:
                group["lr"] = 1e-2 * 0.9 ** (e - 1)
            for value in delta.values():
                value.grad = None
            loss.backward()
            adam.step()
            losses.append(float(loss.detach()))
            with torch.no_grad():
                for name in kinds[1]:  # u_w begins at the largest magnitude, and stays below it
                    delta[name].clamp_(max=0)
    return {name: bound(name).detach() for name in start}, losses


@pytest.mark.parametrize(
    ("epochs", "learning"),
    [(1, "absolute"), (1, "relative"), (2, "absolute"), (3, "absolute"), (4, "absolute"), (4, "relative")],
)
def test_finetuning_is_algorithm_1(tiny: Model, patches: Calibration, epochs: int, learning: Any) -> None:
    before = PLQ(bits=4).quantize(tiny, patches)
    start = bounds_of(before)
    sides = {name: layer.left.sides for name, layer in quant_layers(before.network).items()}
    assert {"both", "upper"} <= set(sides.values())
    bits = {name: layer.left.bits for name, layer in quant_layers(before.network).items()}
    expected, losses = twin(tiny, start, sides, patches, epochs, bits, learning == "relative")
    settings = LearningSettings(epochs=epochs, rate=1e-2)
    after = OAPTQ(bits=4, learning=learning, finetuning=settings).quantize(tiny, patches)
    for name, value in bounds_of(after).items():
        moved = float((expected[name] / start[name] - 1).abs())
        assert float(value) == pytest.approx(float(expected[name]), rel=2e-5 + 0.05 * moved), name
    assert after.record is not None
    stages = ["weights", "ranges", "breakpoints"]
    assert [row["stage"] for row in after.record.curve] == [stages[e % 3] for e in range(epochs)]
    mine = [row["losses"]["L_sen"] + row["losses"]["L_rec"] for row in after.record.curve]
    per_epoch = [sum(losses[3 * e : 3 * e + 3]) / 3 for e in range(epochs)]
    assert mine == pytest.approx(per_epoch, rel=1e-3)


@pytest.mark.parametrize(("stage", "moving"), [(1, ("right.bound",)), (2, ("lower", "upper")), (3, ("breakpoint",))])
def test_an_epoch_moves_one_kind_of_bound(tiny: Model, patches: Calibration, stage: int, moving: tuple[str]) -> None:
    rates = LearningSettings(epochs=stage)
    earlier = PLQ(bits=4) if stage == 1 else OAPTQ(bits=4, finetuning=replace(rates, epochs=stage - 1))
    before, after = (bounds_of(m.quantize(tiny, patches)) for m in (earlier, OAPTQ(bits=4, finetuning=rates)))
    for name, value in after.items():
        assert torch.equal(value, before[name]) or name.endswith(moving), name
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


def test_absolute_steps_are_those_of_images_in_255(patches: Calibration) -> None:
    """A network in [0, 1] of the same weights has bounds of activations, and steps, of a 255th."""
    torch.manual_seed(3)
    wide = EDSR(EDSRConfig(scale=2, channels=6, blocks=1)).eval()
    narrow = EDSR(EDSRConfig(scale=2, channels=6, blocks=1, value_range=1.0)).eval()
    state = {key: value if key.endswith("weight") else value / 255 for key, value in wide.state_dict().items()}
    narrow.load_state_dict(state)
    first, second = (bounds_of(OAPTQ(finetuning=SHORT).quantize(Model(net, "x"), patches)) for net in (wide, narrow))
    start = bounds_of(PLQ().quantize(Model(wide, "x"), patches))
    for name, value in first.items():
        factor = 1 if ".right." in name else 255
        step = 1e-2 * 3  # of three patches in an epoch
        assert abs(float(value - factor * second[name])) < 0.2 * step, name
        assert abs(float(value - start[name])) < 1.1 * step, name


def test_a_weight_s_bound_stays_within_the_weight(tiny: Model, patches: Calibration) -> None:
    wild = LearningSettings(epochs=4, rate=1.0)
    for name, layer in quant_layers(OAPTQ(bits=4, finetuning=wild).quantize(tiny, patches).network).items():
        largest = tiny.network.get_submodule(name).weight.abs().max()
        assert float(layer.right.quantizer.bound) <= float(largest) * (1 + 1e-6), name


@pytest.mark.parametrize("of", ["input", "output"])
def test_sensitivities_are_of_inputs_or_outputs(tiny: Model, patches: Calibration, of: Any, monkeypatch) -> None:
    seen: list[dict[str, float]] = []
    monkeypatch.setattr("srquant.methods.oaptq.sensitivities", lambda spread, kind: seen.append(spread) or spread)
    OAPTQ(sensitivity_of=of, finetuning=replace(SHORT, epochs=1)).quantize(tiny, patches)
    module, found = tiny.network.get_submodule("body.1"), []
    hook = module.register_forward_hook(lambda _, x, y: found.append(x[0] if of == "input" else y))
    tiny(patches.batch(range(5)))
    hook.remove()
    sigma = float(torch.stack([image.std(correction=0) for image in found[0]]).mean())
    assert seen[0]["body.1"] == pytest.approx(sigma, rel=1e-4)


def test_finetuning_comes_closer_to_the_teacher(tiny: Model, patches: Calibration) -> None:
    images = patches.batch(range(5))
    expected = tiny(images)

    def error(method: PLQ) -> float:
        return float((method.quantize(tiny, patches)(images) - expected).abs().mean())

    many = LearningSettings(epochs=60, rate=0.005, decay=0.97)
    assert error(OAPTQ(bits=3, finetuning=many)) < 0.9 * error(PLQ(bits=3))


def test_without_plq_it_finetunes_minmax(tiny: Model, patches: Calibration) -> None:
    model = OAPTQ(bits=4, quantizer="uniform", finetuning=SHORT).quantize(tiny, patches)
    assert all(isinstance(layer.left, Uniform) for layer in quant_layers(model.network).values())
    assert model.record is not None
    assert [row["stage"] for row in model.record.curve] == ["weights", "ranges", "weights"]


def test_bounds_stay_in_order_whatever_the_rate(tiny: Model, patches: Calibration) -> None:
    wild = LearningSettings(epochs=6, rate=0.8)
    model = OAPTQ(bits=4, finetuning=wild).quantize(tiny, patches)
    for layer in quant_layers(model.network).values():
        quantizer = layer.left
        assert isinstance(quantizer, PiecewiseLinear)
        l, u, bp = (float(x) for x in (quantizer.lower, quantizer.upper, quantizer.breakpoint))
        assert l < u
        assert 0 < bp < max(abs(l), u)
        if quantizer.sides in ("upper", "lower"):
            assert l < bp < u if quantizer.sides == "upper" else l < -bp < u
        assert bool((quantizer.levels().diff() >= 0).all())
    assert bool(model(patches.batch([0])).isfinite().all())


# Interruptions, broken losses, several processes ----------------------------------------------------------------------


@pytest.mark.parametrize("killed_at", [1, 4, 8])
def test_a_killed_run_goes_on_to_the_same_bytes(
    tiny: Model, patches: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    method, state = OAPTQ(bits=4, finetuning=SHORT), tmp_path / "run.state"
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
    assert state.exists() == (killed_at >= 2)
    again = method.quantize(tiny, patches, state).save(tmp_path / "b.safetensors")
    assert again.read_bytes() == straight.read_bytes()


@pytest.fixture
def kept(tiny: Model, patches: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of a run of :data:`SHORT`, at its last step."""
    monkeypatch.setattr(states, "SAVE_EVERY", 0)
    OAPTQ(bits=4, finetuning=SHORT).quantize(tiny, patches, tmp_path / "run.state")
    return tmp_path / "run.state"


def refused(other: str) -> pytest.RaisesExc[FinetuningError]:
    return pytest.raises(
        FinetuningError, match=rf"an unfinished run of oaptq on tiny \(step 8 of 9\), with another {other}"
    )


@pytest.mark.parametrize(
    "other",
    [
        OAPTQ(bits=4, finetuning=replace(SHORT, rate=0.5)),
        OAPTQ(bits=3, finetuning=SHORT),
        OAPTQ(bits=4, finetuning=SHORT, sensitivity="uniform"),
        OAPTQ(bits=4, finetuning=SHORT, learning="relative"),
        OAPTQ(bits=4, finetuning=SHORT, edges="none"),
        OAPTQ(bits=4, finetuning=SHORT, quantile=0.98),
        OAPTQ(bits=4, finetuning=SHORT, observation=ObservationSettings(ema_decay=0.5)),
    ],
)
def test_a_state_of_another_configuration_is_refused(
    tiny: Model, patches: Calibration, kept: Path, other: OAPTQ
) -> None:
    with refused("configuration of the method"):
        other.quantize(tiny, patches, kept)


def test_a_state_of_another_network_is_refused(tiny: Model, patches: Calibration, kept: Path) -> None:
    with pytest.raises(FinetuningError, match=r"of oaptq on tiny .* not of oaptq on other"):
        OAPTQ(bits=4, finetuning=SHORT).quantize(Model(tiny.network, "other"), patches, kept)
    with torch.no_grad():
        tiny.network.get_submodule("tail.1").weight[0, 0, 0, 0] += 1e-3
    with refused("float network"):
        OAPTQ(bits=4, finetuning=SHORT).quantize(tiny, patches, kept)


def test_a_state_of_other_pictures_is_refused(tiny: Model, tmp_path: Path, kept: Path) -> None:
    """Though the files have the names and sizes of those before."""
    for number, seed in enumerate((0, 1)):
        write_png(tmp_path / f"low/{number}.png", 24, 28, seed)
    method = OAPTQ(bits=4, finetuning=SHORT)
    kept.unlink()
    method.quantize(tiny, Calibration.from_low_resolution(tmp_path / "low", count=5, size=16), kept)
    write_png(tmp_path / "low/1.png", 24, 28, 2)
    patches = Calibration.from_low_resolution(tmp_path / "low", count=5, size=16)
    with refused("set of calibration patches"):
        method.quantize(tiny, patches, kept)


def observed_otherwise(monkeypatch: pytest.MonkeyPatch, factors: dict[str, float]) -> None:
    """Bounds as they are observed, times these factors."""
    measure = OAPTQ.measure

    def other(method: OAPTQ, rows: Tensor) -> dict[str, Tensor]:
        return {name: value * factors.get(name, 1.0) for name, value in measure(method, rows).items()}

    monkeypatch.setattr(OAPTQ, "measure", other)


def test_a_state_goes_on_where_last_bits_of_the_start_differ(
    tiny: Model, patches: Calibration, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do with another number of threads, which take sums in another order."""
    method = OAPTQ(bits=4, finetuning=SHORT)
    whole = bounds_of(method.quantize(tiny, patches))
    observed_otherwise(monkeypatch, dict.fromkeys(("lower", "upper", "breakpoint"), 1 + 1e-6))
    found = bounds_of(method.quantize(tiny, patches, kept))
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-6)


def test_a_state_is_refused_where_threads_tipped_a_choice(
    tiny: Model, patches: Calibration, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed_otherwise(monkeypatch, {"lower": 0.0})
    with refused("choice of levels at the start, which another number of threads can tip; give"):
        OAPTQ(bits=4, finetuning=SHORT).quantize(tiny, patches, kept)


def test_a_state_of_another_version_is_refused(
    tiny: Model, patches: Calibration, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "versions", lambda: {"srquant": "0.0.1"})
    with refused("version of srquant"):
        OAPTQ(bits=4, finetuning=SHORT).quantize(tiny, patches, kept)


def test_a_loss_that_is_not_finite_names_the_layer_and_keeps_the_state(
    tiny: Model, patches: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "SAVE_EVERY", 0)
    state, constrain = tmp_path / "run.state", PiecewiseLinear.constrain
    calls = 0

    def broken(quantizer: PiecewiseLinear) -> None:
        nonlocal calls
        calls += 1
        constrain(quantizer)
        if calls == 3 * 6 + 3:  # in step 4, the third of six layers
            quantizer.upper.fill_(float("nan"))

    monkeypatch.setattr(PiecewiseLinear, "constrain", broken)
    with pytest.raises(
        FinetuningError,
        match=r"output of body\.0\.body\.2 became NaN .* lower the learning rate .* and remove \S+run.state",
    ):
        OAPTQ(bits=4, finetuning=SHORT).quantize(tiny, patches, state)
    assert json.loads(state.read_bytes().split(b"\n")[0])["step"] == 3
    state.unlink()  # the advice can be followed
    monkeypatch.setattr(PiecewiseLinear, "constrain", constrain)
    OAPTQ(bits=4, finetuning=replace(SHORT, rate=SHORT.rate / 10)).quantize(tiny, patches, state)


def test_half_precision_is_close(tiny: Model, patches: Calibration) -> None:
    images = patches.batch(range(5))
    single, half = (
        OAPTQ(bits=4, finetuning=replace(SHORT, rate=1e-3, precision=p)).quantize(tiny, patches)(images)
        for p in ("float32", "bf16")
    )
    assert float((single - half).abs().mean()) < 0.5 * float((single - tiny(images)).abs().mean())


@pytest.mark.exhaustive  # the loop is the one that 2DQuant learns by
def test_two_processes_give_the_result_of_one(run, tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / f"low/{number}.png", 30, 32, number)
    torch.save(small_networks()["edsr"].state_dict(), tmp_path / "edsr.pth")
    words = ["quantize", tmp_path / "edsr.pth", "--method", "oaptq", "--patches", 5]
    words += ["--calibration", tmp_path / "low", "--set", "finetuning.epochs=3", "--bits", 8]
    _, text, _ = run(*words, "-o", tmp_path / "one.safetensors")
    assert text.count("calibrating on") == 1
    text = run_in_two_processes(*words, "-o", tmp_path / "two.safetensors")
    assert text.count("calibrating on") == 1
    one, two = (bounds_of(load(tmp_path / f"{name}.safetensors")) for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearningSettings(epochs=0), "epochs=0 is outside 1…"),
        (lambda: LearningSettings(rate=-1.0), r"rate=-1\.0 is not above 0"),
        (lambda: OAPTQ(quantile=1.5), "outside"),
    ],
)
def test_bad_settings(make, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize("network", ["edsr", "swinir"])
@pytest.mark.parametrize(("name", "rate"), [("oaptq", 1e30), ("oaptq", 10), ("2dquant", 1e30), ("2dquant", 10)])
def test_learning_that_diverged_gives_no_model(
    networks, patches: Calibration, tmp_path: Path, network: str, name: str, rate: float
) -> None:
    method = configure(name, settings=["finetuning.epochs=2", "finetuning.batch=2", f"finetuning.rate={rate}"])
    if name == "2dquant":
        method = replace(method, finetuning=replace(method.finetuning, steps=6))
    else:
        method = replace(method, learning="relative")
    with pytest.raises(FinetuningError, match=r"diverged|became NaN or infinite") as caught:
        method.quantize(Model(networks[network], network), patches, tmp_path / "run.state")
    assert "lower the learning rate" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_learning_that_is_not_needed_is_no_divergence(edsr: Model, patches: Calibration) -> None:
    """At 8 bits the first loss is so small that any end may be many times as large."""
    settings = ["finetuning.epochs=3", "finetuning.rate=0.02", "learning=relative"]
    model = configure("oaptq", 8, settings=settings).quantize(edsr, patches)
    assert model.record is not None
    assert model.record.curve
