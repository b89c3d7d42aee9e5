"""``srquant report``: what records say, whatever is in them, and pictures where models were kept."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.bench.test_records import FLOAT_SCORES, NETWORK, cell
from tests.conftest import small_networks, write_png
from tests.pages.conftest import HOSTILE

import srquant
from srquant.bench.records import CellRecord, DataScores, NetworkRecord, Runs, write_record
from srquant.bench.tables import grouped
from srquant.images import Calibration
from srquant.learning.identity import digest_of_network
from srquant.model.record import LayerLoss, LayerLosses
from srquant.pages.contents import Page
from srquant.pages.describing_runs import describe, distinct, layers_of_record
from srquant.support.errors import ArgumentError, ImageError, RecordWarning, UnknownNameError

CURVE = tuple({"number": n, "stage": "learn", "losses": {"L": 1 / n}} for n in (1, 2, 3))


def record(method: str, psnr: float, bits: int = 4, number: int = 0, network: NetworkRecord = NETWORK) -> CellRecord:
    own = cell(method, bits, number, (psnr + 1, psnr - 1))
    return replace(own, network=network, process_seconds=12.4, file_bytes=250_000, title=method)


FLOAT = replace(record("float", 29.0), file_bytes=1_000_000)


def page_of(*records: CellRecord, suite: str | None = None) -> Page:
    return describe(grouped(Runs(Path("runs"), records)), suite)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of runs with two kept models, the float network and the data."""
    folder = tmp_path_factory.mktemp("bench")
    for number, name in enumerate(("a.png", "b.png")):
        write_png(folder / "Set" / name, 96, 88, number)
        write_png(folder / "lr" / name, 32, 32, number)
    torch.save(small_networks()["edsr"].state_dict(), folder / "edsr.pth")
    model = srquant.load(folder / "edsr.pth")
    network = replace(NETWORK, digest=digest_of_network(model.network))
    patches = Calibration.from_low_resolution(folder / "lr", count=2, size=32)
    write_record(folder / "runs", replace(FLOAT, network=network))
    for number, (method, bits) in enumerate((("minmax", 3), ("plq", 3), ("mse", 3)), start=1):
        own = record(method, 27.0 + number, bits, number, network)
        own = replace(own, sensitivities={"head.0": 28.5, "tail.1": 29.0}, curve=CURVE if method == "plq" else ())
        if method != "mse":
            own = replace(own, model=f"models/{method}.safetensors")
            (folder / "runs/models").mkdir(exist_ok=True, parents=True)
            srquant.quantize(model, patches, srquant.configure(method, bits)).save(folder / "runs" / own.model)
        write_record(folder / "runs", own)
    return {"runs": folder / "runs", "network": folder / "edsr.pth", "data": folder / "Set"}


def blocks(page: Path, mark: str) -> list[Any]:
    """What the data blocks of a page hold."""
    found = re.findall(rf'<script type="application/json" {mark}>(.*?)</script>', page.read_text())
    return [json.loads(text) for text in found]


def test_the_command_and_python_write_the_same_page(run, bench: dict[str, Path], tmp_path: Path) -> None:
    options = ["--network", bench["network"], "--data", bench["data"], "--device", "cpu"]
    code, text, error = run("report", bench["runs"], *options, "-o", tmp_path / "a.html")
    assert (code, error) == (0, "")
    assert re.fullmatch(rf"wrote {tmp_path / 'a.html'}, 0\.\d MB; open it in a browser\n", text)
    given: dict[str, Any] = {"networks": [bench["network"]], "data": [bench["data"]], "device": "cpu"}
    assert srquant.report(bench["runs"], tmp_path / "b.html", **given) == tmp_path / "b.html"
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()

    scenes = blocks(tmp_path / "a.html", 'class="scene"')
    assert [scene["name"] for scene in scenes] == ["a.png", "b.png"]
    for scene in scenes:
        titles = [picture["title"] for picture in scene["pictures"]]
        assert titles == ["HR", "bicubic", "float", "minmax W3A3", "plq W3A3"]
    (layers,) = blocks(tmp_path / "a.html", 'id="layers-data"')
    assert [each["title"] for each in layers] == ["minmax W3A3", "plq W3A3", "mse W3A3"]
    kept, gone = layers[0]["rows"], layers[2]["rows"]
    assert len(kept) == 9 and all(len(row["counts"]) == 48 for row in kept)
    assert [(row["name"], row["loss"], row["lower"]) for row in gone] == [("head.0", 0.5, None), ("tail.1", 0.0, None)]
    assert kept[0]["loss"] == 0.5
    (curves,) = blocks(tmp_path / "a.html", 'id="curves-data"')
    assert [(curve["title"], curve["parts"]["L"]) for curve in curves] == [("plq W3A3", [1.0, 0.5, 0.3333333])]


