"""``srquant compare``: models, pictures of all kinds, and what is said of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import small_networks, write_png

import srquant
from srquant.images import Calibration, Pair
from srquant.model import Model
from srquant.pages.comparing import compared
from srquant.pages.contenders import Contender
from srquant.pages.contents import Page
from srquant.support.errors import ArgumentError, ImageError, OutputError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A float network and two models made of it."""
    folder = tmp_path_factory.mktemp("models")
    for seed in range(2):
        write_png(folder / f"lr/{seed}.png", 32, 32, seed)
    torch.save(small_networks()["edsr"].state_dict(), folder / "edsr.pth")
    model = srquant.load(folder / "edsr.pth")
    patches = Calibration.from_low_resolution(folder / "lr", count=2, size=32)
    paths = {"edsr": folder / "edsr.pth"}
    for name, bits in (("minmax", 3), ("plq", 8)):
        quantized = srquant.quantize(model, patches, srquant.configure(name, bits))
        paths[name] = quantized.save(folder / f"{name}.safetensors")
    return paths


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_png(tmp_path / "picture.png", 96, 120)


def blocks(page: Path, mark: str) -> list[object]:
    """What the data blocks of a page hold."""
    return [
        json.loads(text)
        for text in re.findall(rf'<script type="application/json" {mark}>(.*?)</script>', page.read_text())
    ]


def page_of(
    models: dict[str, Path], names: str, *images: Path, low: tuple[Path, ...] = (), layers: bool = False
) -> Page:
    """The contents of a page."""
    opened = [Contender(name, srquant.load(models[name]), 1000) for name in names.split()]
    return compared(opened, [Pair(image, None, 4) for image in images], low, measure_layers=layers)


def test_the_command_and_python_write_the_same_page(
    run, models: dict[str, Path], picture: Path, tmp_path: Path
) -> None:
    order = [models[name] for name in ("minmax", "plq", "edsr")]
    code, text, error = run("compare", *order, "--image", picture, "-o", tmp_path / "a.html", "--device", "cpu")
    assert (code, error) == (0, "")
    assert re.fullmatch(rf"wrote {tmp_path / 'a.html'}, 0\.\d MB; open it in a browser\n", text)
    assert srquant.compare(order, [picture], tmp_path / "b.html", device="cpu") == tmp_path / "b.html"
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    (scene,) = blocks(tmp_path / "a.html", 'class="scene"')
    assert isinstance(scene, dict)
    assert [each["title"] for each in scene["pictures"]] == ["HR", "bicubic", "edsr", "minmax", "plq"]
    assert (scene["width"], scene["height"]) == (120, 96)


def test_scores_are_those_of_evaluate(models: dict[str, Path], picture: Path) -> None:
    page = page_of(models, "edsr minmax plq", picture)
    (folder,) = srquant.evaluate(srquant.load(models["minmax"]), picture.parent)
    (before,) = srquant.evaluate(srquant.load(models["edsr"]), picture.parent)
    (table,) = page.tables
    assert [column.title for column in table.columns][:4] == ["PSNR (dB)", "against float", "SSIM", "against float"]
    row = next(row for row in table.rows if row.title == "minmax")
    assert row.cells[0].value == pytest.approx(folder.psnr)
    assert row.cells[1].value == pytest.approx(folder.psnr - before.psnr)
    assert row.cells[2].value == pytest.approx(folder.ssim)
    assert (row.detail, row.series) == ("W3A3", 0)
    assert [row.title for row in table.rows] == ["bicubic", "edsr", "minmax", "plq"]


def test_the_sentence_names_the_best_and_what_it_loses(models: dict[str, Path], picture: Path) -> None:
    page = page_of(models, "edsr minmax plq", picture)
    value = {row.title: row.cells[0].value for row in page.tables[0].rows}
    best, other = sorted(("minmax", "plq"), key=lambda name: -(value[name] or 0))
    assert page.result.startswith(f"{best} ")
    assert f"the float network’s {value['edsr']:.2f} dB on picture.png, in a file 1.0 times smaller" in page.result
    assert page.result.endswith(f"; the next, {other}, is {(value[best] or 0) - (value[other] or 0):.2f} dB behind.")


def test_without_the_float_network_there_are_no_losses(models: dict[str, Path], picture: Path) -> None:
    page = page_of(models, "minmax plq", picture)
    assert [column.title for column in page.tables[0].columns] == ["PSNR (dB)", "SSIM", "file"]
    assert " reaches " in page.result
    assert [len(layers.rows) for layers in page.layers] == [9, 9]


def test_without_hr_models_are_held_against_the_float_network(models: dict[str, Path], picture: Path) -> None:
    page = page_of(models, "edsr minmax plq", low=(picture,))
    (table,) = page.tables
    assert table.caption == "picture.png, against the result of edsr"
    assert [row.title for row in table.rows] == ["bicubic", "minmax", "plq"]
    assert " agrees with the float network to " in page.result
    assert [each.title for each in page.scenes[0].pictures] == ["bicubic", "edsr", "minmax", "plq"]
    assert (page.scenes[0].width, page.scenes[0].height) == (480, 384)


