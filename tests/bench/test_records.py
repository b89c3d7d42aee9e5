"""Records of a bench: what is written is what is read, and what is damaged stops nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from srquant import configure
from srquant.bench.records import (
    CellRecord,
    DataScores,
    NetworkRecord,
    read_record,
    read_records,
    record_path,
    scan,
    write_record,
)
from srquant.support.errors import ArgumentError, OutputError, RecordWarning
from srquant.support.settings import to_json

NETWORK = NetworkRecord("edsr.pth", "EDSR", "", 4, 1000, "ab" * 32)
FLOAT_SCORES = {"psnr": (30.0, 28.0), "ssim": (0.9, 0.8), "ssim_adabm": (0.91, 0.81)}


def cell(method: str = "plq", bits: int = 4, number: int = 0, psnr: tuple[float, float] = (29.0, 27.9)) -> CellRecord:
    """A record as a bench would write it."""
    scores = DataScores("Set5", ("a.png", "b.png"), FLOAT_SCORES | {"psnr": psnr}, FLOAT_SCORES)
    return CellRecord(
        key=f"{number:064x}",
        status="done",
        title=method,
        order=number,
        network=NETWORK,
        method=method,
        settings={} if method == "float" else to_json(configure(method, bits)),
        identity={"data": "0"},
        calibration="2 patches",
        data=(scores,),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    record = cell(psnr=(math.inf, 27.5))
    path = write_record(tmp_path, record)
    assert path == record_path(tmp_path, record) and path.name.startswith("edsr-plq-w4a4-000000")
    assert read_record(path) == record
    assert path.read_text().count("\n") == len(to_json(record)) + 2, "a line a field"
    assert list(read_records(tmp_path)) == list(read_records(tmp_path / "records")) == [record]


def test_means_losses_and_bits() -> None:
    scores = cell().data[0]
    assert scores.mean() == pytest.approx(28.45) and scores.float_mean() == 29.0
    assert scores.losses() == (1.0, pytest.approx(0.1))
    assert replace(scores, scores=FLOAT_SCORES).losses("ssim") == (0.0, 0.0)
    assert scores.fab is None
    assert replace(scores, image_bits=(4.0, 5.0)).fab == 4.5
    infinite = replace(scores, scores={"psnr": (math.inf, 1.0)}, float_scores={"psnr": (math.inf, 1.0)})
    assert infinite.losses() == (0.0, 0.0)
    record = cell()
    assert (record.bits, record.edges, record.scope, record.granularity) == ("W4A4", "8bit", "all", "per_tensor")
    assert cell("float").bits == "float"


def test_every_image_has_every_score() -> None:
    with pytest.raises(ArgumentError, match="Set5 has 2 images and 1 values of a score"):
        DataScores("Set5", ("a", "b"), {"psnr": (1.0,)}, {})
    with pytest.raises(ArgumentError, match="is not a finite number"):
        DataScores("Set5", ("a",), {"psnr": (1.0,)}, {}, image_bits=(math.inf,))


def test_order_is_that_of_tables(tmp_path: Path) -> None:
    wanted = [cell("float"), cell("mse", 8, 3), cell("plq", 4, 1), cell("mse", 4, 2)]
    for record in reversed(wanted):
        write_record(tmp_path, record)
    runs = read_records(tmp_path)
    assert [(record.method, record.bits) for record in runs] == [(each.method, each.bits) for each in wanted]
    assert runs.float_of(wanted[2]) == wanted[0]
    assert len(runs.done) == 4 and not runs.failed


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "no JSON": lambda content: b"\x00\xff" + content,
    "other JSON": lambda content: b"[1, 2]",
    "a field more": lambda content: content.replace(b'"title"', b'"tilte"'),
    "newer": lambda content: content.replace(b'"format": 1', b'"format": 2'),
    "deep": lambda content: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_passed_over_by_name(tmp_path: Path, damage: str) -> None:
    good, bad = cell(number=1), cell("mse", number=2)
    write_record(tmp_path, good)
    path = write_record(tmp_path, bad)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(ArgumentError, match="newer version" if damage == "newer" else "damaged or no record"):
        read_record(path)
    with pytest.warns(RecordWarning, match=path.name):
        assert list(read_records(tmp_path)) == [good]
    found, failures = scan(tmp_path)
    assert (found, len(failures)) == ([good], 1)
    (tmp_path / "records" / f"{good.file_name}.json").unlink()
    with pytest.raises(ArgumentError, match=f"holds no records of a bench: .*{path.name}"):
        read_records(tmp_path)


def test_of_two_records_of_one_cell_the_done_and_later_one_counts(tmp_path: Path) -> None:
    record = replace(cell(), finished="2026-01-02")
    failed = replace(record, status="failed", reason="memory", data=(), finished="2026-01-03")
    write_record(tmp_path, record)
    path = write_record(tmp_path, replace(failed, network=replace(NETWORK, name="renamed.pth")))
    assert path.name.startswith("renamed")
    assert list(read_records(tmp_path)) == [record]


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is no folder"):
        read_records(tmp_path / "absent")
    with pytest.raises(ArgumentError, match="holds no records of a bench; srquant bench run writes them"):
        read_records(tmp_path)
    (tmp_path / "records").mkdir()
    (tmp_path / "records").chmod(0o500)
    with pytest.raises(OutputError, match="read-only"):
        write_record(tmp_path, cell())


def test_names_that_files_cannot_have(tmp_path: Path) -> None:
    record = replace(cell(), network=replace(NETWORK, name="../" + "n/ä" * 200 + ".pth"))
    path = write_record(tmp_path, record)
    assert path.parent == tmp_path / "records" and len(path.name) < 120
    assert read_record(path) == record
