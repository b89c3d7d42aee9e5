"""What methods have in common that train with ground truth: the command, interruptions, several processes, parts."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import run_in_two_processes, small_networks, write_png
from torch import Tensor

import srquant
from srquant.learning import state as states
from srquant.learning import truth
from srquant.learning.comparison import Comparison
from srquant.learning.order import once_each
from srquant.learning.photographs import Photographs
from srquant.learning.settings import TruthSettings
from srquant.learning.truth import Crops
from srquant.methods import METHODS, PAMS
from srquant.methods.pipeline.estimate import estimate
from srquant.model import Model, load
from srquant.model.layer import FollowingWeight
from srquant.model.swapping import quant_layers
from srquant.quantizers import Symmetric, Uniform
from srquant.support.errors import ArgumentError, FinetuningError, ImageError
from srquant.support.processes import Processes

TRAINED = sorted(name for name, kind in METHODS.items() if kind.needs == "pairs")
SHORT = TruthSettings(steps=9, epochs=3, batch=2, patch=16, decay_every=1)
each_method = pytest.mark.parametrize("method", TRAINED)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        write_png(folder / f"{number}.png", 80 + 8 * number, 96, number)
    return folder


@pytest.fixture
def pairs(photos: Path) -> Photographs:
    return Photographs.of(photos, 4, 16)


def configured(method: str, **fields: Any) -> Any:
    return METHODS[method](**{"bits": 3, "training": SHORT, **fields})


# The command ----------------------------------------------------------------------------------------------------------


def words(method: str, photos: Path, network: Path, *more: object) -> tuple[object, ...]:
    sizes = ("--set", "training.patch=16", "--set", "training.batch=2", "--set", "training.epochs=2")
    return ("quantize", network, "--method", method, "--data", photos, "--steps", 4, *sizes, *more)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "edsr.pth"
    torch.save(small_networks()["edsr"].state_dict(), path)
    return path


@each_method
def test_the_command_trains_and_says_so(run: Any, method: str, photos: Path, weights: Path, tmp_path: Path) -> None:
    code, text, errors = run(*words(method, photos, weights, "-o", tmp_path / "out.safetensors"))
    assert code == 0, errors
    assert "learning from 4 photographs and the LR images that bicubic makes of them" in text
    assert "this will take about" in text
    record = load(tmp_path / "out.safetensors").record
    assert record is not None
    assert (record.method, record.settings["training"]["steps"]) == (method, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.safetensors"], "no state is left"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--calibration", "lr"), "pams learns with ground truth: give --data and no calibration"),
        ((), "pams learns with ground truth: give --data, a folder of photographs"),
        (("--data", "photos", "--patches", 9), "are of calibration patches, and pams learns with ground truth"),
        (("--data", "photos", "--set", "weights.range=percentile"), "pams has a quantizer of weights of its own"),
        (("--data", "photos", "--set", "training.patch=4000"), "holds no image of at least 16000x16000"),
    ],
)
def test_the_command_says_what_is_missing(
    run: Any, photos: Path, weights: Path, tmp_path: Path, given: tuple[object, ...], message: str
) -> None:
    told = [photos if word == "photos" else word for word in given]
    code, _, errors = run("quantize", weights, "--method", "pams", *told, "-o", tmp_path / "out.safetensors")
    assert code == 2
    assert message in errors


def test_a_method_without_ground_truth_refuses_data(run: Any, photos: Path, weights: Path, tmp_path: Path) -> None:
    given = ("--data", photos, "-o", tmp_path / "out.safetensors")
    code, _, errors = run("quantize", weights, "--method", "plq", *given)
    assert code == 2
    assert f"plq is given LR patches alone; give --calibration-hr {photos}" in errors


def test_two_processes_give_the_result_of_one(run: Any, photos: Path, weights: Path, tmp_path: Path) -> None:
    code, _, errors = run(*words("pams", photos, weights, "-o", tmp_path / "one.safetensors"))
    assert code == 0, errors
    run_in_two_processes(*words("pams", photos, weights, "-o", tmp_path / "two.safetensors"))
    one, two = (load(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    images = torch.rand(1, 3, 20, 24)
    error = (one(images) - two(images)).square().mean() / one(images).var()
    assert float(error) < 1e-4
    for first, second in zip(one.layers(), two.layers(), strict=True):
        for a, b in zip(first.left.parameters(), second.left.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


# Interruptions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed_at", [1, 2, 5])
@each_method
def test_a_killed_run_goes_on_to_the_same_bytes(
    method: str, edsr: Model, pairs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    chosen, state = configured(method), tmp_path / "run.state"
    monkeypatch.setattr(states, "SAVE_EVERY", 0)
    straight = chosen.quantize(edsr, pairs).save(tmp_path / "a.safetensors")
    gradients, steps = Comparison.gradients, 0

    def killed(self: Comparison, *arguments: Any) -> dict[str, float]:
        nonlocal steps
        if steps == killed_at:
            raise KeyboardInterrupt
        steps += 1
        return gradients(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Comparison, "gradients", killed)
        chosen.quantize(edsr, pairs, state)
    assert state.exists() == (killed_at >= 2)
    again = chosen.quantize(edsr, pairs, state).save(tmp_path / "b.safetensors")
    assert again.read_bytes() == straight.read_bytes()


def test_the_state_of_other_photographs_is_refused(
    edsr: Model, pairs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "SAVE_EVERY", 0)
    PAMS(bits=3, training=SHORT).quantize(edsr, pairs, tmp_path / "s")
    with pytest.raises(FinetuningError, match=r"of pams on edsr\.pth \(step 8 of 9\), with another set of photographs"):
        PAMS(bits=3, training=SHORT).quantize(edsr, Photographs(pairs.images[1:], 4), tmp_path / "s")


def test_a_rate_that_breaks_the_network_is_refused(edsr: Model, pairs: Photographs) -> None:
    wild = TruthSettings(steps=6, epochs=3, batch=2, patch=16, rate=1e3)
    with pytest.raises(FinetuningError, match=r"lower the learning rate \(1000\)"):
        PAMS(bits=3, training=wild).quantize(edsr, pairs)


# Parts ----------------------------------------------------------------------------------------------------------------


@each_method
def test_micro_batches_change_nothing_but_the_order_of_sums(method: str, edsr: Model, pairs: Photographs) -> None:
    """One step, as codes tip later on."""
    found: list[list[Tensor]] = []
    for micro_batch in (None, 1):
        settings = TruthSettings(steps=1, epochs=1, batch=3, patch=16, micro_batch=micro_batch)
        model = configured(method, training=settings).quantize(edsr, pairs)
        found.append([layer.quantizers()["right"].levels() for layer in quant_layers(model.network).values()])
    for whole, part in zip(*found, strict=True):
        torch.testing.assert_close(whole, part, rtol=2e-3, atol=1e-6)


def test_crops_are_those_of_the_steps(pairs: Photographs) -> None:
    crops = Crops(pairs, TruthSettings(steps=5, epochs=2, batch=3, patch=16, seed=7))
    assert (crops.batches, crops.total, len(crops)) == (3, 5, 15)
    low, high = pairs.batch(7, 4, 3, 16)
    assert torch.equal(crops.batch(crops(4)), low)
    assert torch.equal(crops.pairs(crops(4)[1:])[1], high[1:])
    assert (low.shape, high.shape) == ((3, 3, 16, 16), (3, 3, 64, 64))


def test_stages_that_come_once_come_first(pairs: Photographs) -> None:
    crops = Crops(pairs, TruthSettings(steps=12, epochs=6, batch=1, patch=16))
    turns = [once_each(1, 2)(step, crops, 3) for step in range(12)]
    assert [turn.stage for turn in turns] == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert [turn.epoch for turn in turns] == [step // 2 for step in range(12)]


def test_the_estimate_grows_with_the_budget(edsr: Model, pairs: Photographs) -> None:
    ticks = iter(range(100))
    clock = lambda: next(ticks) * 1e-3  # noqa: E731
    few, many = (
        estimate(edsr, PAMS(training=TruthSettings(steps=steps, batch=2, patch=16)), pairs, clock).seconds
        for steps in (1000, 3000)
    )
    assert 2.5 < many / few < 3


def test_photographs_too_small_for_the_crops_are_refused(edsr: Model, pairs: Photographs) -> None:
    with pytest.raises(ImageError, match=r"0\.png is too small for LR crops of 24x24"):
        srquant.quantize(edsr, pairs, PAMS(training=TruthSettings(steps=2, batch=1, patch=24)))


def test_photographs_of_another_scale_are_refused(edsr: Model, photos: Path) -> None:
    halves = Photographs.of(photos, 2, 16)
    with pytest.raises(ArgumentError, match=r"makes LR images 2 times smaller, .*\(folder, 4, 16\)"):
        srquant.quantize(edsr, halves, PAMS(training=SHORT))


def test_a_batch_that_processes_cannot_share_is_refused(
    edsr: Model, pairs: Photographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth, "processes", lambda _device: nullcontext(Processes(0, 3)))
    with pytest.raises(ArgumentError, match=r"^training\.batch=2 cannot be divided equally among 3 processes"):
        PAMS(training=SHORT).quantize(edsr, pairs)


def test_weights_have_quantizers_of_their_own() -> None:
    with pytest.raises(ArgumentError, match="pams has a quantizer of weights of its own"):
        srquant.configure("pams", settings=["weights.granularity=per_channel"])


@pytest.mark.parametrize("kind", ["symmetric", "uniform"])
def test_a_following_weight_has_the_gradients_of_finite_differences(kind: str) -> None:
    """With rounding taken as a shift that stays: ``x + r·s`` inside the range, the bound outside."""
    weight = torch.randn(400, dtype=torch.float64)

    def measure(w: Tensor) -> dict[str, Tensor]:
        reach = w.abs().quantile(0.9)
        return {"bound": reach} if kind == "symmetric" else {"lower": -reach, "upper": 0.8 * reach}

    found = measure(weight)
    made = Symmetric(3, found["bound"]) if kind == "symmetric" else Uniform(3, found["lower"], found["upper"])
    layer = FollowingWeight(weight, made, measure)
    with torch.no_grad():
        layer.factor.fill_(0.9)
    layer.double()
    pull = torch.randn(400, dtype=torch.float64)
    (layer() * pull).sum().backward()

    def ends(factor: float) -> tuple[Tensor, Tensor]:
        bounds = [value * factor for value in found.values()]
        return (-bounds[0], bounds[0]) if kind == "symmetric" else (bounds[0], bounds[1])

    low, high = ends(0.9)
    position = (weight.clamp(low, high) - low) / (high - low) * 7
    shift = (position.round() - position) / 7

    def surrogate(factor: float) -> float:
        lower, upper = ends(factor)
        inside = weight + shift * (upper - lower)
        value = torch.where(weight > high, upper, torch.where(weight < low, lower, inside))
        return float((value * pull).sum())

    assert layer.factor.grad is not None
    expected = (surrogate(0.9 + 1e-6) - surrogate(0.9 - 1e-6)) / 2e-6
    assert float(layer.factor.grad) == pytest.approx(expected, rel=1e-4)
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.where((weight >= low) & (weight <= high), pull, 0))
    assert torch.equal(layer.coded()(), layer().detach())


@pytest.mark.parametrize(("method", "settings"), [("pams", []), ("odm", ["grid=int8"])])
def test_ranges_that_stay_are_exported(
    method: str, settings: list[str], edsr: Model, pairs: Photographs, tmp_path: Path
) -> None:
    """Levels of PAMS lie on integers by themselves."""
    pytest.importorskip("onnxruntime")
    chosen = srquant.configure(method, 4, settings=settings, training=SHORT)
    model = srquant.quantize(edsr, pairs, chosen)
    srquant.export(model, tmp_path / "m.onnx", engine="onnxruntime", threads=1)
    opened = srquant.open_exported(tmp_path / "m.onnx", "onnxruntime", 1)
    images = torch.rand(1, 3, 24, 24)
    error = (opened(images) - model(images)).square().mean() / model(images).var()
    assert float(error) < 1e-2
