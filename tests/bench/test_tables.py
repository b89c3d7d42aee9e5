"""Tables of records."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.bench.test_records import FLOAT_SCORES, NETWORK, cell

from srquant.bench.records import CellRecord, DataScores, Runs, write_record
from srquant.bench.showing import show
from srquant.bench.suites import SUITES
from srquant.bench.tables import Entry, tables
from srquant.support.errors import ArgumentError, UnknownNameError

BASELINE = replace(NETWORK, name="edsr_b16.pth", published="EDSR-baseline")


def record(method: str, psnr: float, bits: int = 4, number: int = 0, data: str = "Set5") -> CellRecord:
    own = cell(method, bits, number, (psnr, psnr))
    scores = DataScores(data, ("a.png", "b.png"), FLOAT_SCORES | {"psnr": (psnr, psnr)}, FLOAT_SCORES)
    return replace(own, network=BASELINE, data=(scores,), process_seconds=12.4, file_bytes=1234)


def runs_of(*records: CellRecord) -> Runs:
    return Runs(Path("runs"), records)


RUNS = runs_of(
    replace(record("float", 29.0), identity={"data": "0"}),
    record("minmax", 25.0, number=1),
    record("plq", 28.001, number=2),
    record("mse", 28.004, number=3),
    record("percentile", 27.0, number=4),
    record("minmax", 20.0, bits=3, number=5),
)


def lines(text: str) -> dict[str, list[str]]:
    """Rows of a Markdown table by their first three cells' text."""
    cells = ([each.strip() for each in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|")
    return {" ".join(each[:2]).strip(): each for each in reversed(list(cells))}  # ours come first


def test_losses_marks_and_published_rows() -> None:
    text = show(RUNS)
    rows = lines(text)
    assert rows["plq W4A4"][3:5] == ["**28.00**", "1.00 (2.00)"]
    assert rows["mse W4A4"][3] == "**28.00**", "equal as printed"
    assert rows["percentile W4A4"][3] == "*27.00*"
    assert rows["minmax W4A4"][3] == "25.00"
    assert rows["minmax W3A3"][3] == "20.00", "alone of its width"
    assert rows["float"][3:5] == ["29.00", ""]
    assert rows["PLQ W4A4"][3:6] == ["30.50", "", "0.865"] and "OAPTQ, table 4" in rows["PLQ W4A4"][-1]
    assert rows["MSE W4A4"][3:5] == ["27.74", "4.36"] and "OAPTQ, table 1" in rows["MSE W4A4"][-1]
    assert "AdaBM W4A4" not in rows and "AdaBM W4A4" in lines(show(RUNS, published="all"))
    assert "source" not in show(RUNS, published="none")
    assert "weights per tensor; edges 8bit; scope all; calibrated on 2 patches" in text
    assert "edsr_b16.pth ×4 (EDSR-baseline, of another training than the papers')" in text


def test_what_differs_is_a_column() -> None:
    other = record("plq", 28.5, number=7)
    other = replace(other, settings=other.settings | {"edges": "float"}, title="plq:edges=float")
    text = show(runs_of(*RUNS.records, other), published="none")
    assert "| method | bits | edges | quantized |" in text
    assert lines(text)["plq:edges=float W4A4"][2] == "float"


def test_dialects_of_ssim() -> None:
    assert lines(show(RUNS))["plq W4A4"][5] == "0.8500"
    assert lines(show(RUNS, dialect="ssim_adabm"))["plq W4A4"][5] == "0.8600"
    assert "| SSIM (AdaBM) |" in show(RUNS, dialect="ssim_adabm")


def test_bits_that_adapt() -> None:
    own = record("mse", 28.0)
    own = replace(own, data=(replace(own.data[0], image_bits=(3.5, 4.5)),))
    rows = lines(show(runs_of(RUNS.records[0], own, RUNS.records[2]), published="none"))
    assert rows["method bits"][3] == "FAB"
    assert (rows["mse W4A4"][3], rows["plq W4A4"][3]) == ("4.00", "")


def test_further_scores_are_columns_in_which_less_is_better() -> None:
    def with_lpips(record: CellRecord, value: float) -> CellRecord:
        own = record.data[0]
        return replace(record, data=(replace(own, scores=own.scores | {"lpips": (value, value)}),))

    runs = runs_of(*(with_lpips(record, 0.1 + number / 100) for number, record in enumerate(RUNS.records)))
    text = show(runs)
    rows = lines(text)
    assert rows["method bits"][5:7] == ["SSIM", "LPIPS"]
    assert rows["minmax W4A4"][6] == "**0.1100**" and rows["plq W4A4"][6] == "*0.1200*"
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {len(rows["plq W4A4"]) + 1}
    assert {line.count("|") for line in show(RUNS).splitlines() if line.startswith("|")} == {10}


def test_failures_and_tiles_are_said() -> None:
    failed = replace(record("plq", 1.0, number=9), status="failed", reason="no | memory", data=())
    tiled = record("mse", 28.0)
    tiled = replace(tiled, data=(replace(tiled.data[0], scored={"tile": 96, "overlap": 0}, low_is_made=True),))
    text = show(runs_of(RUNS.records[0], tiled, failed))
    assert "- plq W4A4: not computed: no | memory" in text
    assert "Set5 in tiles of 96." in text and "LR of Set5 made by MATLAB's bicubic." in text
    assert "- plq W4A4: not computed" in show(runs_of(failed)), "and nothing else"


def test_other_data_is_another_table() -> None:
    other = replace(record("plq", 28.0, data="Set14"), identity={"data": "1"})
    assert len(tables(runs_of(*RUNS.records, other))) == 2


def test_latex(tmp_path: Path) -> None:
    text = show(runs_of(*RUNS.records, replace(record("plq", 22.0, number=8), title="plq:a_b=5%&{x}")), "latex")
    assert r"\textbf{28.00}" in text and r"\underline{27.00}" in text and r"plq:a\_b=5\%\&\{x\}" in text
    assert r"edsr\_b16.pth $\times$4" in text
    widths = {line.count(" & ") for line in text.splitlines() if line.endswith(r"\\")}
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns and widths == {len(columns[1]) - 1}
    assert text.count(r"\midrule") == 3


def test_csv_has_every_number() -> None:
    failed = replace(record("plq", 1.0, number=9), status="failed", reason='a "reason", indeed', data=())
    rows = list(csv.DictReader(io.StringIO(show(runs_of(*RUNS.records, failed), "csv"))))
    assert len(rows) == 6 * 3 + 1
    first = next(row for row in rows if row["method"] == "plq" and row["score"] == "psnr")
    assert (first["mean"], first["loss"], first["worst_loss"]) == ("28.001", str(29.0 - 28.001), str(30 - 28.001))
    assert (first["weight_bits"], first["activation_bits"], first["file_bytes"]) == ("4", "4", "1234")
    assert rows[-1]["reason"] == 'a "reason", indeed' and rows[-1]["mean"] == ""


def test_a_suite_shows_its_own_rows_by_its_names() -> None:
    rows = lines(show(RUNS, suite="oaptq-table4"))
    assert {"MinMax W4A4", "PLQ W4A4"} <= rows.keys() and rows["PLQ W4A4"][-1] == "measured here"
    assert "mse W4A4" not in rows and "minmax W3A3" not in rows
    text = show(RUNS, suite="oaptq-table4")
    assert "| SSIM (AdaBM) |" in text and text.count("OAPTQ, table 4") == 5
    with pytest.raises(ArgumentError, match="holds no records of 2dquant-table3"):
        show(RUNS, suite="2dquant-table3")
    with pytest.raises(UnknownNameError, match="did you mean 'oaptq-table4'"):
        show(RUNS, suite="oaptq-tabel4")
    only = show(RUNS, "csv", suite="oaptq-table4")
    assert ",mse," not in only and ",minmax," in only


def test_a_table_of_costs() -> None:
    text = show(runs_of(RUNS.records[0], record("oaptq", 28.0, number=1)), suite="oaptq-table5")
    rows = [line for line in text.splitlines() if line.startswith("| OAPTQ")]
    assert len(rows) == 2 and "| 12 |" in rows[0] and "| 73 | 135 |" in rows[1]
    assert "PTQ4SR" in text and "float" in text


def test_text_without_meaning(tmp_path: Path) -> None:
    write_record(tmp_path, RUNS.records[1])
    assert "| minmax |" in show(tmp_path)
    for given in ({"format": "html"}, {"dialect": "y"}, {"published": "some"}):
        with pytest.raises(ArgumentError, match="is not one of"):
            show(tmp_path, **given)
    assert Entry("x").place == 0
    assert {suite.dialect for suite in SUITES.values()} == {"ssim", "ssim_adabm"}
