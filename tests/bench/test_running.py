"""A grid from beginning to end: what is computed, what is not computed again, what a failure or an end stops."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.bench.helpers import Here, run_here, small_grid, subject, titled, without_times
from tests.conftest import small_networks, write_png
from tests.images.test_pairs import make_pair

import srquant
from srquant import configure
from srquant.bench import read_records
from srquant.bench.cells import Grid, plan
from srquant.bench.measuring import Wishes
from srquant.bench.running import run_grid
from srquant.images.evaluation import evaluate
from srquant.learning import state as state_file
from srquant.model import load
from srquant.support.errors import ArgumentError, ImageError, OutputError, UnknownNameError


def test_scores_are_those_of_evaluate(tmp_path: Path, low_images: Path) -> None:
    grid = small_grid(tmp_path, low_images, "plq")
    runs, _ = run_here(grid, tmp_path / "runs", keep_models=True, sensitivities=True)
    before, after = runs
    small = grid.subjects[0]
    quantized = configure("plq").quantize(small.model, small.calibration)
    (expected,) = evaluate(quantized, [each.folder for each in small.data], 4)
    assert after.data[0].scores["psnr"] == tuple(image.psnr for image in expected.images)
    assert after.data[0].scores["ssim_adabm"] == tuple(image.ssim_adabm for image in expected.images)
    assert after.data[0].float_scores == before.data[0].scores == before.data[0].float_scores
    assert after.coverage == quantized.record.coverage and after.losses == quantized.record.losses
    assert after.layer_bits == {"W8A8": 4, "W4A4": 5}
    assert set(after.sensitivities) == {layer.name for layer in quantized.layers()}
    assert after.stored_bits == quantized.sizes().stored_bits
    kept = load(runs.model_path(after))
    assert kept.network.state_dict().keys() == quantized.network.state_dict().keys()
    assert (
        after.file_bytes
        == runs.model_path(after).stat().st_size
        == quantized.save(tmp_path / "q.safetensors").stat().st_size
    )
    assert before.model == "" and before.file_bytes > after.file_bytes
    assert after.peak_memory > 1 << 20 and after.wall_seconds > 0 and after.latency > 0
    assert after.speed_up > 1 == before.speed_up
    assert after.processor and after.versions["srquant"] == srquant.__version__
    assert list(read_records(tmp_path / "runs")) == list(runs)


def test_nothing_is_computed_twice(tmp_path: Path, low_images: Path) -> None:
    out = tmp_path / "runs"
    assert run_here(small_grid(tmp_path, low_images, "minmax"), out)[1] == ["float", "minmax"]
    grid = small_grid(tmp_path, low_images, "mse", "minmax:edges=8bit")
    runs, computed = run_here(grid, out)
    assert computed == ["mse"]
    assert [record.title for record in runs] == ["float", "mse", "minmax:edges=8bit"], "as they were asked for now"
    assert [record.title for record in read_records(out)] == ["float", "minmax", "mse"]
    runs, computed = run_here(grid, out, keep_models=True)
    assert computed == ["mse", "minmax:edges=8bit"], "for their models, which were not kept"
    assert all(runs.model_path(record) for record in runs.done[1:])
    assert run_here(grid, out, keep_models=True)[1] == []
    path = runs.model_path(runs.records[1])
    path.unlink()
    assert run_here(grid, out, keep_models=True)[1] == ["mse"]
    assert path.exists()


def test_a_damaged_record_is_computed_anew(tmp_path: Path, low_images: Path) -> None:
    out, grid = tmp_path / "runs", small_grid(tmp_path, low_images, "minmax")
    wanted, _ = run_here(grid, out)
    for content in (b"", b"{", b"{}"):
        next((out / "records").glob("*minmax*")).write_bytes(content)
        runs, computed = run_here(grid, out)
        assert computed == ["minmax"]
        assert without_times(runs.records) == without_times(wanted.records)
    assert len(list((out / "records").iterdir())) == 2


def test_a_cell_that_fails_says_why_and_stops_no_other(tmp_path: Path, low_images: Path) -> None:
    out = tmp_path / "runs"
    grid = small_grid(tmp_path, low_images, "minmax:layers=nothing.*=8", "plq")
    runs, _ = run_here(grid, out)
    (failed,) = runs.failed
    assert failed.title == "minmax:layers=nothing.*=8" and "matches no layer" in failed.reason and failed.data == ()
    assert [record.title for record in runs.done] == ["float", "plq"]
    assert run_here(grid, out)[1] == ["minmax:layers=nothing.*=8"], "it is tried again, the others are not"


def test_what_nobody_foresaw_is_a_reason_too(tmp_path: Path, low_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def divide(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing\nsecond line")

    grid = small_grid(tmp_path, low_images, "minmax", "plq")
    monkeypatch.setattr(srquant.MinMax, "quantize", divide)
    runs, _ = run_here(grid, tmp_path / "runs")
    assert [record.reason for record in runs.failed] == ["ZeroDivisionError: by nothing"]
    assert len(runs.done) == 2


def test_without_scores_of_the_float_network_its_cells_fail(tmp_path: Path, low_images: Path) -> None:
    good, bad = subject(tmp_path, low_images), subject(tmp_path, low_images, "srresnet")
    grid = plan([(bad, [titled("minmax")]), (good, [titled("minmax")])], "cpu")
    pair = bad.data[0].folder.pairs[0]
    write_png(pair.low, 4, 4)
    runs, computed = run_here(grid, tmp_path / "runs")
    assert computed == ["float", "float", "minmax"]
    assert {record.network.name for record in runs.failed} == {"srresnet.pth"}
    quantized = next(record for record in runs.failed if record.method == "minmax")
    assert quantized.reason.startswith("the float network could not be scored: ")


def test_a_bench_that_is_ended_goes_on(tmp_path: Path, low_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between cells, and in the middle of learning, from its state."""
    monkeypatch.setattr(state_file, "SAVE_EVERY", 0.0)
    grid = small_grid(tmp_path, low_images, "minmax", "oaptq:finetuning.epochs=4", "mse")
    wanted, _ = run_here(grid, tmp_path / "undisturbed")
    out, wishes = tmp_path / "runs", Wishes(device="cpu")
    saved: list[int] = []
    save = state_file.StateFile.save

    def stop(self: state_file.StateFile, step: int, *rest: object) -> None:
        save(self, step, *rest)
        saved.append(step)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(state_file.StateFile, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, out, wishes, team=Here(grid, wishes))
    assert [record.title for record in read_records(out)] == ["float", "minmax"]
    assert len(list((out / "states").iterdir())) == 1
    monkeypatch.setattr(state_file.StateFile, "save", save)
    steps: list[int] = []
    monkeypatch.setattr(state_file.StateFile, "save", lambda self, step, *rest: steps.append(step))
    runs, computed = run_here(grid, out)
    assert computed == ["oaptq:finetuning.epochs=4", "mse"]
    assert min(steps) == saved[-1] == 3, "where it stopped"
    assert without_times(runs.records) == without_times(wanted.records)
    assert not (out / "states").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, low_images: Path) -> None:
    grid = small_grid(tmp_path, low_images, "minmax")
    (tmp_path / "file").write_text("")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    team = Here(grid, Wishes())
    for out in (tmp_path / "file", tmp_path / "file/runs", closed):
        with pytest.raises(OutputError, match="cannot write"):
            run_grid(grid, out, Wishes(), team=team)
    assert team.computed == [], "before anything is computed"
    run_grid(grid, tmp_path / "runs", Wishes(), team=team)
    (tmp_path / "runs").chmod(0o500)
    assert len(run_grid(grid, tmp_path / "runs", Wishes(), team=team)) == 2, "nothing is left to be written"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    networks = small_networks()
    torch.save(networks["edsr"].state_dict(), tmp_path / "edsr.pth")
    torch.save(networks["srresnet"].state_dict(), tmp_path / "srresnet.pth")
    for number in range(2):
        write_png(tmp_path / f"low/{number}.png", 24, 28, number)
        write_png(tmp_path / f"photos/{number}.png", 80, 100, number)
    for scale in (2, 4):
        make_pair(tmp_path / f"Set5/x{scale}", "1", scale)
    return tmp_path


