"""Exporting and running exported files, as a user does it."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import small_networks, write_png
from tests.engines.here import saturating
from tests.images.test_pairs import make_pair

import srquant
from srquant import load
from srquant.engines import TARGETS, open_exported, saturates
from srquant.engines.runtimes import onnxruntime
from srquant.images import read_picture
from srquant.support.errors import MissingExtraError, OutputError


def quantize(run, images: Path, folder: Path, *options: object) -> Path:
    torch.save(small_networks()["edsr"].state_dict(), folder / "edsr.pth")
    out = folder / "edsr.safetensors"
    options = ("--patches", 4, "--bits", 8, "--set", "grid=int8", "--set", "weights.granularity=per_channel", *options)
    assert run("quantize", folder / "edsr.pth", "--calibration", images, "-o", out, *options)[0] == 0
    return out


@pytest.fixture
def model(run, low_images: Path, tmp_path: Path) -> Path:
    """Its products cannot saturate, so the file has the model's own weights on every processor."""
    return quantize(run, low_images, tmp_path, "--weight-bits", 6, "--edges", "none")


@pytest.fixture
def wide(run, low_images: Path, tmp_path: Path) -> Path:
    return quantize(run, low_images, tmp_path)


@pytest.mark.parametrize("engine", TARGETS)
def test_the_whole_way(run, model: Path, engine: str, tmp_path: Path) -> None:
    out = tmp_path / "edsr.onnx"
    code, text, _ = run("export", model, "-o", out, "--engine", engine, "--threads", 1)
    assert code == 0
    assert text.startswith(
        f"{out}: {out.stat().st_size:,} bytes; weights of full range, good for any processor, as the"
    )
    assert " and the model agree to " in text

    write_png(tmp_path / "p.png", 50, 60)
    for source, name in ((model, "simulated.png"), (out, "engine.png")):
        options = ("--tile", 24, "--threads", 1, *(("--engine", engine) if source == out else ()))
        assert run("upscale", source, tmp_path / "p.png", "-o", tmp_path / name, *options)[:2] == (
            0,
            "wrote 1 picture\n",
        )
    pictures = [read_picture(tmp_path / name).pixels.astype(float) for name in ("simulated.png", "engine.png")]
    assert pictures[0].shape == (200, 240, 3)
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.1

    make_pair(tmp_path / "Set/x4", "1", 4)
    scores = []
    for source, options in ((model, ()), (out, ("--engine", engine))):
        code, text, _ = run("evaluate", source, tmp_path / "Set/x4", *options)
        assert code == 0
        scores.append(float(text.split("Set")[1].split()[1]))
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


def test_tiles_of_one_size(run, model: Path, tmp_path: Path) -> None:
    """Pictures and scores are those of the model, whatever the picture's size."""
    out = tmp_path / "edsr.onnx"
    assert run("export", model, "-o", out, "--tile", "40x48")[0] == 0
    for height, width in ((90, 100), (40, 48), (30, 33)):
        write_png(tmp_path / "p.png", height, width)
        for source, name in ((model, "simulated.png"), (out, "engine.png")):
            assert run("upscale", source, tmp_path / "p.png", "-o", tmp_path / name)[0] == 0
        assert run("upscale", out, tmp_path / "p.png", "-o", tmp_path / "engine.tif")[0] == 0
        assert np.array_equal(
            read_picture(tmp_path / "engine.tif").pixels, read_picture(tmp_path / "engine.png").pixels
        )
        pictures = [read_picture(tmp_path / name).pixels.astype(float) for name in ("simulated.png", "engine.png")]
        seen = np.abs(pictures[0] - pictures[1])[
            : 4 * (height - 8), : 4 * (width - 8)
        ]  # below, small ones are filled up
        assert seen.mean() < 0.1
    make_pair(tmp_path / "Set/x4", "1", 4)
    assert run("evaluate", out, tmp_path / "Set/x4")[0] == 0


