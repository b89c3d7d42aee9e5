"""The script that trains the zoo, dry-run at tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import script, write_png

from srquant.images.listing import list_images
from srquant.images.reading import read_picture
from srquant.learning import state as states
from srquant.learning import trainer
from srquant.learning.photographs import Photographs
from srquant.learning.weights import Weights
from srquant.model import load
from srquant.networks import SRNetwork
from srquant.networks.checkpoint import read_metadata

zoo = script("train_zoo")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    for number in range(4):
        write_png(folder / f"{number}.png", 70, 150, number)
    return folder


def test_everything_fits_and_nothing_is_lost(photographs: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "benchmark/1.png", 70, 150, 1)
    Image.open(photographs / "2.png").save(photographs / "again.png", compress_level=0)
    words = ["pack", str(photographs), "--to", str(tmp_path / "pack"), "--crop", "64"]
    assert zoo.main([*words, "--without", str(tmp_path / "benchmark")]) == 0
    crops = [read_picture(path).rgb8() for path in list_images(tmp_path / "pack")]
    originals = {n: read_picture(photographs / f"{n}.png").rgb8() for n in (0, 2, 3)}
    expected = [pixels[:64, left : left + 64] for pixels in originals.values() for left in (0, 64)]
    assert len(crops) == len(expected), "two crops of each, no benchmark image, nothing twice"
    for crop in expected:
        assert any(np.array_equal(crop, other) for other in crops)
    firsts = [next(n for n, pixels in originals.items() if _holds(pixels, crop)) for crop in crops[:3]]
    assert sorted(firsts) == [0, 2, 3], "every photograph serves once before any serves twice"


def _holds(pixels: np.ndarray, crop: np.ndarray) -> bool:
    return any(np.array_equal(pixels[:64, left : left + 64], crop) for left in (0, 64))


def test_small_files_are_copied(photographs: Path, tmp_path: Path) -> None:
    Image.open(photographs / "0.png").save(tmp_path / "photographs/small.jpg", quality=30)
    zoo.pack(photographs, tmp_path / "pack")
    copies = [path for path in list_images(tmp_path / "pack") if path.suffix == ".jpg"]
    assert [path.read_bytes() for path in copies] == [(photographs / "small.jpg").read_bytes()]


def test_a_pack_keeps_to_its_size(photographs: Path, tmp_path: Path) -> None:
    whole = zoo.pack(photographs, tmp_path / "a", crop=64)
    size = sum(path.stat().st_size for path in (tmp_path / "a").iterdir())
    some = zoo.pack(photographs, tmp_path / "b", size / 2 / 2**20, crop=64)
    assert 0 < some < whole
    assert sum(path.stat().st_size for path in (tmp_path / "b").iterdir()) <= size / 2


def test_every_network_of_the_zoo_is_trained_at_tiny_size(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    learn = Weights.learn

    def ticking(self, low, high, rate, step):
        now[0] += 10.0
        return learn(self, low, high, rate, step)

    monkeypatch.setattr(Weights, "learn", ticking)
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])
    words = ["train", "--data", str(photographs), "--to", str(tmp_path / "zoo"), "--minutes", "5", "--tiny"]
    words += ["--device", "cpu"]
    assert zoo.main(words) == 0
    assert now[0] == pytest.approx(5 * 60, abs=10 * len(zoo.ZOO)), "each runs to the end of its share"
    for name, entry in zoo.ZOO.items():
        path = tmp_path / f"zoo/{name}.safetensors"
        model = load(path)
        assert type(model.network) is entry.kind
        assert model.scale == entry.network.scale
        curve = json.loads(path.with_suffix(".json").read_text())
        assert curve[-1]["step"] >= 4
        assert path.with_suffix(".png").exists()
        assert not path.with_suffix(".safetensors.state").exists()
        assert json.loads(read_metadata(path)["srquant.recipe"])["training"]["minutes"] == 5 * entry.share / 28
    assert sum(entry.share for entry in zoo.ZOO.values()) == 28
    written = capsys.readouterr().out
    assert written.count("PSNR") == len(zoo.ZOO), "the curves are printed"
    steps = now[0]
    assert zoo.main(words) == 0
    assert now[0] == steps, "finished networks are passed over"


def test_an_interrupted_network_goes_on(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    learn, now = Weights.learn, [0.0]

    def ticking(self, low, high, rate, step):
        if len(seen) == 4:
            seen.append(-1)
            raise KeyboardInterrupt
        now[0] += 10.0
        seen.append(step)
        return learn(self, low, high, rate, step)

    monkeypatch.setattr(Weights, "learn", ticking)
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(states, "SAVE_EVERY", 10)
    words = ["train", "srresnet-x4", "--data", str(photographs), "--to", str(tmp_path), "--minutes", "1.5", "--tiny"]
    with pytest.raises(KeyboardInterrupt):
        zoo.main([*words, "--device", "cpu"])
    assert zoo.main([*words, "--device", "cpu"]) == 0
    assert seen == [0, 1, 2, 3, -1, 4, 5, 6, 7, 8], "ten seconds a step, a minute and a half"


def test_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built at full size are the networks of the papers."""

    def count(name: str) -> int:
        entry = zoo.ZOO[name]
        network: SRNetwork = entry.kind(entry.network)
        return sum(parameter.numel() for parameter in network.parameters())

    with torch.device("meta"):
        assert count("swinir-light-x4") == 929_628
        assert count("swinir-light-x2") == 910_152
        assert count("edsr-baseline-x4") == pytest.approx(1.52e6, rel=0.01)
        assert count("rdn-x4") == pytest.approx(22.3e6, rel=0.01)
    assert list(zoo.ZOO) == ["swinir-light-x4", "edsr-baseline-x4", "swinir-light-x2", "srresnet-x4", "rdn-x4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "edsr-x4"], "unknown network of the zoo 'edsr-x4'"),
        (["train", "--minutes", "0"], "give more than 0"),
        (["train", "rdn-x4", "--data", "nowhere", "--device", "cpu"], "nowhere is not a folder"),
        (["pack", "PHOTOS", "--to", "PHOTOS"], "holds files already"),
        (["pack", "PHOTOS", "--megabytes", "0.00001"], "no photograph that fits"),
        (["pack", "PHOTOS", "--crop", "0"], "give more than 0"),
    ],
)
def test_mistakes(
    words: list[str],
    message: str,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert zoo.main([str(photographs) if word == "PHOTOS" else word for word in words]) == 2
    assert message in capsys.readouterr().err


def test_packed_photographs_are_trained_on(photographs: Path, tmp_path: Path) -> None:
    zoo.pack(photographs, tmp_path / "pack", crop=64)
    low, high = Photographs.of(tmp_path / "pack", 4, 16).batch(0, 0, 3, 16)
    assert (low.shape, high.shape) == ((3, 3, 16, 16), (3, 3, 64, 64))
