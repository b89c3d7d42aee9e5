"""Names in the place of paths, in Python and in every command."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from tests.conftest import ROOT, write_png
from tests.fetching.conftest import Knows, sha256, table, tarred, zipped
from tests.fetching.serving import Server

import srquant
from srquant.fetching import catalogue, resolve
from srquant.fetching.catalogue import entries, read_entries
from srquant.model import Model
from srquant.support.errors import ArgumentError, FetchError, ImageError, NameWarning, NetworkError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def names(
    server: Server,
    cache: Path,
    knows: Knows,
    weights: bytes,
    benchmark: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Server:
    """One name of each kind, and a working directory without anything."""
    picture = (benchmark / "Set5/HR/0.png").read_bytes()
    low = (benchmark / "Set5/LR_bicubic/X2/0x2.png").read_bytes()
    knows(
        edsr_x4={
            "address": server.add("edsr.pt", weights),
            "sha256": sha256(weights)[:8],
            "checksum_from": "release",
        },
        sets={"kind": "sets", "address": server.add("benchmark.tar", tarred(benchmark))},
        set5={"kind": "pairs", "part_of": "sets", "folder": "Set5", "high": "HR", "low": "LR_bicubic/X{s}"},
        photos_hr={"kind": "photographs", "address": server.add("p.zip", zipped({"P/0.png": picture}))},
        photos_lr={"kind": "low", "address": server.add("l.zip", zipped({"L/X4/0x4.png": low}))},
        photos={"alias_of": "photos-lr"},
    )
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return server


def test_a_network_and_a_set(names: Server) -> None:
    model = srquant.load("edsr-x4")
    (scores,) = srquant.evaluate(model, "set5")
    assert scores.name == "Set5"
    assert len(scores.images) == 2
    assert not scores.low_is_made
    assert [row.name for row in srquant.evaluate(model, "sets")] == ["B100", "Set5"]
    (alone,) = srquant.evaluate(model, "photos-hr")
    assert alone.low_is_made
    assert srquant.fetch("edsr-x4").name == "edsr.pt"


def test_pictures_to_calibrate_on(names: Server, cache: Path) -> None:
    patches = srquant.Calibration.from_photographs("photos-hr", 2, count=2, size=16)
    assert len(patches.images) == 1
    of_set = srquant.Calibration.from_photographs("set5", 2, count=2, size=16)
    assert {path.parent.name for path in of_set.images} == {"HR"}, "LR images are not shrunk once more"
    low = srquant.Calibration.from_low_resolution("photos", count=2, size=16)
    assert low.images[0] == cache / "photos-lr/content/L/X4/0x4.png"
    assert len(srquant.Photographs.of("set5", 2, 16).images) == 2


def test_pictures_to_enlarge(names: Server, tmp_path: Path) -> None:
    """Of a set, LR images of the network's scale."""
    done = srquant.upscale(srquant.load("edsr-x4"), "set5", tmp_path / "out")
    assert sorted(path.name for path in done.written) == ["0x4.png", "1x4.png"]