def test_the_line_says_what_was_done_and_what_it_is_good_for(run, wide: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "m.onnx"

    def export(*options: str) -> tuple[int, str, str]:
        return run("export", wide, "-o", out, "--engine", "onnxruntime", *options)

    if not saturates("onnxruntime"):
        for options in ((), ("--range", "full")):
            said = (
                r"weights of full range, good for processors with VNNI or AMX \(on others take --range reduced\); ONNX"
            )
            assert re.search(said, export(*options)[1])
    monkeypatch.setattr(onnxruntime, "compiled", saturating(onnxruntime.compiled, load(wide), 0.3))
    said = (
        r"weights of reduced range, good for any processor \(those of full range saturate on this one and agree to \d"
    )
    code, text, error = export()
    assert (code, text.count("\n"), error) == (0, 1, "")
    assert re.search(said, text)
    for options in (("--range", "reduced"), ("--reduced-range",)):
        text = export(*options)[1]
        assert "weights of reduced range, good for any processor; ONNX Runtime" in text
        assert "to lose less" not in text
    out.unlink()
    code, _, error = export("--range", "full")
    assert (code, error.count("\n")) == (2, 1)
    assert "take --range auto" in error
    assert not out.exists()


@pytest.mark.parametrize("command", ["export", "upscale", "evaluate"])
def test_help_lists_the_engines(run, command: str) -> None:
    assert "|".join(TARGETS) in run(command, "--help")[1]


def test_the_former_option_is_hidden(run) -> None:
    text = run("export", "--help")[1]
    assert "--range" in text
    assert "--reduced-range" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("export", "MODEL", "-o", "OUT.pt"), "exported models are .onnx files"),
        (
            ("export", "MODEL", "-o", "OUT.onnx", "--tile", "64"),
            "--tile 64 is neither a height and width such as 64x64",
        ),
        (("export", "MODEL", "-o", "OUT.onnx", "--tile", "8x8"), "height and width must be at least 32"),
        (
            ("export", "MODEL", "-o", "OUT.onnx", "--range", "full", "--reduced-range"),
            "--reduced-range is the former name of --range reduced",
        ),
        (
            ("export", "FLOAT", "-o", "OUT.onnx", "--for", "avx2"),
            "is a float network; quantize it first, with grid=int8",
        ),
        (
            ("export", "MODEL", "-o", "OUT.onnx", "--precision", "float16"),
            "is quantized here; export the float network",
        ),
        (("export", "MODEL", "-o", "OUT.onnx", "--for", "amx", "--range", "full"), "the processor decides the range"),
        (("upscale", "MODEL", "p.png", "-o", "q.png", "--engine", "openvino"), "runs .onnx files, and"),
        (("export", "MODEL", "-o", "OUT.onnx", "--engine", "openvin"), "unknown engine 'openvin'; did you mean 'ope"),
        (("evaluate", "none.onnx", "data", "--engine", "x"), "unknown engine 'x'; known: "),
        (("upscale", "none.onnx", "p.png", "-o", "q.png"), "none.onnx cannot be read"),
        (("evaluate", "none.onnx", "data"), "none.onnx cannot be read"),
    ],
)
def test_mistakes_are_one_line(run, model: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    places = {"MODEL": model, "FLOAT": tmp_path / "edsr.pth"}
    given = [places.get(word, tmp_path / word if "OUT" in word else word) for word in words]
    code, _, error = run(*given)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("OUT*"))


def in_one_command(folder: Path, images: Path, *options: object) -> tuple[object, ...]:
    torch.save(small_networks()["edsr"].state_dict(), folder / "edsr.pth")
    common = ("--method", "minmax", "--patches", 4, "--bits", 8, "--threads", 1)
    return "quantize", folder / "edsr.pth", "--calibration", images, *common, *options


def test_from_weights_to_an_exported_file(run, low_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "edsr.onnx"
    code, text, _ = run(*in_one_command(tmp_path, low_images, "-o", out, "--for", "avx2"))
    assert code == 0
    assert f"{out}: {out.stat().st_size:,} bytes; weights of reduced range, good for any processor" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edsr.onnx", "edsr.pth"]
    write_png(tmp_path / "p.png", 20, 30)
    assert run("upscale", out, tmp_path / "p.png", "-o", tmp_path / "q.png")[0] == 0
    assert read_picture(tmp_path / "q.png").pixels.shape[:2] == (80, 120)

    assert run(*in_one_command(tmp_path, low_images, "-o", tmp_path / "two.safetensors", "--set", "grid=int8"))[0] == 2
    words = [word for word in in_one_command(tmp_path, low_images) if word not in ("--threads", 1)]
    assert run(*words, "-o", tmp_path / "two.safetensors", "--set", "grid=int8")[0] == 0
    assert run("export", tmp_path / "two.safetensors", "-o", tmp_path / "two.onnx", "--for", "avx2")[0] == 0
    images = torch.rand(1, 3, 20, 20)
    assert torch.equal(open_exported(tmp_path / "two.onnx")(images), open_exported(out)(images)), "two ways, one file"


def test_a_float_network_is_exported_too(run, tmp_path: Path) -> None:
    torch.save(small_networks()["edsr"].state_dict(), tmp_path / "edsr.pth")
    code, text, _ = run("export", tmp_path / "edsr.pth", "-o", tmp_path / "m.onnx", "--precision", "float16")
    assert code == 0
    assert "float16 network, good for any processor; " in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "m.onnx", "--set", "grid=free"), "--set grid=free: exported files have integers of 8 bits; leave it"),
        (("-o", "m.safetensors"), "this is no exported file, which some options are for; name it .onnx"),
        (("-o", "m.onnx", "--tile", "9"), "--tile 9 is neither a height and width such as 64x64"),
        (("-o", "m.onnx", "--tile", "8x8"), "height and width must be at least 32"),
        (("-o", "m.onnx", "--for", "avx2", "--range", "full"), "the processor decides the range; leave one out"),
        (("-o", "m.onnx", "--activations", "float", "--range", "reduced"), "there are no byte products; leave it out"),
    ],
)
def test_what_cannot_be_exported_is_said_first(run, low_images: Path, tmp_path: Path, words, message: str) -> None:
    words = [tmp_path / word if word.startswith("m.") else word for word in words]
    code, text, error = run(*in_one_command(tmp_path, low_images, *words))
    assert code == 2
    assert message in error
    assert "calibrating" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["edsr.pth"]