def test_without_hr_and_float_there_are_pictures_alone(models: dict[str, Path], picture: Path) -> None:
    page = page_of(models, "minmax plq", low=(picture,))
    assert (page.tables, page.trade_offs) == ((), ())
    assert page.result == "minmax and plq, side by side on 1 picture."
    assert page.remarks == (
        "Not scored: picture.png. Scores need HR or the float network, and 11×11 pixels inside the border.",
    )


def test_one_model_is_enough(models: dict[str, Path], picture: Path) -> None:
    page = page_of(models, "plq", picture)
    assert page.result.startswith("plq reaches ")
    assert [page.scenes[0].pictures[number].title for number in (page.scenes[0].left, page.scenes[0].right)] == [
        "bicubic",
        "plq",
    ]


def test_several_pictures_of_different_sizes_have_a_mean_and_a_table_each(
    models: dict[str, Path], tmp_path: Path
) -> None:
    images = [
        write_png(tmp_path / f"{name}.png", *size, seed=number)
        for number, (name, size) in enumerate({"a": (64, 72), "b": (80, 61)}.items())
    ]
    page = page_of(models, "edsr minmax plq", *images)
    assert [(table.caption, table.folded) for table in page.tables] == [
        ("Mean over 2 pictures", False),
        ("a.png", True),
        ("b.png", True),
    ]
    values = [[row.cells[0].value for row in table.rows] for table in page.tables]
    assert values[0] == pytest.approx(np.mean(values[1:], axis=0))
    assert [(scene.width, scene.height) for scene in page.scenes] == [(72, 64), (60, 80)]


@pytest.mark.parametrize("kind", ["gray", "gray with alpha", "transparent", "16 bits", "palette"])
def test_pictures_of_all_kinds(models: dict[str, Path], tmp_path: Path, kind: str) -> None:
    colour = np.asarray(Image.open(write_png(tmp_path / "c.png", 64, 64)))
    path = tmp_path / "kind.png"
    alpha = np.full((64, 64, 1), 90, np.uint8)
    if kind == "16 bits":
        srquant.images.write_picture(
            path,
            srquant.images.picture.Picture(colour.astype(np.uint16) * 257, srquant.images.picture.Layout(depth=16)),
        )
    elif kind == "palette":
        Image.fromarray(colour).quantize(16).save(path)
    else:
        made = {
            "gray": colour[..., 0],
            "gray with alpha": np.concatenate((colour[..., :1], alpha), -1),
            "transparent": np.concatenate((colour, alpha), -1),
        }
        Image.fromarray(made[kind]).save(path)
    page = page_of(models, "edsr plq", path)
    assert (page.scenes[0].width, page.scenes[0].height) == (64, 64)
    assert page.remarks == (
        ("kind.png has transparency, which is left out.",) if kind in ("gray with alpha", "transparent") else ()
    )
    assert page.tables


def test_a_picture_too_small_to_score_is_shown(models: dict[str, Path], tmp_path: Path) -> None:
    page = page_of(models, "edsr plq", write_png(tmp_path / "tiny.png", 16, 17))
    assert page.tables == ()
    assert page.remarks[0].startswith("Not scored: tiny.png.")
    assert (page.scenes[0].width, page.scenes[0].height) == (16, 16)


def test_layers_are_measured_where_that_is_asked_for(models: dict[str, Path], picture: Path) -> None:
    found = {layers.title: layers for layers in page_of(models, "edsr minmax plq", picture, layers=True).layers}
    assert found.keys() == {"minmax", "plq"}
    minmax, plq = found.values()
    assert [row.name for row in minmax.rows] == [row.name for row in plq.rows]
    assert {row.bits for row in minmax.rows} == {"W3A3", "W8A8"}
    assert sum(row.loss or 0 for row in minmax.rows) > sum(row.loss or 0 for row in plq.rows)
    for row in minmax.rows:
        assert row.lower < row.upper and row.seen is not None and row.seen[0] < row.seen[1]
        assert len(row.counts) == 48 and sum(row.counts) % 4 == 0
    assert "Quantized alone, these of 9 layers" in minmax.note


@pytest.mark.exhaustive
def test_exported_files_are_run_in_an_engine(models: dict[str, Path], picture: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="no engine for exported files")
    patches = Calibration.from_low_resolution(models["edsr"].parent / "lr", count=2, size=32)
    quantized = srquant.quantize(srquant.load(models["edsr"]), patches, srquant.configure("minmax", 8, grid="int8"))
    srquant.export(quantized, tmp_path / "bytes.onnx", engine="openvino", threads=1)
    paths = [tmp_path / "bytes.onnx", models["minmax"], models["edsr"]]
    srquant.compare(paths, [picture], tmp_path / "p.html", device="cpu")
    (scene,) = blocks(tmp_path / "p.html", 'class="scene"')
    assert isinstance(scene, dict)
    assert [each["title"] for each in scene["pictures"]] == ["HR", "bicubic", "edsr", "bytes", "minmax"]
    text = (tmp_path / "p.html").read_text()
    assert "edsr ×4, exported" in text and "W8A8" in text


