"""Comparing methods, as a command and from Python."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import small_networks, write_png
from tests.images.test_pairs import make_pair

from srquant import configure
from srquant.analysis import benchmark
from srquant.images import Calibration, find_pairs
from srquant.images.evaluation import Scores, evaluate
from srquant.methods import PLQ
from srquant.model import load


@pytest.fixture
def network(tmp_path: Path) -> Path:
    torch.save(small_networks()["edsr"].state_dict(), tmp_path / "edsr.pth")
    make_pair(tmp_path / "Set5/x4", "1", 4)
    return tmp_path / "edsr.pth"


def counted(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[object]:
    """Grows with every row that is measured, as each is scored once; the one of this number is interrupted."""
    scored: list[object] = []

    def score(*arguments: Any) -> list[Scores]:
        scored.append(arguments)
        if len(scored) == stop_at:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(benchmark, "evaluate", score)
    return scored


def test_the_ablation_has_the_paper_beside_it_and_goes_on(
    run, network: Path, low_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table.json"
    words = ["bench", "oaptq-ablation", network, "--calibration", low_images, "--data", tmp_path / "Set5"]
    words += ["--patches", 3, "-o", out]
    counted(monkeypatch, stop_at=4)
    assert run(*words)[0] == 130
    assert [row["name"] for row in json.loads(out.read_text())["rows"]] == ["float", "MinMax", "VFT"]
    scored = counted(monkeypatch)
    code, text, _ = run(*words)
    assert code == 0
    assert len(scored) == 4
    names = ["float", "MinMax", "VFT", "SAFT", "PLQ", "PLQ+VFT", "PLQ+SAFT"]
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == names
    assert rows["VFT"]["settings"]["sensitivity"] == "uniform"
    assert (rows["SAFT"]["settings"]["quantizer"], rows["PLQ+SAFT"]["settings"]["quantizer"]) == ("uniform", "plq")
    assert "| PLQ+SAFT | W4A4 | per tensor | 8bit |" in text
    assert "| 31.54 |" in text
    assert out.with_suffix(".md").read_text() in text
    (folder,) = find_pairs(tmp_path / "Set5", 4)
    patches = Calibration.from_low_resolution(low_images, count=3)
    expected = evaluate(PLQ().quantize(load(network), patches), [folder], 4)[0]
    assert rows["PLQ"]["scores"]["Set5"]["psnr"] == expected.psnr
    assert not list(tmp_path.glob("*.state"))


def test_any_methods(run, network: Path, low_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    words = ["bench", "methods", network, "--calibration", low_images, "--data", tmp_path / "Set5/x4", "--patches", 3]
    words += ["--method", "mse:weights.granularity=per_channel", "--method", "plq:quantile=0.9,reallocate=false"]
    code, text, _ = run(*words, "--bits", 3, "--weight-bits", 5, "-o", out)
    assert code == 0
    assert "| mse:weights.granularity=per_channel | W5A3 | per channel | 8bit |" in text
    assert "(published)" not in text
    settings = json.loads(out.read_text())["rows"][2]["settings"]
    assert (settings["quantile"], settings["reallocate"]) == (0.9, False)
    code, _, error = run(*words, "--seed", 1, "-o", out)
    assert code == 2
    assert "holds a table of another network, calibration or data" in error
    out.write_text("{}")
    assert "is no table of this command" in run(*words, "-o", out)[2]
    assert "unknown method 'mso'" in run(*words, "--method", "mso", "-o", tmp_path / "b.json")[2]
    assert "give a name that ends so" in run(*words, "-o", tmp_path / "b.md")[2]


def test_rows_of_other_inputs_are_measured_anew(
    run, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all files have the names and sizes of those before."""
    low, data, out = tmp_path / "low", tmp_path / "Set5/x4", tmp_path / "table.json"
    for number in range(2):
        write_png(low / f"{number}.png", 24, 28, number)
    scored = counted(monkeypatch)

    def measured_by(*methods: str) -> int:
        scored.clear()
        words = [word for method in methods for word in ("--method", method)]
        code, text, error = run(
            "bench", "methods", network, "--calibration", low, "--data", data, "--patches", 2, "-o", out, *words
        )
        assert code == 0, error
        assert [f"| {method} |" in text for method in ("minmax", "mse", "plq")] == [
            method in methods for method in ("minmax", "mse", "plq")
        ]
        return len(scored)

    def names() -> list[str]:
        return [row["name"] for row in json.loads(out.read_text())["rows"]]

    assert measured_by("minmax", "mse") == 3
    assert measured_by("mse", "minmax") == 0
    assert measured_by("minmax", "plq") == 1
    assert measured_by("minmax:edges=8bit") == 0, "a title decides nothing"
    assert names() == ["float", "minmax:edges=8bit", "minmax", "plq", "mse"]

    first = [(low / "1.png").read_bytes(), network.read_bytes()]
    write_png(low / "1.png", 24, 28, 7)
    assert measured_by("minmax") == 2
    make_pair(data, "1", 4, seed=1)
    assert measured_by("minmax") == 2
    weights = torch.load(network)
    weights["tail.1.bias"] += 1e-3
    torch.save(weights, network)
    assert measured_by("minmax") == 2
    with monkeypatch.context() as patched:
        patched.setattr(torch, "__version__", "1.0")
        assert measured_by("minmax") == 2
    assert len(names()) == 5 + 4 * 2, "nothing that was measured is lost"
    (low / "1.png").write_bytes(first[0])
    network.write_bytes(first[1])
    make_pair(data, "1", 4)
    assert measured_by("minmax", "plq", "mse") == 0

    table = json.loads(out.read_text())
    for row in table["rows"]:
        del row["identity"]  # as tables of earlier versions are
    out.write_text(json.dumps(table))
    assert measured_by("minmax") == 2


