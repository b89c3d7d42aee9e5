"""``srquant bench`` on the command line; what it computes is tested in ``tests/bench``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import small_networks
from tests.images.test_pairs import make_pair

from srquant.bench import read_records
from srquant.bench.suites import SUITES


@pytest.fixture
def words(tmp_path: Path, low_images: Path) -> list[object]:
    torch.save(small_networks()["edsr"].state_dict(), tmp_path / "edsr.pth")
    make_pair(tmp_path / "Set5/x4", "1", 4)
    sources = ["--calibration", low_images, "--data", tmp_path / "Set5/x4", "--patches", 2, "--threads", 1]
    return ["bench", "run", tmp_path / "edsr.pth", *sources, "-o", tmp_path / "runs"]


def test_a_grid_and_its_tables(run, words: list[object], tmp_path: Path) -> None:
    methods = ["--method", "mse:weights.granularity=per_channel", "--method", "plq:quantile=0.9,reallocate=false"]
    code, text, error = run(*words, *methods, "--bits", "5/3", "--set", "norms=folded", "--keep-models")
    assert code == 0, error
    assert "| mse:weights.granularity=per_channel | W5A3 | per channel |" in text and "edges 8bit" in text
    runs = read_records(tmp_path / "runs")
    settings = runs.records[2].settings
    assert (settings["quantile"], settings["reallocate"], settings["norms"]) == (0.9, False, "folded")
    code, text, _ = run("inspect", runs.model_path(runs.records[1]))
    assert code == 0 and "method: mse" in text
    code, again, error = run(*words, *methods, "--bits", "5/3", "--set", "norms=folded", "--keep-models")
    assert code == 0 and error == "", "nothing is computed twice"
    code, text, _ = run("bench", "show", tmp_path / "runs")
    assert code == 0 and text == again
    code, text, _ = run("bench", "show", tmp_path / "runs", "--format", "csv", "--ssim", "adabm")
    assert code == 0 and text.startswith("network,scale,method,")
    assert "\\begin{tabular}" in run("bench", "show", tmp_path / "runs", "--format", "latex")[1]


def test_failed_cells_make_another_exit_code(run, words: list[object], tmp_path: Path) -> None:
    code, text, error = run(*words, "--method", "minmax:layers=x=8", "--method", "mse")
    assert code == 1
    assert "minmax:layers=x=8 W4A4 on edsr.pth: failed: " in error and "Traceback" not in error
    assert "- minmax:layers=x=8 W4A4: not computed: " in text and "| mse | W4A4 |" in text


def test_mistakes_are_one_line(run, words: list[object], tmp_path: Path) -> None:
    for more, message in (
        ([], "there are no methods; name some"),
        (["--method", "mso"], "unknown method 'mso'"),
        (["--method", "mse", "--set", "shore=1"], "unknown field 'shore'"),
        (["--method", "mse", "--calibration-hr", tmp_path], "give either calibration"),
        (["--method", "mse", "--workers", 0], "workers=0 is outside"),
        (["--suite", "oaptq-table1"], "nothing of oaptq-table1 can be computed"),
    ):
        code, _, error = run(*words, *more)
        assert (code, error.count("error: "), message in error) == (2, 1, True), error
    assert not (tmp_path / "runs").exists()
    code, _, error = run("bench", "show", tmp_path / "runs")
    assert code == 2 and "is no folder; give one that srquant bench run has written" in error


def test_suites_are_listed(run) -> None:
    code, text, _ = run("bench", "suites")
    assert code == 0 and all(f"{name}: " in text for name in SUITES)


@pytest.mark.parametrize("command", ["run", "show", "suites", "large-pictures", "published"])
def test_help_has_examples(run, command: str) -> None:
    code, text, _ = run("bench", command, "--help")
    assert code == 0
    assert "Example" in text


def test_published_scores_alone(run) -> None:
    code, text, _ = run("bench", "published", "edsr-baseline")
    assert code == 0 and "| PLQ+SAFT | W4A4 | 31.54 | 0.879 |" in text and "| AdaBM | W6A6 |" in text
    code, _, error = run("bench", "published", "RDN", "--bits", 5)
    assert code == 2 and "×4 at 6 bits" in error


def test_a_paper_may_leave_a_score_out(run) -> None:
    code, text, _ = run("bench", "published", "SwinIR-light", "--scale", 2, "--bits", 2)
    assert code == 0
    assert "| 32.19 |  |" in text