def test_curves_of_models_that_learned(models: dict[str, Path], picture: Path, tmp_path: Path) -> None:
    patches = Calibration.from_low_resolution(models["edsr"].parent / "lr", count=2, size=32)
    method = srquant.configure("oaptq", 4, finetuning={"epochs": 2, "batch": 2})
    learned = srquant.quantize(srquant.load(models["edsr"]), patches, method)
    page = compared(
        [Contender("oaptq", learned, 0), Contender("plq", srquant.load(models["plq"]), 0)], [Pair(picture, None, 4)]
    )
    (curve,) = page.curves
    assert (curve.title, curve.number) == ("oaptq", 0)
    assert all(len(values) == 2 for values in curve.parts.values()) and curve.parts


def test_provenance_says_how_a_model_was_made(models: dict[str, Path], picture: Path) -> None:
    page = page_of(models, "edsr plq", picture)
    assert [each.title for each in page.provenance] == ["edsr", "plq"]
    facts = dict(page.provenance[1].facts)
    assert facts["made from"] == "edsr.pth" and facts["method"] == "plq"
    assert "2 patches of 32x32" in facts["calibrated on"]
    assert dict(page.provenance[1].settings)["bits"] == "8"


def test_what_cannot_be_compared_is_said(run, models: dict[str, Path], picture: Path, tmp_path: Path) -> None:
    torch.save(small_networks()["srresnet"].state_dict(), tmp_path / "srresnet.pth")
    out = tmp_path / "page.html"
    cases: list[tuple[list[object], str]] = [
        (
            [models["plq"], tmp_path / "srresnet.pth", "--image", picture],
            "models must be of one scale to be compared; got plq ×4, srresnet ×2",
        ),
        ([models["plq"]], "there are no pictures to compare on"),
        ([models["plq"], "--image", tmp_path / "gone.png"], "gone.png is not there"),
        ([models["plq"], "--image", picture, "--layers"], "layers are measured against the float network"),
        ([models["plq"], models["plq"], "--image", picture], "is given twice"),
        ([tmp_path / "gone.pth", "--image", picture], "gone.pth"),
    ]
    for words, message in cases:
        code, _, error = run("compare", *words, "-o", out)
        assert code == 2 and message in error, error
        assert not out.exists()
    code, _, error = run("compare", models["plq"], "--image", picture, "-o", tmp_path / "page.png")
    assert code == 2 and "pages are written as .html files" in error
    with pytest.raises(OutputError, match="which is read"):
        srquant.compare(
            {"a": srquant.load(models["plq"])},
            [write_png(tmp_path / "x.png", 64, 64).rename(tmp_path / "x.html")],
            tmp_path / "x.html",
        )
    with pytest.raises(ArgumentError, match="cannot be called 'HR'"):
        srquant.compare({"HR": srquant.load(models["plq"])}, [picture], out)
    with pytest.raises(ArgumentError, match="one scale"):
        srquant.compare({}, [picture], out)
    with pytest.raises(ImageError):
        srquant.compare([models["plq"]], [tmp_path / "gone.png"], out)


def test_models_of_one_name_are_told_apart_by_their_folders(
    models: dict[str, Path], picture: Path, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.safetensors").write_bytes(models["plq"].read_bytes())
    srquant.compare([tmp_path / "a/net.safetensors", tmp_path / "b/net.safetensors"], [picture], tmp_path / "p.html")
    (scene,) = blocks(tmp_path / "p.html", 'class="scene"')
    assert isinstance(scene, dict)
    assert [each["title"] for each in scene["pictures"]][2:] == [str(tmp_path / "a/net"), str(tmp_path / "b/net")]


def test_an_opened_model_has_its_counted_size(models: dict[str, Path], picture: Path, tmp_path: Path) -> None:
    model: Model = srquant.load(models["plq"])
    srquant.compare({"<i>mine</i>": model}, [picture], tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text()
    assert "<i>mine</i>" not in text and "&lt;i&gt;mine&lt;/i&gt;" in text
    assert f"{model.sizes().stored_bits / 8000:.1f} kB" in text


def test_tiles_give_the_same_page(models: dict[str, Path], picture: Path, tmp_path: Path) -> None:
    whole, tiled = (
        srquant.compare([models["edsr"]], [picture], tmp_path / f"{tile}.html", tile=tile) for tile in (None, 16)
    )
    assert blocks(whole, 'class="scene"') == blocks(tiled, 'class="scene"')
