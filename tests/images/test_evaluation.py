from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import write_png
from tests.images.test_pairs import make_pair

from srquant import evaluate
from srquant.images import find_pairs
from srquant.images.evaluation import enlarge, score, write_scores
from srquant.model import Model, load
from srquant.support.errors import ArgumentError, ImageError

FLOAT_SCORES = {
    ("edsr_b8_x2.safetensors", "Set5"): 37.80,
    ("edsr_b8_x2.safetensors", "Set14"): 33.38,
    ("edsr_b16_x4.safetensors", "Set5"): 31.672,
    ("edsr_b16_x4.safetensors", "Set14"): 28.269,
    ("srresnet_b8_x4.safetensors", "Set5"): 31.88,
    ("srresnet_b8_x4.safetensors", "Set14"): 28.43,
    ("craft_x4.pth", "Set5"): 32.39,
}
"""dB, from data/README.md and edsr_b16_x4.json beside the shared images."""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param(*row, marks=pytest.mark.exhaustive if row[1] == "Set14" else ())  # takes six times as long as Set5
        for row in FLOAT_SCORES
    ],
)
def test_float_scores_are_reproduced(shared: Path, name: str, data: str) -> None:
    model = load(shared / "models" / name)
    (scores,) = evaluate(model, shared / "data" / data / f"x{model.scale}")
    assert scores.psnr == pytest.approx(FLOAT_SCORES[name, data], abs=0.01)


def test_scores_of_a_parent_folder(edsr: Model, tmp_path: Path) -> None:
    make_pair(tmp_path / "A/x4", "1", 4, 1)
    make_pair(tmp_path / "B/x4", "1", 4, 2)
    make_pair(tmp_path / "B/x4", "2", 4, 3)
    scores = evaluate(edsr, tmp_path)
    assert [(row.name, len(row.images)) for row in scores] == [("A", 1), ("B", 2)]
    assert scores[1].psnr == pytest.approx(np.mean([image.psnr for image in scores[1].images]))


def test_any_callable_is_scored(tmp_path: Path) -> None:
    from srquant.images.evaluation import evaluate as evaluate_callable

    make_pair(tmp_path, "1", 4)
    folders = find_pairs(tmp_path, 4)
    high = torch.from_numpy(np.asarray(Image.open(tmp_path / "HR/1.png")).copy()).permute(2, 0, 1)[None] / 255
    (perfect,) = evaluate_callable(lambda _: high, folders, 4)
    assert perfect.psnr == float("inf")
    (black,) = evaluate_callable(lambda _: 0 * high, folders, 4)
    assert black.psnr < 15


def test_output_is_clamped_and_rounded() -> None:
    values = torch.tensor([-0.2, 0.4 / 255, 0.6 / 255, 254.6 / 255, 7.0])
    low = np.zeros((1, 5, 3), np.uint8)
    pixels = enlarge(lambda x: values.expand(1, 3, 1, 5), low, 1)
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 255, 255]


def test_the_border_is_cropped() -> None:
    reference = np.random.default_rng(0).integers(0, 256, (30, 30, 3)).astype(np.uint8)
    output = reference.copy()
    output[:4] = output[-4:] = 0
    output[:, :4] = output[:, -4:] = 0
    assert score(output, reference, 4).psnr == float("inf")
    assert score(output, reference, 3).psnr < 40


def test_patches_without_overlap_are_scored_as_they_are_enlarged_alone(edsr: Model, tmp_path: Path) -> None:
    make_pair(tmp_path, "1", 4)
    (folder,) = find_pairs(tmp_path, 4)
    low, high = next(iter(folder)).read()
    rows = [
        np.concatenate([enlarge(edsr, low[y : y + 16, x : x + 16], 4) for x in range(0, low.shape[1], 16)], 1)
        for y in range(0, len(low), 16)
    ]
    whole = np.concatenate(rows)
    (found,) = evaluate(edsr, tmp_path, tile=16, overlap=0)
    assert found.psnr == pytest.approx(score(whole, high, 4).psnr, abs=1e-6)
    with pytest.raises(ArgumentError, match="give tile=96 too"):
        evaluate(edsr, tmp_path, overlap=0)


def test_tiles_and_whole_images_score_alike(edsr: Model, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", 300, 240)
    whole, cut = evaluate(edsr, tmp_path), evaluate(edsr, tmp_path, tile=32)
    assert whole[0].psnr == pytest.approx(cut[0].psnr, abs=1e-3)


def test_scores_as_json(edsr: Model, tmp_path: Path) -> None:
    make_pair(tmp_path / "A/x4", "1", 4, 1)
    scores = evaluate(edsr, tmp_path)
    write_scores(tmp_path / "scores.json", "m", scores)
    content = json.loads((tmp_path / "scores.json").read_text())
    row = content["data"]["A"]
    assert row.keys() == {"psnr", "ssim", "ssim_adabm", "lr", "images"}
    assert row["lr"] == "given"
    assert row["images"]["1.png"] == {key: row[key] for key in ("psnr", "ssim", "ssim_adabm")}


def test_infinite_scores_are_valid_json(tmp_path: Path) -> None:
    from srquant.images.evaluation import ImageScores, Scores

    write_scores(tmp_path / "s.json", "m", [Scores("A", (ImageScores("1", float("inf"), 1.0, 1.0),))])

    def refuse(text: str) -> None:
        raise ValueError(text)

    content = json.loads((tmp_path / "s.json").read_text(), parse_constant=refuse)
    assert content["data"]["A"]["psnr"] == "inf"


def test_bad_data(edsr: Model, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no data to evaluate on"):
        evaluate(edsr)
    make_pair(tmp_path / "x2", "1", 2)
    with pytest.raises(ImageError, match="at scale 4 the HR image must be"):
        evaluate(edsr, tmp_path / "x2")
    write_png(tmp_path / "tiny/a.png", 16, 16)
    with pytest.raises(ArgumentError, match="at least 11x11"):
        evaluate(edsr, tmp_path / "tiny")
    with pytest.raises(ArgumentError, match="is this the right scale"):
        score(np.zeros((20, 20, 3), np.uint8), np.zeros((40, 40, 3), np.uint8), 4)
