"""The command line, as a user meets it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.conftest import small_networks, write_png
from tests.images.test_pairs import make_pair

from srquant import configure
from srquant.images import Calibration, read_picture
from srquant.learning import state as states
from srquant.model import load


@pytest.fixture
def network(tmp_path: Path) -> Path:
    torch.save(small_networks()["edsr"].state_dict(), tmp_path / "edsr.pth")
    return tmp_path / "edsr.pth"


def test_the_whole_way(run, network: Path, low_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "w4a4.safetensors"
    code, text, _ = run("quantize", network, "--calibration", low_images, "-o", out, "--patches", 6, "--method", "plq")
    assert code == 0
    assert "6 patches of 32x32 (not 96x96: the smallest image allows no more) from 6 LR images, seed 0" in text
    assert re.search(r"this will take about \d+ (seconds|minutes?) and [\d.]+ GiB of memory", text)
    assert "quantized: 9 layers, 100.0% of the multiply-adds" in text
    assert "layers that lose most (of 9, each quantized alone; " in text
    assert text.count("=float' (") == 3
    assert "compression: " in text

    code, text, _ = run("inspect", out)
    assert code == 0
    assert "edsr ×4" in text
    assert "plq" in text
    assert "body.0.body.0" in text
    assert "made from: edsr.pth" in text
    assert "layers that lose most (of 9" in text
    assert re.search(r"conv +4/4 +5 +2,880 +1,440\n", text)
    assert re.search(r"all +9 +7,920 +[\d,]+\n", text)

    make_pair(tmp_path / "Set/x4", "1", 4)
    code, text, _ = run("evaluate", out, tmp_path / "Set/x4", "--json", tmp_path / "s.json")
    assert code == 0
    assert "Set" in text
    assert json.loads((tmp_path / "s.json").read_text())["data"]["Set"]["images"].keys() == {"1.png"}

    write_png(tmp_path / "p.png", 20, 30)
    code, text, _ = run("upscale", out, tmp_path / "p.png", "-o", tmp_path / "q.png")
    assert (code, text) == (0, "wrote 1 picture\n")
    assert read_picture(tmp_path / "q.png").size == (80, 120)


def test_python_and_the_command_line_make_the_same_file(run, network: Path, low_images: Path, tmp_path: Path) -> None:
    import srquant

    out = tmp_path / "a.safetensors"
    options = ["--patches", 6, "--method", "mse", "--bits", 3, "--weight-bits", 5, "--edges", "float", "--seed", 4]
    options += ["--layer", "body.0.*=8"]
    run(
        "quantize",
        network,
        "--calibration",
        low_images,
        "-o",
        out,
        *options,
        "--set",
        "weights.granularity=per_channel",
    )
    patches = srquant.Calibration.from_low_resolution(low_images, count=6, seed=4)
    method = srquant.configure(
        "mse", 3, weight_bits=5, edges="float", layers=["body.0.*=8"], settings=["weights.granularity=per_channel"]
    )
    srquant.quantize(srquant.load(network), patches, method).save(tmp_path / "b.safetensors")
    assert out.read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.filterwarnings("always::srquant.support.errors.FolderWarning")
def test_upscaling_a_folder_says_what_it_did_not_do(run, network: Path, tmp_path: Path) -> None:
    """Also when it is run again, with the results inside the folder."""
    album = tmp_path / "album"
    write_png(album / "a.png", 20, 24)
    write_png(album / "sub/b.png", 20, 24)
    (album / "c.png").write_bytes(b"no picture")
    (album / "notes.txt").write_text("x")
    for again in ((), (), ("--skip-existing",)):
        code, text, error = run("upscale", network, album, "-o", album / "x4", *again)
        assert code == 2
        assert ("wrote 2 pictures\n" if not again else "wrote 0 pictures, 2 were there already\n") == text
        assert "error: 1 of the pictures failed:\n" in error
        assert "c.png is not an image" in error
        assert "passed over 1 × not a picture (notes.txt)" in error.splitlines()[0]
    assert sorted(path.relative_to(album).as_posix() for path in album.rglob("*.png")) == (
        ["a.png", "c.png", "sub/b.png", "x4/a.png", "x4/sub/b.png"]
    )


def test_evaluating_says_where_lr_was_made(run, network: Path, tmp_path: Path) -> None:
    make_pair(tmp_path / "data/given", "1", 4)
    write_png(tmp_path / "data/made/HR/1.png", 48, 60)
    code, text, _ = run("evaluate", network, tmp_path / "data", "--json", tmp_path / "s.json")
    assert code == 0
    assert "made: there are no LR images; they were made from the HR images by MATLAB's bicubic" in text
    assert "given: there are no LR images" not in text
    sets = json.loads((tmp_path / "s.json").read_text())["data"]
    assert {name: content["lr"] for name, content in sets.items()} == {"given": "given", "made": "made by bicubic"}


def test_photographs_and_float_networks(run, network: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "photos/a.png", 120, 140)
    out = tmp_path / "m.safetensors"
    words = ["quantize", network, "--calibration-hr", tmp_path / "photos", "-o", out, "--patches", 2]
    code, text, _ = run(*words, "--effort", "quick")
    assert code == 0
    assert load(out).record.settings["effort"] == "quick"
    code, _, error = run(*words, "--effort", "quick", "--method", "plq")
    assert code == 2 and "unknown field 'effort'" in error
    assert "photographs shrunk by 4" in text
    assert load(out).record is not None
    code, text, _ = run("inspect", network)
    assert code == 0
    assert "channels=8 blocks=2" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bits", "1"], "bits=1 is outside 2…8"),
        (["--bits", "16"], "bits=16 is outside 2…8"),
        (["--method", "plc"], "unknown method 'plc'; did you mean 'plq'? known: 2dquant, adabm, "),
        (["--method", "plq", "--set", "quantil=0.9"], "unknown field 'quantil'; did you mean 'quantile'?"),
        (["--set", "observation.ema_deacy=1"], "did you mean 'observation.ema_decay'?"),
        (["--method", "plq", "--set", "quantile=much"], "quantile=much is not a number"),
        (["--set", "quantile"], "is not an assignment"),
        (
            ["--method", "plq", "--set", "quantile=0.9", "--set", "share=0.8"],
            "share=0.8 contradicts quantile=0.9; give one of them",
        ),
        (["--bits", "4", "--set", "bits=3"], "bits=4 contradicts bits=3"),
        (["--set", "weights=1"], "weights has fields of its own; set one of weights.range"),
        (
            ["--set", "weights.range=all"],
            "known: bound_search, density_clipping, joint_shrink, least_squares, min_max, percentile",
        ),
        (["--method", "plq", "--set", "reallocate=perhaps"], "reallocate=perhaps is not true or false"),
        (["--layer", "nothing=8"], "'nothing' matches no layer"),
        (["--device", "cuda:77"], "device='cuda:77' is not available here"),
        (["--patch-size", "8"], "size=8 is too small"),
        (["--patch-size", "65"], "is that large; give at most 32, which the smallest (5.png) allows, or no size"),
        (["--patches", "0"], "count=0 is outside 1…100,000"),
        (["--patches", "1000000000"], "count=1000000000 is outside 1…100,000"),
        (["--seed", "-1"], "seed=-1 is outside [0, "),
        (["--value-range", "0"], "value_range=0.0 is outside (0, 65,535]"),
        (["--value-range", "-1"], "value_range=-1.0 is outside (0, 65,535]"),
        (["--value-range", "nan"], "value_range=nan is not a finite number"),
        (["--weight-bits", "9"], "weight_bits=9 is outside 2…8"),
        (["--device", "meta"], "device='meta' is not available here"),
        (["--method", "oaptq", "--set", "finetuning.beta1=2"], "finetuning.beta1=2 is outside [0, 1)"),
        (["--method", "oaptq", "--set", "reconstruction=-1"], "reconstruction=-1 is outside [0, 1,000,000]"),
        (["--method", "oaptq", "--set", "finetuning.epochs=1e9"], "finetuning.epochs=1e9 is not a whole number"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(
    run, network: Path, low_images: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    out = tmp_path / "m.safetensors"
    code, _, error = run("quantize", network, "--calibration", low_images, "-o", out, *words)
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not out.exists()


@pytest.mark.filterwarnings("ignore::srquant.support.errors.FolderWarning")
def test_bad_input_is_one_line(run, network: Path, low_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    (tmp_path / "empty").mkdir()
    write_png(tmp_path / "small/a.png", 12, 40)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_bytes(b"no picture")
    (tmp_path / "cut.pth").write_bytes(network.read_bytes()[:1000])
    (tmp_path / "locked").mkdir(mode=0o555)
    make_pair(tmp_path / "x2", "a", 2)
    for words, message in (
        (["quantize", network, "--calibration", tmp_path / "empty", "-o", out], "holds no images to calibrate on"),
        (["quantize", network, "--calibration", tmp_path / "small", "-o", out], "need at least 16x16 pixels"),
        (["quantize", network, "--calibration", tmp_path / "broken", "-o", out], "is not an image"),
        (["quantize", network, "-o", out], "give either --calibration"),
        (["quantize", network, "--calibration", low_images, "--calibration-hr", low_images, "-o", out], "give either"),
        (["quantize", tmp_path / "cut.pth", "--calibration", low_images, "-o", out], "not a checkpoint, or is damaged"),
        (["quantize", tmp_path / "none.pth", "--calibration", low_images, "-o", out], "is not there"),
        (["quantize", network, "--calibration", low_images, "-o", tmp_path / "m.pth"], "give a name that ends so"),
        (["quantize", network, "--calibration", low_images, "-o", tmp_path / "locked/m.safetensors"], "read-only"),
        (["evaluate", network, tmp_path / "x2"], "is this the right scale"),
        (["evaluate", network, tmp_path / "empty"], "neither HR and LR folders nor images"),
        (["upscale", network, tmp_path / "broken/a.png", "-o", tmp_path / "b.png"], "is not an image"),
        (["upscale", network, tmp_path / "broken", "-o", tmp_path / "b"], "1 of the pictures failed"),
        (["upscale", network, low_images / "0.png", "-o", tmp_path / "b.png", "--tile", 3], "tile=3"),
        (["inspect", tmp_path / "broken/a.png"], "is a text, not weights"),
        (["train", "EDSRR", "--data", low_images, "-o", out], "unknown network 'edsrr'; did you mean 'edsr'?"),
        (["train", "EDSR", "--data", tmp_path / "empty", "-o", out], "holds no image of at least"),
        (["train", "EDSR", "--data", low_images, "-o", out, "--set", "training.step=3"], "mean 'training.steps'?"),
        (["train", "EDSR", "--data", low_images, "-o", out, "--scale", 5, "--set", "training.patch=8"], "scale=5"),
    ):
        code, _, error = run(*words)
        assert (code, error[:7]) == (2, "error: "), words
        assert message in error
        assert not out.exists()
    assert not list((tmp_path / "locked").iterdir())


def test_numbers_of_the_other_commands(run, network: Path, low_images: Path, tmp_path: Path) -> None:
    make_pair(tmp_path / "Set/x4", "1", 4)
    data, picture = ["--data", tmp_path / "Set/x4"], tmp_path / "o.png"
    train = ["train", "EDSR", "--data", low_images, "-o", tmp_path / "t.safetensors"]
    upscale = ["upscale", network, low_images / "0.png", "-o", picture]
    sensitivity = ["analyze", "sensitivity", network, *data, "--calibration", low_images, "-o", picture]
    for words, message in (
        ([*train, "--steps", 0], "steps=0 is outside 1…10,000,000"),
        ([*train, "--seed", -1], "seed=-1 is outside"),
        ([*train, "--scale", 0], "scale=0 is outside 1…32"),
        ([*train, "--scale", 2, "--set", "network.scale=3"], "network.scale=2 contradicts network.scale=3"),
        ([*train, "--set", "training.learning_rate=nan"], "training.learning_rate=nan is not a finite number"),
        ([*train, "--set", "network.blocks=1000000000000"], "network.blocks=1000000000000 is outside 1…4,096"),
        ([*upscale, "--tile", 0], "tile=0 is outside 16…"),
        ([*upscale, "--tile", -16], "tile=-16 is outside 16…"),
        ([*upscale, "--threads", 0], "threads=0 is outside 1…1,024"),
        ([*upscale, "--threads", 10**9], "threads=1000000000 is outside 1…1,024"),
        ([*upscale, "--value-range", "inf"], "value_range=inf is not a finite number"),
        (["evaluate", network, tmp_path / "Set/x4", "--tile", 0], "tile=0 is outside 16…"),
        (["inspect", network, "--value-range", -1], "value_range=-1.0 is outside"),
        ([*sensitivity, "--images", 0], "images=0 is outside 1…"),
        ([*sensitivity, "--patches", 10**9], "count=1000000000 is outside 1…100,000"),
        (["analyze", "outliers", network, *data, "-o", picture, "--zoom", 0], "zoom=0 is outside 1…16"),
        (["analyze", "outliers", network, *data, "-o", picture, "--share", "nan"], "share=nan is outside (0, 1)"),
        (["analyze", "compare", network, *data, "-o", picture, "--zoom", 100], "zoom=100 is outside 1…16"),
        (["analyze", "compare", network, *data, "-o", picture, "--size", 0], "size=0 is outside 1…"),
        (["bench", "published", "RDN", "--bits", 99], "nothing is known of RDN ×4 at 99 bits"),
        (["export", network, "-o", tmp_path / "o.onnx", "--tile", "0x8"], "tile.0=0 is outside 1…16,384"),
        (["export", network, "-o", tmp_path / "o.onnx", "--threads", 0], "threads=0 is outside 1…1,024"),
    ):
        code, _, error = run(*words)
        assert (code, error[:7], error.count("\n")) == (2, "error: ", 1), (words, error)
        assert message in error
    assert not [path for path in tmp_path.iterdir() if path.name not in ("edsr.pth", "Set")]


def test_no_command_overwrites_what_it_reads(run, network: Path, low_images: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    load(network).save(model)
    link = tmp_path / "link.safetensors"
    link.symlink_to(model)
    make_pair(tmp_path / "Set/x4", "1", 4)
    picture = write_png(tmp_path / "p.png", 20, 30)
    high = tmp_path / "Set/x4/HR/1.png"
    state = tmp_path / "n.safetensors.state"  # where a run keeps its state
    state.write_bytes(network.read_bytes())
    before = {path: path.read_bytes() for path in (model, state, picture, high)}
    quantize = ["quantize", model, "--calibration", low_images, "--patches", 2]
    data = ["--data", tmp_path / "Set/x4"]
    for words in (
        [*quantize, "-o", model],
        [*quantize, "-o", link],
        ["quantize", state, "--calibration", low_images, "-o", tmp_path / "n.safetensors"],
        ["upscale", network, picture, "-o", picture],
        ["upscale", network, low_images, "-o", low_images],
        ["train", "EDSR", "--data", low_images, "-o", low_images / "net.safetensors"],
        ["analyze", "outliers", network, *data, "-o", high],
        ["analyze", "distributions", network, "--calibration", low_images, "-o", low_images / "0.png"],
        ["evaluate", network, tmp_path / "Set/x4", "--json", network],
    ):
        code, _, error = run(*words)
        assert (code, error[:7], error.count("\n")) == (2, "error: ", 1), (words, error)
        assert "cannot write" in error
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(low_images.iterdir())) == 6


@pytest.mark.parametrize("command", ["", "quantize", "evaluate", "upscale", "inspect", "train", "demo"])
def test_help_has_examples(run, command: str) -> None:
    code, text, _ = run(*([command] if command else []), "--help")
    assert code == 0
    assert f"srquant {command}".strip() in text
    if command:
        assert "Example" in text


def test_training(run, tmp_path: Path) -> None:
    for number in range(4):
        write_png(tmp_path / f"photos/{number}.png", 50, 60, number)
    out = tmp_path / "net.safetensors"
    words = ["train", "EDSR", "--data", tmp_path / "photos", "-o", out, "--scale", 2, "--steps", 4]
    for pair in (
        "network.channels=8",
        "network.blocks=1",
        "training.batch=2",
        "training.patch=12",
        "training.validation=1",
        "training.validation_every=2",
    ):
        words += ["--set", pair]
    code, text, _ = run(*words)
    assert code == 0
    assert "wrote" in text
    model = load(out)
    assert (model.scale, model.network.config.channels) == (2, 8)
    assert len(json.loads(out.with_suffix(".json").read_text())) == 2
    assert read_picture(out.with_suffix(".png")).size[1] > 500
    assert not out.with_suffix(".safetensors.state").exists()


def test_only_ones_own_state_is_removed(run, network: Path, low_images: Path, tmp_path: Path) -> None:
    """An unfinished run of hours, and notes of the user, outlive another command of the same output."""
    out, notes, state = (tmp_path / f"out.{ending}" for ending in ("safetensors", "state", "safetensors.state"))
    notes.write_text("my notes")
    images = Calibration.from_low_resolution(low_images, count=2, size=24)
    learned = configure("oaptq", settings=["finetuning.epochs=2"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(states, "SAVE_EVERY", 0)
        learned.quantize(load(network), images, state)
    kept = state.read_bytes()
    words = ["quantize", network, "--calibration", low_images, "--patches", 2, "--patch-size", 24, "-o", out]
    for method in ("minmax", "plq"):
        code, _, error = run(*words, "--method", method)
        assert code == 0, error
        assert (notes.read_text(), state.read_bytes()) == ("my notes", kept)
    for method in ("srquant", "2dquant"):
        code, _, error = run(*words, "--method", method)
        assert (code, error.count("\n")) == (2, 1)
        assert "holds an unfinished run of oaptq on edsr.pth" in error
    code, _, error = run(*words, "--method", "oaptq", "--set", "finetuning.epochs=2")
    assert code == 0, error
    assert notes.exists() and not state.exists()
    for content in (b"", b"notes"):
        state.write_bytes(content)
        code, _, error = run(*words, "--method", "oaptq")
        assert (code, error.count("\n"), state.read_bytes()) == (2, 1, content)


def test_interruption_leaves_the_previous_result(
    run, network: Path, low_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.safetensors"
    words = ["quantize", network, "--calibration", low_images, "-o", out, "--patches", 4, "--effort", "none"]
    run(*words)
    before = out.read_bytes()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("srquant.model.storage.save_safetensors", interrupted)
    code, _, error = run(*words, "--bits", 3)
    assert (code, error) == (130, "interrupted; no half-written file is left\n")
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_help_is_quick_and_imports_are_lean() -> None:
    """Neither --help nor importing the package loads PyTorch; importing the parts loads nothing only commands need."""
    code = "import sys, srquant, srquant.cli.main; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys, srquant; srquant.load, srquant.quantize, srquant.Calibration;"
        "heavy = {'typer', 'matplotlib', 'spandrel', 'torchvision', 'rich', 'skimage', 'tifffile', 'imagecodecs'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