def test_a_model_that_no_engine_computes_rightly_is_kept(run, low_images: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime, "compiled", lambda *_: lambda images: images.repeat(1, 1, 4, 4))
    out = tmp_path / "edsr.onnx"
    code, _, error = run(*in_one_command(tmp_path, low_images, "-o", out, "--engine", "onnxruntime"))
    kept = tmp_path / "edsr.onnx.safetensors"
    assert code == 2
    assert error.endswith(f"the quantized model is kept: {kept}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edsr.onnx.safetensors", "edsr.pth"]
    assert load(kept).record is not None


def test_an_engine_that_is_not_there_is_missed_first(run, low_images: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = tmp_path / "edsr.onnx"
    code, text, error = run(*in_one_command(tmp_path, low_images, "-o", out, "--engine", "onnxruntime"))
    assert code == 2
    assert "pip install 'srquant[onnxruntime]'" in error
    assert "calibrating" not in text


@pytest.mark.parametrize("error", [MissingExtraError("running it", "onnxruntime"), OutputError("the disk is full")])
def test_whatever_goes_wrong_at_the_end_the_model_is_kept(
    run, low_images: Path, tmp_path: Path, monkeypatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(srquant, "export", fails)
    code, _, said = run(*in_one_command(tmp_path, low_images, "-o", tmp_path / "edsr.onnx"))
    assert code == 2
    assert said.endswith(f"; the quantized model is kept: {tmp_path / 'edsr.onnx.safetensors'}\n")
    assert load(tmp_path / "edsr.onnx.safetensors").record is not None


def test_speed_of_files(run, model: Path, tmp_path: Path) -> None:
    assert run("export", model, "-o", tmp_path / "edsr.onnx", "--threads", 1)[0] == 0
    files = (tmp_path / "edsr.pth", tmp_path / "edsr.onnx", model)
    code, text, _ = run("bench", "speed", *files, "--size", "30x20", "--rounds", 2, "--threads", 1)
    assert code == 0
    assert "30x20 pixels" in text
    rows = [line.removeprefix(f"{tmp_path}/") for line in text.splitlines() if "edsr." in line]
    assert [row.split(")")[0].partition(" (")[::2] for row in rows] == [
        ("edsr.pth", rows[0].split("(")[1].split(",")[0] + ", float32"),
        ("edsr.onnx", rows[1].split("(")[1].split(",")[0] + ", W6A8"),
        ("edsr.safetensors", "PyTorch, simulated"),
    ]
    assert all(float(word.replace(",", "")) > 0 for row in rows for word in row.split(")")[1].split())
    for words, message in (
        (("--size", "30"), "--size 30 is not a width and height such as 160x90"),
        (("--rounds", 0), "rounds=0"),
        ((files[0],), "is given twice; give each file once"),
    ):
        code, _, error = run("bench", "speed", *files, *words)
        assert code == 2
        assert message in error
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "edsr.onnx", tmp_path / "other/edsr.onnx")
    same_name = (tmp_path / "edsr.onnx", tmp_path / "other/edsr.onnx")
    assert run("bench", "speed", *same_name, "--size", "30x20", "--rounds", 1, "--threads", 1)[0] == 0