def test_python_is_as_the_command_line(run, inputs: Path) -> None:
    """Networks of two scales, each on the data of its own."""
    words = ["bench", "run", inputs / "edsr.pth", inputs / "srresnet.pth", "--method", "minmax", "--bits", "8/6"]
    words += ["--data", inputs / "Set5/x2", "--data", inputs / "Set5/x4", "--patches", 2, "--threads", 1]
    code, text, error = run(*words, "--calibration-hr", inputs / "photos", "--workers", 2, "-o", inputs / "a")
    assert code == 0, error
    assert text.count("| minmax | W8A6 |") == 2
    assert error.count(" dB") == 4
    runs = srquant.bench.run(
        [inputs / "edsr.pth", load(inputs / "srresnet.pth")],
        {"minmax": srquant.MinMax()},
        bits=["8/6"],
        data=[inputs / "Set5/x2", inputs / "Set5/x4"],
        calibration_hr=inputs / "photos",
        patches=2,
        output=inputs / "b",
        threads=1,
    )
    other = read_records(inputs / "a")
    assert without_times(runs.records) == without_times(other.records), "whatever the number of workers"
    assert [record.bits for record in runs] == ["float", "W8A6"] * 2
    assert srquant.bench.show(runs, published="none").count("| float |") == 2


def test_what_cannot_be_used_is_said_before_anything_is_computed(inputs: Path) -> None:
    def compute(networks=("edsr.pth",), methods=("minmax",), data=("Set5/x4",), **more: object) -> None:
        given = {"calibration": inputs / "low", "patches": 2, "output": inputs / "runs"} | more
        srquant.bench.run([inputs / each for each in networks], methods, data=[inputs / each for each in data], **given)

    cases: list[tuple[type[Exception], str, dict[str, object]]] = [
        (UnknownNameError, "unknown method 'minmox'; did you mean 'minmax'", {"methods": ["minmox"]}),
        (UnknownNameError, "unknown field 'shore'", {"methods": ["minmax:shore=1"]}),
        (UnknownNameError, "unknown field 'shore'", {"settings": ["shore=1"]}),
        (ArgumentError, "bits=9 is outside 2…8", {"bits": ["9"]}),
        (ArgumentError, "bits='x' is no number of bits", {"bits": ["x"]}),
        (ArgumentError, "contradicts bits=3", {"methods": ["minmax:bits=3"], "bits": ["4"]}),
        (ArgumentError, "there are no methods; name some", {"methods": []}),
        (ArgumentError, "there are no networks", {"networks": []}),
        (ArgumentError, "give either calibration", {"calibration_hr": inputs / "photos"}),
        (ImageError, "no data to score on", {"data": []}),
        (ImageError, "no data of it", {"networks": ["edsr.pth", "srresnet.pth"]}),
        (ImageError, "at scale 4 the HR image must be 120x96", {"data": ["Set5/x2"]}),
        (ImageError, "is not a folder of images or of pairs", {"data": ["Set5/x4", "nowhere"]}),
        (ImageError, "two data sets are called Set5", {"data": ["Set5/x4", "Set5/x4"]}),
        (ArgumentError, "overlap=0 is of tiles", {"overlap": 0}),
        (ArgumentError, "tile=3 is outside", {"tile": 3}),
        (ArgumentError, "workers=0 is outside 1…1,024", {"workers": 0}),
        (ArgumentError, "threads=0 is outside 1…1,024", {"threads": 0}),
        (ArgumentError, "device='moon' is not available here", {"device": "moon"}),
        (UnknownNameError, "unknown score 'lpisp'; did you mean 'lpips'", {"scores": ["lpisp"]}),
        (OutputError, "cannot write", {"output": inputs / "edsr.pth"}),
    ]
    for kind, message, given in cases:
        with pytest.raises(kind) as raised:
            compute(**given)
        assert message in str(raised.value), given
    assert not (inputs / "runs").exists()