@pytest.mark.parametrize(
    ("wanted", "name", "said"),
    [
        ("network", "set5", "set5 is HR and LR images; needed is a network"),
        ("pairs", "edsr-x4", "edsr-x4 is a network; needed are images to score on"),
        ("low", "photos-hr", "given to --calibration-hr"),
        ("low", "set5", "--calibration-hr takes its HR images"),
        ("photographs", "photos", "given to --calibration"),
        ("photographs", "sets", "give one of the sets in it"),
    ],
)
def test_something_else_is_not_even_fetched(names: Server, wanted: str, name: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        resolve(name, wanted)  # type: ignore[arg-type]
    assert names.requests == []


def test_a_scale_that_a_set_does_not_have(names: Server) -> None:
    with pytest.raises(FetchError, match=r"set5 has no folder LR_bicubic/X3 in .*; there are HR, LR_bicubic"):
        resolve("set5", "pictures", 3)


@pytest.mark.parametrize("name", ["edsr-x3", "EDSR-x4", "edsr_x4", "sets5"])
def test_an_unknown_name_gets_the_nearest(names: Server, name: str) -> None:
    with pytest.raises(ArgumentError, match=rf"no file or folder '{name}' here.*nearest: .*(edsr-x4|set5)"):
        resolve(name, "network")


@pytest.mark.parametrize("text", ["none.pth", "./none", "none/none", "/none", "..", "", "-", "a b", "qqqq"])
def test_what_is_no_name_stays_a_path(names: Server, text: str) -> None:
    assert resolve(text, "network") == Path(text)
    assert resolve(Path(text), "network") == Path(text)


def test_errors_of_paths_speak_of_names_too(names: Server) -> None:
    with pytest.raises(NetworkError, match="srquant fetch"):
        srquant.load("qqqq")
    with pytest.raises(ImageError, match="srquant fetch"):
        srquant.images.find_pairs("qqqq", 4)


def test_a_file_or_folder_here_comes_first(names: Server, weights: bytes, benchmark: Path) -> None:
    Path("edsr-x4").write_bytes(weights)
    shutil.copytree(benchmark / "B100", "set5")
    with pytest.warns(NameWarning, match="edsr-x4 is the file of this name here"):
        model = srquant.load("edsr-x4")
    with pytest.warns(NameWarning, match="set5 is the folder of this name here"):
        srquant.evaluate(model, "set5")
    assert names.requests == []


def test_weights_that_would_run_code_are_refused(names: Server, cache: Path, knows: Knows) -> None:
    file = io.BytesIO()
    torch.save({"weight": print}, file)
    knows(bad={"address": names.add("bad.pt", file.getvalue())})
    with pytest.raises(NetworkError, match="would run code"):
        srquant.load("bad")


class TestCommands:
    """Every command that takes a path takes a name."""

    BENCH = "bench run edsr-x4 --data set5 --calibration photos --patches 2 --patch-size 16 --method minmax -o runs"
    CALLS = (
        BENCH,
        "report runs --network edsr-x4 --data set5 -o report.html",
        "quantize edsr-x4 --method minmax --calibration-hr photos-hr --patches 2 --patch-size 16 -o m.safetensors",
        "quantize edsr-x4 --method minmax --calibration photos --patches 2 --patch-size 16 -o m.safetensors",
        "evaluate edsr-x4 set5",
        "inspect edsr-x4",
        "upscale edsr-x4 set5 -o out",
        "compare edsr-x4 --low small.png -o page.html",
        "train EDSR --data set5 --scale 2 --steps 1 --set network.channels=8 --set network.blocks=1 "
        "--set training.batch=1 --set training.patch=12 --set training.validation=1 -o n.safetensors",
        "analyze outliers edsr-x4 --data set5 -o o.png",
        "analyze distributions edsr-x4 --calibration photos --patches 2 --patch-size 16 -o d.png",
    )

    @pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call.split()[:2]))
    def test_names(self, names: Server, run: Run, call: str) -> None:
        write_png(Path("small.png"), 24, 24)
        if call.startswith("report"):
            assert run(*self.BENCH.split())[0] == 0
        code, _, said = run(*call.split())
        assert code == 0, said
        assert names.requests

    def test_no_command_is_forgotten(self) -> None:
        """Commands whose help speaks of a network, of data or of calibration images."""
        from typer.core import TyperGroup
        from typer.main import get_command

        from srquant.cli.main import app

        commands = cast(TyperGroup, get_command(app)).commands
        taking = {"network", "model", "data"}
        found = {name for name, command in commands.items() if taking & {option.name for option in command.params}}
        assert found - {call.split()[0] for call in self.CALLS} <= {"export"}

    def test_a_model_to_export(self, names: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Exporting itself takes long and is not of this test."""
        given: list[object] = []

        def export(model: object, target: Path, **_: object) -> str:
            given.append(model)
            target.write_bytes(b"")
            return ""

        monkeypatch.setattr("srquant.api.export", export)
        code, _, said = run("export", "edsr-x4", "-o", "m.onnx")
        assert code == 0, said
        assert isinstance(given[0], Model)

    def test_fetch(self, names: Server, run: Run, cache: Path) -> None:
        code, out, _ = run("fetch")
        assert code == 0
        assert re.search(r"^edsr-x4 .*\?.*release.*MIT.*no", out, re.MULTILINE)
        assert "the same as photos-lr" in out
        assert f"the cache is {cache}" in out
        assert run("fetch", "edsr-x4", "set5")[:2] == (
            0,
            f"edsr-x4: {cache}/edsr-x4/edsr.pt\nset5: {cache}/sets/content/benchmark/Set5\n",
        )
        code, out, _ = run("fetch")
        assert re.search(r"^edsr-x4 .*verified \(release\)", out, re.MULTILINE)
        assert re.search(r"^set5 .*MB.*unverified, as first fetched", out, re.MULTILINE)
        assert run("fetch", "--check")[0] == 0
        (cache / "edsr-x4/edsr.pt").write_bytes(b"")
        code, _, said = run("fetch", "--check")
        assert code == 2
        assert "was changed since it was fetched" in said
        assert run("fetch", "--again", "edsr-x4")[0] == 0
        assert run("fetch", "--again")[0] == 2
        assert run("fetch", "edsr")[0] == 2

    def test_without_a_connection(self, names: Server, run: Run, cache: Path) -> None:
        names.files.clear()
        code, _, said = run("evaluate", "edsr-x4", "set5")
        assert code == 2
        assert f"download {names.address}/edsr.pt (MIT), put it there as {cache}/edsr-x4/edsr.pt" in said
        assert "Traceback" not in said

    def test_a_score_table_says_what_was_asked_for(self, names: Server, run: Run) -> None:
        assert run("evaluate", "edsr-x4", "set5", "--json", "scores.json")[0] == 0
        assert json.loads(Path("scores.json").read_text())["model"] == "edsr-x4"


class TestCatalogue:
    """The one that ships."""

    def test_it_holds_what_it_promises(self) -> None:
        promised = "set5 set14 bsd100 urban100 manga109 div2k-lr edsr-baseline-x4 swinir-light-x4 realesrgan-x4plus"
        assert set(promised.split()) <= entries().keys()

    @pytest.mark.parametrize("name", entries())
    def test_every_entry(self, name: str) -> None:
        entry = entries()[name]
        assert entry.license
        assert entry.page.startswith(("https://", "http://www.manga109.org"))
        assert not entry.address or entry.address.startswith("https://")
        assert not entry.address or entry.file
        assert entry.is_archive == (not entry.is_weights and bool(entry.address))
        if entry.checksum_from == "release":
            assert f"-{entry.sha256}." in entry.file
        elif entry.sha256:
            assert len(entry.sha256) == 64
            assert entry.bytes
        if entry.kind == "pairs":
            assert entry.high
            assert "{s}" in entry.low

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[", "no TOML"),
            (table("a"), "one of address"),
            (table("a", address="x", by_hand="y"), "one of address"),
            (table("a", address="x", sha256="0" * 64), "both of"),
            (table("a", address="x", sha256="short", checksum_from="x"), "sha256"),
            (table("A", address="x"), "name"),
            (table("a", address="x", colour="red"), "colour"),
            (table("a", part_of="b"), "no archive"),
            (table("a", alias_of="b"), "has no b"),
        ],
    )
    def test_a_wrong_entry(self, text: str, said: str) -> None:
        with pytest.raises(ArgumentError, match=said):
            read_entries(text)

    def test_it_is_part_of_the_package(self) -> None:
        assert Path(catalogue.__file__).with_name("catalogue.toml").is_file()
        assert "catalogue.toml" not in (ROOT / "pyproject.toml").read_text(), "all files of the folder are packaged"


def test_a_picture_beside_names(names: Server, tmp_path: Path) -> None:
    path = write_png(Path("set5.png"), 20, 20)
    srquant.upscale(srquant.load("edsr-x4"), path, tmp_path / "large.png")
    assert (tmp_path / "large.png").is_file()
