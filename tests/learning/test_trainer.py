from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import run_in_two_processes, write_png

from srquant.images.metrics import psnr
from srquant.learning import state as states
from srquant.learning import trainer
from srquant.learning.photographs import Photographs
from srquant.learning.settings import TrainingConfig
from srquant.learning.state import StateFile
from srquant.learning.trainer import Trained, train, validation_psnr
from srquant.learning.weights import Weights
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.networks.srresnet import SRResNet, SRResNetConfig
from srquant.support.errors import ArgumentError, FolderWarning, ImageError, TrainingError
from srquant.support.processes import Processes

CPU = torch.device("cpu")
CONFIG = TrainingConfig(steps=6, batch=4, patch=16, warmup=2, validation=1, validation_every=3, learning_rate=1e-3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(5):
        write_png(folder / f"{number}.png", 48 + number, 64, number)
    return folder


def run(photos: Path, state: Path, config: TrainingConfig = CONFIG) -> Trained:
    torch.manual_seed(0)
    network = EDSR(EDSRConfig(scale=2, channels=8, blocks=1, value_range=1.0))
    return train(network, Photographs.of(photos, 2, config.patch), config, state, CPU)


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return trained.network.state_dict()


def same(a: Trained, b: Trained) -> bool:
    return all(torch.equal(value, weights(b)[key]) for key, value in weights(a).items()) and [
        (p.step, p.loss, p.psnr) for p in a.curve
    ] == [(p.step, p.loss, p.psnr) for p in b.curve]


def test_it_learns(photos: Path, tmp_path: Path) -> None:
    trained = run(photos, tmp_path / "s", replace(CONFIG, steps=60, validation_every=20))
    assert trained.curve[-1].loss < 0.7 * trained.curve[0].loss
    assert trained.curve[-1].psnr > trained.curve[0].psnr + 1
    assert not trained.network.training


def test_the_same_seed_gives_the_same_weights(photos: Path, tmp_path: Path) -> None:
    assert same(run(photos, tmp_path / "a"), run(photos, tmp_path / "b"))
    assert not same(run(photos, tmp_path / "a2"), run(photos, tmp_path / "c", replace(CONFIG, seed=1)))


@pytest.mark.parametrize("killed_at", [1, 2, 3, 5])
def test_a_killed_run_goes_on_to_the_same_curve(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    whole = run(photos, tmp_path / "whole")
    learn = Weights.learn

    def learn_until_killed(self, low, high, rate, step):
        if step == killed_at:
            raise KeyboardInterrupt
        return learn(self, low, high, rate, step)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Weights, "learn", learn_until_killed)
        patched.setattr(states, "time", SimpleNamespace(monotonic=itertools.count().__next__))
        patched.setattr(states, "SAVE_EVERY", 2)
        run(photos, tmp_path / "cut")
    assert (tmp_path / "cut").exists() == (killed_at >= 2)
    assert same(run(photos, tmp_path / "cut"), whole)


def test_batch_normalisations_are_averaged_and_kept(photos: Path, tmp_path: Path) -> None:
    network = SRResNet(SRResNetConfig(scale=2, channels=8, blocks=1))
    trained = train(network, Photographs.of(photos, 2, 16), CONFIG, tmp_path / "s", CPU)
    norm = trained.network.get_submodule("body.0.1")
    assert float(norm.running_mean.abs().sum()) > 0
    assert int(norm.num_batches_tracked) == 6


def test_a_run_ends_with_its_time(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves ten seconds a step: a minute holds six steps, and the learning rate falls to its end."""
    rates: list[float] = []
    learn, now = Weights.learn, [0.0]

    def ticking(self, low, high, rate, step):
        now[0] += 10.0
        rates.append(rate)
        return learn(self, low, high, rate, step)

    monkeypatch.setattr(Weights, "learn", ticking)
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(states, "SAVE_EVERY", 24)
    config = replace(CONFIG, steps=1000, warmup=1, minutes=1.0)
    saved: list[int] = []
    save = StateFile.save
    monkeypatch.setattr(StateFile, "save", lambda self, step, *others: (saved.append(step), save(self, step, *others)))
    trained = run(photos, tmp_path / "s", config)
    assert len(rates) == 6
    assert trained.curve[-1].step == 6
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * rates[0]
    assert saved == [3, 6]
    again = run(photos, tmp_path / "s", config)
    assert len(rates) == 6, "a run whose time is over is not gone on with"
    assert all(torch.equal(value, weights(again)[key]) for key, value in weights(trained).items())


@pytest.mark.parametrize("minutes", [0.0, -1.0])
def test_bad_times(minutes: float) -> None:
    with pytest.raises(ArgumentError, match=r"minutes=\S+ is outside \(0, "):
        TrainingConfig(minutes=minutes)


def refused(other: str) -> pytest.RaisesExc[TrainingError]:
    return pytest.raises(TrainingError, match=rf"of training on edsr \(step 6 of 6\), with another {other}; give")


def test_another_run_does_not_go_on(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "s")
    with refused("configuration of the training"):
        run(photos, tmp_path / "s", replace(CONFIG, batch=2))
    with refused("start"):
        train(
            EDSR(EDSRConfig(scale=2, channels=8, blocks=1, value_range=1.0)),
            Photographs.of(photos, 2, CONFIG.patch),
            CONFIG,
            tmp_path / "s",
            CPU,
        )


def test_photographs_of_the_same_names_and_sizes_are_told_apart(tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / f"photos/{number}.png", 40, 40, number)
    run(tmp_path / "photos", tmp_path / "s")
    write_png(tmp_path / "photos/1.png", 40, 40, 7)
    with refused("set of photographs"):
        run(tmp_path / "photos", tmp_path / "s")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_state(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Weights.learn

    def broken(self, low, high, rate, step):
        return learn(self, low, high, rate, step) * (torch.nan if step == 4 else 1)

    monkeypatch.setattr(Weights, "learn", broken)
    with pytest.raises(TrainingError, match="NaN or infinite before step 6; lower the learning rate"):
        run(photos, tmp_path / "s")
    monkeypatch.setattr(states, "SAVE_EVERY", 0)
    with pytest.raises(
        TrainingError, match=r"before step 5; lower the learning rate \(0\.001\) and remove \S+s, which"
    ):
        run(photos, tmp_path / "s")
    assert json.loads((tmp_path / "s").read_bytes().split(b"\n")[0])["step"] == 4
    (tmp_path / "s").unlink()  # the advice can be followed
    monkeypatch.setattr(Weights, "learn", learn)
    assert run(photos, tmp_path / "s", replace(CONFIG, learning_rate=1e-4)).curve[-1].step == 6


def test_half_precision_is_close(photos: Path, tmp_path: Path) -> None:
    full, half = (run(photos, tmp_path / p, replace(CONFIG, precision=p)) for p in ("float32", "bf16"))  # type: ignore[arg-type]
    assert half.curve[-1].loss == pytest.approx(full.curve[-1].loss, rel=0.02)
    assert {value.dtype for value in weights(half).values()} == {torch.float32}


def test_crops_fit_each_other(photos: Path) -> None:
    """An LR crop is what bicubic makes of its HR crop, but for the crop's rim."""
    from srquant.images import shrink_8bit

    low, high = Photographs.of(photos, 2, 16).batch(seed=0, step=3, size=8, patch=16)
    assert (low.shape, high.shape) == ((8, 3, 16, 16), (8, 3, 32, 32))
    for small, large in zip(low, high, strict=True):
        again = shrink_8bit((large * 255).round().byte(), 2).permute(1, 2, 0).numpy()[4:-4, 4:-4]
        assert psnr(again, (small * 255).round().byte().permute(1, 2, 0).numpy()[4:-4, 4:-4]) > 50


def test_parts_of_a_batch_are_the_batch(photos: Path) -> None:
    photographs = Photographs.of(photos, 2, 16)
    whole = photographs.batch(0, 7, 6, 16)
    parts = [photographs.batch(0, 7, 6, 16, slice(i * 2, i * 2 + 2)) for i in range(3)]
    for place in range(2):
        assert torch.equal(whole[place], torch.cat([part[place] for part in parts]))


def test_a_small_cache_gives_the_same_batches(photos: Path) -> None:
    photographs = Photographs.of(photos, 2, 16)
    small = Photographs(photographs.images, 2, cache_bytes=1)
    assert torch.equal(photographs.batch(0, 1, 8, 16)[1], small.batch(0, 1, 8, 16)[1])
    assert len(small._cache) == 1


def test_bad_photographs(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no image of at least 800x800"):
        Photographs.of(photos, 2, 400)
    with pytest.raises(ImageError, match="too few to hold out 5"):
        run(photos, tmp_path / "s", replace(CONFIG, validation=5))


def test_the_batch_must_be_shared_equally(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    monkeypatch.setattr(trainer, "processes", lambda device: nullcontext(Processes(0, 3)))
    with pytest.raises(ArgumentError, match="batch=4 cannot be divided equally among 3 processes"):
        run(photos, tmp_path / "s")


@pytest.mark.parametrize("kind", ["EDSR", "SRResNet"])
def test_two_processes_give_the_result_of_one(run, photos: Path, tmp_path: Path, kind: str) -> None:
    """Also where batches are normalised: by the whole batch, not by the half of each process."""
    words = ["train", kind, "--data", photos, "--scale", 2, "--steps", 6]
    for pair in (
        "network.channels=8",
        "network.blocks=1",
        "training.batch=4",
        "training.patch=16",
        "training.validation=1",
        "training.validation_every=3",
        "training.learning_rate=0.001",
        "training.warmup=2",
        "training.average=0.5",
    ):
        words += ["--set", pair]
    run(*words, "-o", tmp_path / "one.safetensors")
    run_in_two_processes(*words, "-o", tmp_path / "two.safetensors")
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-5, rtol=1e-4, msg=key)
    curves = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two")]
    for ours, theirs in zip(*curves, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
        assert theirs["psnr"] == pytest.approx(ours["psnr"], rel=1e-5)
    assert (tmp_path / "two.png").exists()
    assert not (tmp_path / "two.safetensors.state").exists()


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_what_is_kept_is_the_moving_average(photos: Path, tmp_path: Path, average: float) -> None:
    """Kept and validated; 0 keeps the weights of the last step."""
    config = replace(CONFIG, average=average, steps=5, validation_every=5)
    seen: list[dict[str, torch.Tensor]] = []
    learn = Weights.learn

    def noted(self, low, high, rate, step):
        loss = learn(self, low, high, rate, step)
        seen.append({key: value.clone() for key, value in self.network.state_dict().items()})
        return loss

    torch.manual_seed(0)
    network = EDSR(EDSRConfig(scale=2, channels=8, blocks=1, value_range=1.0))
    expected = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Weights, "learn", noted)
        trained = run(photos, tmp_path / "s", config)
    for step, weights_ in enumerate(seen):
        kept = min(average, (1 + step) / (10 + step))
        expected = {key: kept * value + (1 - kept) * weights_[key] for key, value in expected.items()}
    for key, value in weights(trained).items():
        torch.testing.assert_close(value, expected[key])
    last = Photographs.of(photos, 2, config.patch).split(config.validation)[1]
    assert trained.curve[-1].psnr == validation_psnr(trained.network, last)


@pytest.mark.parametrize(
    "setting",
    [
        *("steps=0", "batch=0", "patch=0", "validation=0", "validation_every=0", "save_every=0"),
        *("learning_rate=-1", "learning_rate=0", "average=2", "average=1", "warmup=-5", "minutes=0", "beta2=1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_read(run, tmp_path: Path, setting: str) -> None:
    """The folder of photographs does not even exist."""
    words = ["train", "EDSR", "--data", tmp_path / "none", "-o", tmp_path / "n.safetensors"]
    code, _, error = run(*words, "--set", f"training.{setting}")
    assert (code, error.count("\n"), error[:7]) == (2, 1, "error: "), error
    assert setting.split("=", maxsplit=1)[0] in error and "none" not in error
    assert not list(tmp_path.iterdir())


OTHERS = {
    "batch": 2,
    "patch": 12,
    "learning_rate": 2e-3,
    "warmup": 4,
    "beta2": 0.5,
    "average": 0.0,
    "precision": "bf16",
}


@pytest.mark.parametrize("name", [*OTHERS, "validation", "seed"])
def test_every_setting_decides_the_result(photos: Path, tmp_path: Path, name: str) -> None:
    config = replace(CONFIG, average=0.5)
    other = replace(config, **{name: {**OTHERS, "validation": 2, "seed": 1}[name]})
    first, second = (run(photos, tmp_path / f"{number}", given) for number, given in enumerate((config, other)))
    assert any(not torch.equal(value, weights(second)[key]) for key, value in weights(first).items())


def test_rates_rise_and_fall_as_the_settings_say(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    learn = Weights.learn

    def noted(self, low, high, rate, step):
        rates.append(rate)
        return learn(self, low, high, rate, step)

    monkeypatch.setattr(Weights, "learn", noted)
    run(photos, tmp_path / "s", replace(CONFIG, steps=8, warmup=4, learning_rate=1e-3))
    falling = [0.01 + 0.99 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    rising = [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert rates == pytest.approx([1e-3 * up * down for up, down in zip(rising, falling, strict=True)])


def test_what_is_held_out_is_never_learned_from(photos: Path) -> None:
    photographs = Photographs.of(photos, 2, 16)
    for count in range(1, 5):
        training, held = photographs.split(count)
        assert len(held.images) == count
        assert not set(training.images) & set(held.images)
        assert {*training.images, *held.images} == set(photographs.images)


def test_the_time_of_all_stretches_is_counted(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of ten seconds a step; the second stretch begins with the clock at zero again."""
    learn, now = Weights.learn, [0.0]

    def ticking(self, low, high, rate, step):
        if step == 4 and now[0] == 40:
            raise KeyboardInterrupt
        now[0] += 10.0
        return learn(self, low, high, rate, step)

    monkeypatch.setattr(Weights, "learn", ticking)
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(states, "SAVE_EVERY", 10)
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "s")
    now[0] = 0.0
    assert [row.seconds for row in run(photos, tmp_path / "s").curve] == [30.0, 60.0]


def test_photographs_too_small_for_a_patch_are_passed_over_and_counted(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", 40, 40)
    write_png(tmp_path / "icon.png", 20, 40)
    with pytest.warns(FolderWarning, match=r"passed over 1 image smaller than 32x32"):
        assert [path.name for path in Photographs.of(tmp_path, 2, 16).images] == ["a.png"]