def test_fields_hold_commas() -> None:
    ((_, method),) = srquant.bench.requests.configured(["minmax:layers=a.*=8,b.*=4,edges=none"])
    assert (method.layers, method.edges) == (("a.*=8", "b.*=4"), "none")


def test_a_setting_goes_to_every_method_that_has_it(tmp_path: Path) -> None:
    apply = srquant.bench.suites.apply
    made = dict(apply([titled("minmax"), titled("plq"), titled("oaptq")], ["quantile=0.9", "finetuning.epochs=2"]))
    assert (made["plq"].quantile, made["oaptq"].quantile, made["oaptq"].finetuning.epochs) == (0.9, 0.9, 2)
    with pytest.raises(ArgumentError, match="quantile=2"):
        apply([titled("minmax"), titled("plq")], ["quantile=2"])


def test_records_are_small(tmp_path: Path, low_images: Path) -> None:
    runs, _ = run_here(small_grid(tmp_path, low_images, "minmax"), tmp_path / "runs")
    for path in (runs.folder / "records").iterdir():
        assert path.stat().st_size < 10_000 and json.loads(path.read_text())


def test_warnings_are_notes_of_the_record(tmp_path: Path, low_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid: Grid = small_grid(tmp_path, low_images)
    runs, _ = run_here(grid, tmp_path / "runs")
    (record,) = runs
    assert any("does not look like its input" in note for note in record.notes), "weights are random"
    assert replace(record, notes=()) != record


def test_methods_that_learn_with_ground_truth_are_given_the_photographs(tmp_path: Path, low_images: Path) -> None:
    for number in range(2):
        write_png(tmp_path / f"photos/{number}.png", 100, 110, number)
    short = "pams:training.steps=2,training.batch=1,training.patch=24"
    own = subject(tmp_path, low_images)
    with pytest.raises(ArgumentError, match="pams learns with ground truth: give calibration_hr, a folder of photogr"):
        plan([(own, [titled(short)])], "cpu")
    own = replace(own, photographs=tmp_path / "photos")
    grid = plan([(own, [titled(short), titled("minmax")])], "cpu")
    pams, minmax = grid.cells[1:]
    assert (
        pams.calibration.startswith("2 photographs") and pams.identity["calibration"] != minmax.identity["calibration"]
    )
    runs, _ = run_here(grid, tmp_path / "runs")
    assert [record.reason for record in runs] == ["", "", ""]
    assert runs.records[1].method == "pams" and runs.records[1].curve
    write_png(tmp_path / "photos/1.png", 100, 110, 9)
    again = plan([(own, [titled(short), titled("minmax")])], "cpu")
    assert [new.key == old.key for new, old in zip(again.cells, grid.cells, strict=True)] == [True, False, True]


def test_bits_that_follow_the_image_stand_beside_the_scores(tmp_path: Path, low_images: Path) -> None:
    grid = small_grid(tmp_path, low_images, "adabm:finetuning.epochs=1", "minmax")
    runs, _ = run_here(grid, tmp_path / "runs")
    assert [record.reason for record in runs] == ["", "", ""]
    fab = runs.records[1].data[0].fab
    assert fab is not None and 2 <= fab <= 8
    assert runs.records[2].data[0].fab is None
    assert f"| adabm:finetuning.epochs=1 | W4A4 | 100.0% | {fab:.2f} |" in srquant.bench.show(runs)
    assert list(read_records(tmp_path / "runs")) == list(runs)