def test_two_runs_on_one_table_lose_no_rows(
    run, network: Path, low_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins and ends while the first is at its first row, and learns by another method."""
    out, model = tmp_path / "table.json", load(network)
    patches, folders = Calibration.from_low_resolution(low_images, count=2), find_pairs(tmp_path / "Set5/x4", 4)
    methods = {"mse": configure("mse"), "plq": configure("plq")}
    nested: list[benchmark.Benchmark] = []

    def score(*arguments: Any) -> list[Scores]:
        if not nested:
            monkeypatch.setattr(benchmark, "evaluate", evaluate)
            nested.append(benchmark.run_benchmark(model, patches, folders, {"plq": methods["plq"]}, out))
        return evaluate(*arguments)

    monkeypatch.setattr(benchmark, "evaluate", score)
    found = benchmark.run_benchmark(model, patches, folders, methods, out)
    assert [row.name for row in found.rows] == ["float", "mse", "plq"]
    assert [row.name for row in nested[0].rows] == ["float", "plq"]
    assert found.rows[2] == nested[0].rows[1], "what the other has measured is not measured again"
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == ["float", "mse", "plq"]


def _add_ten(folder: Path, name: str) -> None:
    table = benchmark._Table(folder / "t.json", "edsr", "patches", ["Set5"])
    for number in range(10):
        table.add(benchmark.BenchmarkRow(f"{name}{number}", "", {}, 0.0, 0.0, {"Set5": {"psnr": 30.0}}))


def test_processes_that_write_one_table_at_once_lose_no_rows(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_ten, args=(tmp_path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    names = {row["name"] for row in json.loads((tmp_path / "t.json").read_text())["rows"]}
    assert names == {f"{name}{number}" for name in "ab" for number in range(10)}


def test_the_states_of_other_runs_stay(run, network: Path, low_images: Path, tmp_path: Path) -> None:
    """Of quantizing to ``long.safetensors``, of another row of the table, and files of the user."""
    out = tmp_path / "long.json"
    others = [tmp_path / f"long.{ending}" for ending in ("state", "safetensors.state", "json.state", "json.00.state")]
    for path in others:
        path.write_text("hours of work")
    words = ["bench", "methods", network, "--calibration", low_images, "--data", tmp_path / "Set5/x4", "--patches", 2]
    code, _, error = run(*words, "--method", "plq", "--method", "oaptq:finetuning.epochs=1", "-o", out)
    assert code == 0, error
    assert all(path.read_text() == "hours of work" for path in others)
    assert set(tmp_path.glob("*.state")) == set(others)


@pytest.mark.parametrize("command", ["oaptq-ablation", "methods"])
def test_help_has_examples(run, command: str) -> None:
    code, text, _ = run("bench", command, "--help")
    assert code == 0
    assert "Example" in text


def test_published_scores_stand_below_the_table(run, network: Path, low_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    words = ["bench", "methods", network, "--calibration", low_images, "--data", tmp_path / "Set5/x4", "--patches", 2]
    code, text, _ = run(*words, "--method", "minmax", "--published", "SwinIR-light", "-o", out)
    assert code == 0
    assert "| 2DQuant | W4A4 | 31.77 | 0.8867 |" in text and "| W3A3 |" not in text
    assert out.with_suffix(".md").read_text() in text
    code, _, error = run(*words, "--method", "minmax", "--published", "swinir-lihgt", "-o", tmp_path / "other.json")
    assert code == 2 and "did you mean 'SwinIR-light'" in error and not (tmp_path / "other.json").exists()


def test_published_scores_alone(run) -> None:
    code, text, _ = run("bench", "published", "edsr-baseline")
    assert code == 0 and "| PLQ+SAFT | W4A4 | 31.54 | 0.879 |" in text and "| AdaBM | W6A6 |" in text
    code, _, error = run("bench", "published", "RDN", "--bits", 5)
    assert code == 2 and "×4 at 6 bits" in error


def test_a_paper_may_leave_a_score_out(run) -> None:
    code, text, _ = run("bench", "published", "SwinIR-light", "--scale", 2, "--bits", 2)
    assert code == 0
    assert "| 32.19 |  |" in text
