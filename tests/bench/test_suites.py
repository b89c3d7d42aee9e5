"""Tables of papers as grids."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import write_png
from tests.images.test_pairs import make_pair

import srquant
from srquant.bench.requests import found_pairs
from srquant.bench.suites import SUITES, canonical, fit
from srquant.images import Calibration
from srquant.methods import METHODS
from srquant.model import Model
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.networks.swinir import SwinIR, SwinIRConfig
from srquant.support.errors import ArgumentError, UnknownNameError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Set5", "B100", "Manga109", "Other"):
        make_pair(tmp_path / f"data/{name}/x4", "1", 4)
    for number in range(2):
        write_png(tmp_path / f"photos/{number}.png", 120, 130, number)
    return tmp_path


def baseline(scale: int = 4) -> Model:
    torch.manual_seed(0)
    return Model(EDSR(EDSRConfig(scale=scale)), "edsr.pth")


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_what_the_paper_prints(name: str) -> None:
    """Every row that the paper has for a width is there, under its name; every method is configured, if it exists."""
    suite = SUITES[name]
    titles, missing = suite.methods()
    assert {title for title, _ in titles} | {line.split(" (")[0] for line in missing} == set(suite.rows)
    for title, method in titles:
        assert method.edges == suite.edges
        assert ((method.weight_bits or method.bits), method.bits) in suite.bits
        assert method.name == suite.rows[title].partition(":")[0]
    for row in suite.published():
        assert (row.network, row.scale) in suite.networks
        assert set(row.scores) <= set(suite.data)
        if row.method not in ("float", "bicubic", "EDSR(PTQ4SR)"):
            assert row.method in suite.rows, row.method
            assert (row.weight_bits, row.activation_bits) in suite.bits
    assert suite.costs or suite.published()
    assert suite.name in suite.describe() and suite.edges in suite.describe()
    for text in suite.rows.values():
        assert text.partition(":")[0] in {*METHODS, "ptq4sr", "adabm", "pams", "daq", "ddtb", "odm"}


def test_what_is_missing_is_named(folder: Path, low_images: Path) -> None:
    patches = Calibration.from_low_resolution(low_images, count=2, size=24)
    pairs = found_pairs([folder / "data"], {4})
    fitted = fit(SUITES["oaptq-table1"], [baseline(), baseline(2)], pairs, {0: patches}, None)
    ((subject, methods),) = fitted.requests
    assert [each.folder.name for each in subject.data] == ["Set5", "B100"]
    assert [title for title, _ in methods][:3] == ["MinMax", "Percentile", "MSE"]
    said = "\n".join(fitted.missing)
    assert "RDN ×4: no network of these hyper-parameters was given; give its weights" in said
    assert "edsr.pth is no network of this table (EDSR-baseline ×2)" in said
    assert "Urban100 ×4 is in no folder of data" in said and "Manga109" not in said
    with pytest.raises(ArgumentError, match=r"nothing of 2dquant-table3 can be computed: .*SwinIR-light ×2"):
        fit(SUITES["2dquant-table3"], [baseline()], pairs, {}, None)
    with pytest.raises(ArgumentError, match=r"nothing of oaptq-table2 can be computed: .*Test2K ×4 is in no folder"):
        fit(SUITES["oaptq-table2"], [baseline()], pairs, {0: patches}, None)


def test_protocols(folder: Path, low_images: Path) -> None:
    methods = dict(SUITES["2dquant-table3"].methods()[0][-2:])
    assert methods["2DQuant"].scope == methods["DOBI"].scope == "transformer" and methods["2DQuant"].bits == 2
    ablation = dict(SUITES["oaptq-table4"].methods(["finetuning.epochs=2"])[0])
    assert ablation["VFT"] == srquant.OAPTQ(
        quantizer="uniform", sensitivity="uniform", finetuning=ablation["PLQ+SAFT"].finetuning
    )
    assert ablation["SAFT"].sensitivity == ablation["PLQ+SAFT"].sensitivity == "proportional"
    assert ablation["PLQ+VFT"].finetuning.epochs == 2 and ablation["PLQ"] == srquant.PLQ()
    make_pair(folder / "data/Urban100/x4", "1", 4)
    patches = Calibration.from_low_resolution(low_images, count=2, size=24)
    fitted = fit(SUITES["oaptq-table1"], [baseline()], found_pairs([folder / "data"], {4}), {0: patches}, None)
    scored = {each.folder.name: each.scored for each in fitted.requests[0][0].data}
    assert scored == {"Set5": {}, "B100": {}, "Urban100": {"tile": 96, "overlap": 0}}
    swinir = Model(SwinIR(SwinIRConfig(scale=4)), "swinir.pth")
    fitted = fit(SUITES["2dquant-table3"], [swinir], found_pairs([folder / "data"], {4}), {0: patches}, None)
    assert all(each.scored == {} for each in fitted.requests[0][0].data)


def test_names_of_data() -> None:
    assert [canonical(name) for name in ("b100", "BSDS100", "set5", "Own")] == ["BSD100", "BSD100", "Set5", "Own"]


@pytest.mark.filterwarnings("default::srquant.support.errors.SuiteWarning")
def test_a_suite_on_the_command_line(run, folder: Path) -> None:
    """The baseline itself, whose passes take time, on one small picture; with little learning."""
    torch.save(baseline().network.state_dict(), folder / "edsr.pth")
    words = ["bench", "run", folder / "edsr.pth", "--data", folder / "data", "--calibration-hr", folder / "photos"]
    words += ["--patches", 1, "--patch-size", 24, "-o", folder / "runs", "--threads", 1]
    code, text, error = run(*words, "--suite", "oaptq-table5", "--set", "finetuning.epochs=1")
    assert code == 0, error
    assert "warning: oaptq-table5: Urban100 ×4 is in no folder of data" in error
    assert "| OAPTQ | W4A4 |" in text and "on an RTX 2080 Ti" in text
    code, text, _ = run("bench", "show", folder / "runs", "--suite", "oaptq-table5")
    assert code == 0 and "| OAPTQ | W4A4 |" in text
    for more in (["--bits", 4], ["--method", "minmax"], ["--edges", "none"], ["--tile", 96]):
        code, _, error = run(*words, "--suite", "oaptq-table5", *more)
        assert code == 2 and "is what the suite oaptq-table5 says itself" in error
    code, _, error = run(*words, "--suite", "oaptq-table6")
    assert code == 2 and "unknown suite 'oaptq-table6'; did you mean" in error
    code, _, error = run(*words, "--suite", "2dquant-table3")
    assert code == 2 and "nothing of 2dquant-table3 can be computed" in error
    with pytest.raises(UnknownNameError, match="unknown field"):
        srquant.bench.run(
            [folder / "edsr.pth"],
            suite="oaptq-table4",
            settings=["shore=1"],
            data=[folder / "data"],
            calibration_hr=folder / "photos",
            patches=1,
            patch_size=24,
            output=folder / "other",
        )
