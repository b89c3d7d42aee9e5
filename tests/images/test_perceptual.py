"""LPIPS and DISTS, with features of random numbers in the layout of torchvision's files."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tests.images.test_pairs import make_pair
from torch import Tensor

import srquant
from srquant.fetching import catalogue
from srquant.images import perceptual
from srquant.images.perceptual import SCORES, further_scores
from srquant.model import Model
from srquant.support.errors import ArgumentError, FetchError, MemoryLimitError, MissingExtraError, UnknownNameError

found = importlib.util.find_spec("torchmetrics")
if found is None or found.origin is None:
    pytest.skip("torchmetrics, the extra perceptual, is absent", allow_module_level=True)
WEIGHTS = Path(found.origin).parent / "functional/image"
State = Mapping[str, Tensor]
SIZES = {"alexnet": ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)), "vgg16": ((64, 3, 3),)}
VGG = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
NUMBERS = {"alexnet": (0, 3, 6, 8, 10), "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}


def state_of(name: str) -> dict[str, Tensor]:
    """Keys and shapes of torchvision's file; of the classifier a small part, which nobody reads."""
    shapes = list(SIZES["alexnet"])
    if name == "vgg16":
        widths = [width for width, count in VGG for _ in range(count)]
        shapes = [(width, before, 3) for before, width in zip([3, *widths], widths, strict=False)]
    random = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for number, (out, into, side) in zip(NUMBERS[name], shapes, strict=True):
        spread = (2 / (into * side * side)) ** 0.5
        state[f"features.{number}.weight"] = spread * torch.randn(out, into, side, side, generator=random)
        state[f"features.{number}.bias"] = 0.1 * torch.randn(out, generator=random)
    return state | {"classifier.6.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that a person has filled by hand."""
    cache = tmp_path_factory.mktemp("cache")
    for name in ("alexnet", "vgg16"):
        (cache / name).mkdir()
        torch.save(state_of(name), cache / name / catalogue.entries()[name].file)
    return cache


@pytest.fixture(autouse=True)
def _cache(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real catalogue, but for the checksums, which random numbers cannot have."""
    known = {
        name: catalogue.Entry(name, "x", "features", "x", "x", address=catalogue.entries()[name].address)
        for name in ("alexnet", "vgg16")
    }
    monkeypatch.setenv("SRQUANT_CACHE", str(cached))
    monkeypatch.setattr("srquant.fetching.fetching.entries", lambda: known)


def image(seed: int, height: int = 64, width: int = 70) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def planes(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / 255


def slow_lpips(x: Tensor, y: Tensor, state: State) -> float:
    """Zhang et al. 2018, eq. 1, in [-1, 1]; the shift and scale are the authors'."""
    linear = torch.load(WEIGHTS / "lpips_models/alex.pth", "cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    x, y = (2 * x - 1 - shift) / scale, (2 * y - 1 - shift) / scale
    distance = 0.0
    for layer, number in enumerate(NUMBERS["alexnet"]):
        weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
        stride, padding = (4, 2) if layer == 0 else (1, weight.shape[-1] // 2)
        if layer in (1, 2):
            x, y = F.max_pool2d(x, 3, 2), F.max_pool2d(y, 3, 2)
        x = F.conv2d(x, weight, bias, stride, padding).relu()
        y = F.conv2d(y, weight, bias, stride, padding).relu()
        unit_x, unit_y = x / (x.square().sum(1, True) + 1e-8).sqrt(), y / (y.square().sum(1, True) + 1e-8).sqrt()
        w = linear[f"lin{layer}.model.1.weight"].view(1, -1, 1, 1)
        distance += float((w * (unit_x - unit_y).square()).sum(1).mean())
    return distance


def slow_dists(x: Tensor, y: Tensor, state: State) -> float:
    """Ding et al. 2020: means and covariances of every channel, weighted by alpha and beta."""
    own = torch.load(WEIGHTS / "dists_models/weights.pt", "cpu", weights_only=True)
    total = own["alpha"].sum() + own["beta"].sum()
    window = torch.hann_window(5, periodic=False)[1:-1]
    window = window[:, None] * window[None, :]
    window = window / window.sum()

    def stages(image: Tensor) -> list[Tensor]:
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        found, hidden, numbers = [image], (image - mean) / std, iter(NUMBERS["vgg16"])
        for stage, (_, count) in enumerate(VGG):
            if stage:
                channels = hidden.shape[1]
                kernel = window.repeat(channels, 1, 1, 1)
                hidden = (F.conv2d(hidden.square(), kernel, stride=2, padding=1, groups=channels) + 1e-12).sqrt()
            for _ in range(count):
                number = next(numbers)
                weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
                hidden = F.conv2d(hidden, weight, bias, padding=1).relu()
            found.append(hidden)
        return found

    similarity, start = 0.0, 0
    for a, b in zip(stages(x), stages(y), strict=True):
        channels = slice(start, start := start + a.shape[1])
        alpha, beta = own["alpha"][0, channels, 0, 0] / total, own["beta"][0, channels, 0, 0] / total
        mean_a, mean_b = a.mean((0, 2, 3)), b.mean((0, 2, 3))
        covariance = (a * b).mean((0, 2, 3)) - mean_a * mean_b
        variances = a.var((0, 2, 3), unbiased=False) + b.var((0, 2, 3), unbiased=False)
        texture = (2 * mean_a * mean_b + 1e-6) / (mean_a**2 + mean_b**2 + 1e-6)
        similarity += float((alpha * texture).sum() + (beta * (2 * covariance + 1e-6) / (variances + 1e-6)).sum())
    return 1 - similarity


@pytest.mark.parametrize(("name", "twin"), [("lpips", slow_lpips), ("dists", slow_dists)])
def test_it_is_what_the_paper_says(name: str, twin, cached: Path) -> None:
    state = state_of(SCORES[name].features)
    of = further_scores([name])[name]
    for seed in range(3):
        x, y = image(seed), image(seed + 10)
        y = y if seed else (x // 2 + y // 2).astype(np.uint8)
        assert of(x, y) == pytest.approx(twin(planes(x), planes(y), state), rel=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_equal_images_are_at_no_distance_and_worse_ones_farther(name: str) -> None:
    of = further_scores([name])[name]
    x, noise = image(0), np.random.default_rng(1).normal(size=(64, 70, 3))
    distances = [of(np.clip(x + amount * noise, 0, 255).astype(np.uint8), x) for amount in (0, 10, 40)]
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("name", SCORES)
def test_the_same_each_time_and_nothing_is_drawn(name: str) -> None:
    perceptual._opened.cache_clear()
    before = torch.get_rng_state()
    first = further_scores([name])[name](image(0), image(1))
    assert torch.equal(torch.get_rng_state(), before), "scores leave what is drawn after them as it was"
    perceptual._opened.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert further_scores([name])[name](image(0), image(1)) == first


@pytest.mark.parametrize(("name", "smallest"), [("lpips", 31), ("dists", 16)])
def test_the_smallest_image(name: str, smallest: int) -> None:
    of = further_scores([name])[name]
    assert np.isfinite(of(image(0, smallest, 80), image(1, smallest, 80)))
    with pytest.raises(ArgumentError, match=f"at least {smallest}x{smallest} pixels; got 80x{smallest - 1}"):
        of(image(0, smallest - 1, 80), image(1, smallest - 1, 80))


def test_images_that_do_not_fit_each_other() -> None:
    of = further_scores(["lpips"])["lpips"]
    with pytest.raises(ArgumentError, match="must both be h w 3"):
        of(image(0), image(0, 64, 71))


def test_images_too_large_for_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    of = further_scores(["dists"])["dists"]
    monkeypatch.setattr(perceptual, "available", lambda _: 1_000_000)
    with pytest.raises(MemoryLimitError, match=r"DISTS of 70x64 pixels needs about 0\.0 GB.*0\.0 GB are left"):
        of(image(0), image(1))


class TestWeights:
    def test_an_unknown_score(self) -> None:
        with pytest.raises(UnknownNameError, match=r"unknown score 'lpip'; did you mean 'lpips'\?"):
            further_scores(["lpip"])

    def test_weights_that_are_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which file, from where, into where."""
        perceptual._opened.cache_clear()
        monkeypatch.setenv("SRQUANT_CACHE", str(tmp_path))

        def unreachable(*_: object) -> bool:
            raise FetchError("the server cannot be reached")

        monkeypatch.setattr("srquant.fetching.fetching.download", unreachable)
        with pytest.raises(FetchError) as failed:
            further_scores(["lpips"])
        file = "alexnet-owt-7be5be79.pth"
        assert f"download https://download.pytorch.org/models/{file}" in str(failed.value)
        assert f"put it there as {tmp_path}/alexnet/{file}" in str(failed.value)

    @pytest.mark.parametrize("damage", ["shape", "missing", "more", "text"])
    def test_weights_of_another_layout(self, tmp_path: Path, damage: str) -> None:
        state = state_of("alexnet")
        match damage:
            case "shape":
                state["features.0.weight"] = state["features.0.weight"][:, :, :5]
            case "missing":
                del state["features.10.bias"]
            case "more":
                state["features.12.weight"] = torch.zeros(1)
        torch.save(state, tmp_path / "a.pth")
        if damage == "text":
            (tmp_path / "a.pth").write_text("no weights")
        with pytest.raises(FetchError, match="does not hold the weights of this network"):
            perceptual._fill(perceptual._alexnet(), tmp_path / "a.pth")

    def test_old_files_are_read_too(self, tmp_path: Path) -> None:
        """torchvision's file of AlexNet is older than PyTorch's present format."""
        torch.save(state_of("alexnet"), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
        layers = perceptual._alexnet()
        perceptual._fill(layers, tmp_path / "a.pth")
        assert torch.equal(layers[0].weight, state_of("alexnet")["features.0.weight"])

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        perceptual._opened.cache_clear()
        monkeypatch.setitem(__import__("sys").modules, "torchmetrics", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'srquant\[perceptual\]'"):
            further_scores(["lpips"])

    def test_torchvision_need_not_be_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from torchmetrics.functional.image import dists

        perceptual._opened.cache_clear()
        for name in ("vgg16", "VGG16_Weights"):
            monkeypatch.delattr(dists, name, raising=False)
        monkeypatch.setattr(dists, "_TORCHVISION_AVAILABLE", False)
        assert np.isfinite(further_scores(["dists"])["dists"](image(0), image(1)))
        assert not hasattr(dists, "vgg16")
        assert dists._TORCHVISION_AVAILABLE is False


class TestEvaluating:
    def test_in_python(self, edsr: Model, tmp_path: Path) -> None:
        make_pair(tmp_path / "Set", "1", 4, 1)
        make_pair(tmp_path / "Set", "2", 4, 2)
        (plain,) = srquant.evaluate(edsr, tmp_path / "Set")
        (scores,) = srquant.evaluate(edsr, tmp_path / "Set", scores=["lpips", "dists"])
        assert plain.further == {}
        assert [one.psnr for one in plain.images] == [one.psnr for one in scores.images]
        assert list(scores.further) == ["lpips", "dists"]
        assert srquant.evaluate(edsr, tmp_path / "Set", scores="lpips")[0].further == {"lpips": scores.further["lpips"]}
        for name, mean in scores.further.items():
            assert mean == pytest.approx(np.mean([one.further[name] for one in scores.images]))
            assert f"{name} {mean:.4f}" in repr(scores)
        assert scores.to_json()["images"]["1.png"]["lpips"] == scores.images[0].further["lpips"]
        assert list(scores.images[0].named()) == ["psnr", "ssim", "ssim_adabm", "lpips", "dists"]

    def test_by_command(self, edsr: Model, tmp_path: Path, run) -> None:
        edsr.save(tmp_path / "edsr.safetensors")
        make_pair(tmp_path / "Set", "1", 4, 1)
        code, out, said = run("evaluate", tmp_path / "edsr.safetensors", tmp_path / "Set", "--score", "lpips")
        assert code == 0, said
        assert "LPIPS (lower is better)" in out
        code, _, said = run("evaluate", tmp_path / "edsr.safetensors", tmp_path / "Set", "--score", "psnr")
        assert code == 2
        assert "unknown score 'psnr'" in said

    def test_the_whole_image_counts(self, tmp_path: Path) -> None:
        """Its border too, which PSNR leaves out."""
        from srquant.images import find_pairs
        from srquant.images.evaluation import evaluate

        make_pair(tmp_path, "1", 4)
        high = planes(srquant.images.read_picture(tmp_path / "HR/1.png").rgb8())
        framed = high.clone()
        framed[..., 0, :] = 1 - framed[..., 0, :]
        folders, further = find_pairs(tmp_path, 4), further_scores(["lpips"])
        (same,) = evaluate(lambda _: high, folders, 4, None, further)
        (other,) = evaluate(lambda _: framed, folders, 4, None, further)
        assert same.psnr == other.psnr == float("inf")
        assert abs(same.further["lpips"]) < 1e-6 < other.further["lpips"]


def test_a_photograph(shared: Path) -> None:
    """Real pictures, however random the features: blurred ones are farther off than the picture itself."""
    path = sorted((shared / "data/Set5").rglob("HR/*.png"))[0]
    x = srquant.images.read_picture(path).rgb8()[:128, :128]
    blurred = planes(x).mul(255).round()
    blurred = F.avg_pool2d(blurred, 5, 1, 2, count_include_pad=False)[0].permute(1, 2, 0).numpy().astype(np.uint8)
    for of in further_scores(SCORES).values():
        assert of(x, x) < of(blurred, x)