def test_without_models_or_data_there_are_no_pictures_and_that_is_said(bench: dict[str, Path], tmp_path: Path) -> None:
    path = srquant.report(bench["runs"] / "records", tmp_path / "a.html", data=[bench["data"]])
    assert "No pictures: " in path.read_text() and 'id="comparer"' not in path.read_text()
    path = srquant.report(bench["runs"], tmp_path / "b.html")
    assert "No pictures: " in path.read_text()


def test_pictures_are_those_asked_for(bench: dict[str, Path], tmp_path: Path) -> None:
    path = srquant.report(bench["runs"], tmp_path / "a.html", data=[bench["data"]], images=["b.png"])
    (scene,) = blocks(path, 'class="scene"')
    assert scene["name"] == "b.png"
    assert [picture["title"] for picture in scene["pictures"]] == ["HR", "bicubic", "minmax W3A3", "plq W3A3"]
    with pytest.raises(UnknownNameError, match=r"unknown picture 'c\.png'; did you mean"):
        srquant.report(bench["runs"], tmp_path / "b.html", data=[bench["data"]], images=["c.png"])


def test_what_cannot_be_reported_is_said(run, bench: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    torch.save(small_networks()["edsr_x3"].state_dict(), tmp_path / "other.pth")
    out = tmp_path / "page.html"
    cases: list[tuple[list[object], str]] = [
        ([tmp_path / "empty"], "holds no records of a bench"),
        ([tmp_path / "gone"], "is no folder"),
        (
            [bench["runs"], "--network", tmp_path / "other.pth"],
            "is no network of this bench, whose networks are: edsr.pth",
        ),
        ([bench["runs"], "--suite", "oaptq-table1"], "holds no records of oaptq-table1"),
        ([bench["runs"], "--suite", "oaptq-table"], "unknown suite"),
        ([bench["runs"], "--data", tmp_path / "empty"], "empty"),
    ]
    for words, message in cases:
        code, _, error = run("report", *words, "-o", out)
        assert code == 2 and message in error, error
        assert not out.exists()
    code, _, error = run("report", bench["runs"], "-o", tmp_path / "page.pdf")
    assert code == 2 and "pages are written as .html files" in error
    linked = tmp_path / "linked.html"
    linked.symlink_to(bench["runs"] / "models/plq.safetensors")
    code, _, error = run("report", bench["runs"], "-o", linked)
    assert code == 2 and "which is read" in error
    with pytest.raises(ArgumentError, match=r"\.html"):
        srquant.report(bench["runs"], tmp_path / "page.pdf")


def test_data_of_another_scale_is_refused(bench: dict[str, Path], tmp_path: Path) -> None:
    write_png(tmp_path / "Set/HR/a.png", 96, 88)
    write_png(tmp_path / "Set/LR/X2/a.png", 48, 44)
    with pytest.raises(ImageError, match="other scales than 4"):
        srquant.report(bench["runs"], tmp_path / "page.html", data=[tmp_path / "Set"])


def test_a_damaged_record_is_passed_over(bench: dict[str, Path], tmp_path: Path) -> None:
    write_record(tmp_path, record("plq", 28.0))
    (tmp_path / "records/broken.json").write_text("{")
    with pytest.warns(RecordWarning, match=r"broken\.json"):
        assert "plq" in srquant.report(tmp_path, tmp_path / "page.html").read_text()


def test_the_sentence_is_about_the_narrowest_width_that_methods_share() -> None:
    rows = [
        FLOAT,
        record("minmax", 28.9, 8, 1),
        record("plq", 28.5, 4, 2),
        record("mse", 28.75, 4, 3),
        record("mse", 20.0, 2, 4),
    ]
    assert page_of(*rows).result == (
        "At W4A4, mse loses 0.25 dB of the 29.00 dB of edsr ×4 on Set5, in a file 4.0 times smaller; "
        "the next, plq, is 0.25 dB behind."
    )
    assert page_of(rows[0], rows[1]).result.endswith("in a file 4.0 times smaller.")
    assert page_of(record("plq", 29.5)).result == "At W4A4, plq gains 0.50 dB on the 29.00 dB of edsr ×4 on Set5."
    assert page_of(FLOAT).result == "1 record, and no scores of a quantized network yet."


def test_the_sentence_names_all_networks() -> None:
    other = replace(NETWORK, name="rdn.pth", digest="cd" * 32)
    rows = [record("plq", 28.5, 4, 1), record("mse", 28.75, 4, 2)]
    same = [record("plq", 28.0, 4, 3, other), record("mse", 28.9, 4, 4, other)]
    assert page_of(*rows, *same).result == "At W4A4, mse loses least: 0.25 dB on edsr ×4 and 0.10 dB on rdn ×4."
    apart = [record("plq", 28.9, 4, 3, other), record("mse", 28.0, 4, 4, other)]
    expected = "At W4A4, these lose least: mse on edsr ×4 (0.25 dB) and plq on rdn ×4 (0.10 dB)."
    assert page_of(*rows, *apart).result == expected
    titles = [each.title for each in page_of(*rows, *same).provenance]
    assert titles == ["plq W4A4, edsr ×4", "mse W4A4, edsr ×4", "plq W4A4, rdn ×4", "mse W4A4, rdn ×4"]


def test_failed_cells_are_said_first() -> None:
    failed = replace(record("mse", 0.0, 4, 2), status="failed", data=(), reason="out of memory")
    page = page_of(FLOAT, record("plq", 28.5, 4, 1), failed)
    assert page.remarks == ("Not computed: mse W4A4 of edsr.pth: out of memory",)
    assert dict(page.provenance[2].facts)["not computed"] == "out of memory"
    assert [row.title for row in page.tables[0].rows] == ["float", "plq"]
    alone = page_of(failed)
    assert (alone.trade_offs, alone.result) == ((), "1 record, and no scores of a quantized network yet.")


@pytest.mark.parametrize(("value", "text"), [(math.nan, "–"), (math.inf, "∞")])
def test_scores_that_are_no_numbers(value: float, text: str, tmp_path: Path) -> None:
    broken = replace(
        record("mse", 1.0, 4, 2),
        data=(DataScores("Set5", ("a.png", "b.png"), FLOAT_SCORES | {"psnr": (value, value)}, FLOAT_SCORES),),
    )
    rows = (FLOAT, record("plq", 28.5, 4, 1), broken)
    page = page_of(*rows)
    assert page.result.startswith("At W4A4, plq loses 0.50 dB")
    row = next(row for row in page.tables[0].rows if row.title == "mse")
    assert row.cells[1].text == text
    (trade_off,) = page.trade_offs
    assert trade_off.series[1].points[0].numbers["Set5 psnr"] is None
    assert srquant.report(Runs(tmp_path, rows), tmp_path / "page.html").is_file()


def test_tables_are_those_of_the_bench() -> None:
    published = replace(NETWORK, published="EDSR-baseline")
    rows = [
        replace(FLOAT, network=published),
        record("minmax", 27.0, 4, 1, published),
        record("plq", 28.5, 4, 2, published),
    ]
    (table,) = page_of(*rows).tables
    assert [(column.title, column.group) for column in table.columns] == [
        ("quantized", ""),
        ("PSNR (dB)", "Set5"),
        ("loss (worst)", "Set5"),
        ("SSIM", "Set5"),
        ("seconds", ""),
        ("bytes", ""),
        ("source", ""),
    ]
    ours = {row.title: row for row in table.rows if row.series is not None}
    assert [cell.text for cell in ours["plq"].cells[1:3]] == ["28.50", "0.50 (0.50)"]
    assert (ours["plq"].cells[1].rank, ours["minmax"].cells[1].rank) == (1, 2)
    assert ours["plq"].cells[2].value == 0.5 and ours["plq"].cells[5].value == 250_000
    sources = [row.cells[-1].text for row in table.rows if row.title == "PLQ"]
    assert sources and all("OAPTQ" in source for source in sources)


def test_costs_and_qualities_of_the_chart() -> None:
    (trade_off,) = page_of(
        FLOAT, record("plq", 28.5, 4, 1), record("plq", 27.0, 3, 2), record("mse", 28.0, 4, 3)
    ).trade_offs
    assert [(series.title, series.number, [point.label for point in series.points]) for series in trade_off.series] == [
        ("plq", 0, ["W4A4", "W3A3"]),
        ("mse", 1, ["W4A4"]),
    ]
    numbers = trade_off.series[0].points[0].numbers
    assert (numbers["weight_bits"], numbers["bytes"], numbers["seconds"], numbers["latency"]) == (
        4.0,
        250.0,
        12.4,
        None,
    )
    assert numbers["Set5 psnr"] == 28.5 and trade_off.levels["Set5 psnr"] == 29.0
    assert not any(axis.less_is_better for axis in trade_off.qualities)
    assert [axis.title for axis in trade_off.qualities] == ["Set5: PSNR (dB)", "Set5: SSIM", "Set5: SSIM (AdaBM)"]


def test_scores_of_which_less_is_better_are_turned() -> None:
    own = record("plq", 28.5)
    further = dict.fromkeys(("lpips", "dists", "mine"), (0.2, 0.4))
    scores = replace(own.data[0], scores=own.data[0].scores | further, float_scores=FLOAT_SCORES | further)
    (trade_off,) = page_of(replace(own, data=(scores,))).trade_offs
    turned = {axis.title: axis.less_is_better for axis in trade_off.qualities}
    assert turned.items() >= {"Set5: LPIPS (less is better)": True, "Set5: DISTS (less is better)": True}.items()
    assert turned["Set5: mine"] is False
    assert trade_off.series[0].points[0].numbers["Set5 lpips"] == pytest.approx(0.3)


def test_layers_that_lose_most_are_named() -> None:
    losses = LayerLosses(9, 2, 32, 30.0, (LayerLoss("head.0", 31.5, 2.0, 0.1),))
    found = layers_of_record(replace(record("plq", 28.0), losses=losses))
    assert found.rows == ()
    assert found.note == (
        "Quantized alone, these of 9 layers move the output furthest from the float network's: head.0 (31.5 dB); "
        "all together: 30.0 dB."
    )


def test_a_method_that_was_run_twice_at_a_width_says_in_what_it_differs() -> None:
    once, twice = (replace(record("plq", 28.5), key=letter * 64) for letter in "ab")
    other = replace(record("plq", 28.7, 4, 3), settings=once.settings | {"edges": "none"})
    wide, mse = record("plq", 28.9, 8, 4), record("mse", 28.0, 4, 5)
    titles = [each.title for each in distinct([FLOAT, once, other, wide, mse])]
    assert titles == ["float", "plq (edges 8bit)", "plq (edges none)", "plq (edges 8bit)", "mse"]
    titles = [each.title for each in distinct([FLOAT, once, twice, FLOAT])]
    assert titles == ["float", "plq aaaaaa", "plq bbbbbb", "float"]
    assert distinct([FLOAT, once, wide, mse]) == [FLOAT, once, wide, mse]


def test_names_are_escaped(tmp_path: Path) -> None:
    rows = (FLOAT, replace(record("plq", 28.5, 4, 1), title=HOSTILE, calibration=HOSTILE))
    text = srquant.report(Runs(tmp_path, rows), tmp_path / "page.html").read_text()
    assert "<script>window.hacked" not in text and "<img" not in text.replace("&lt;img", "")


def test_the_usual_network_is_called_as_in_papers() -> None:
    rows = [record("plq", 28.5, 4, 1, replace(NETWORK, published="EDSR-baseline"))]
    assert page_of(*rows).title == "Bench of EDSR-baseline ×4"
