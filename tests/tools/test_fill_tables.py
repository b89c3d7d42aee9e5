"""Tables in documents are those of their records."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from tests.bench.test_tables import RUNS
from tests.conftest import ROOT, script

from srquant.bench.records import write_record
from srquant.bench.showing import show
from srquant.support.errors import ArgumentError

fill_tables = script("fill_tables")
SCREENS = 100
"""Lines of prose that results may have."""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    for record in RUNS:
        write_record(tmp_path, record)
    text = f"# Title\n\n<!-- table: srquant bench show {tmp_path} --published none -->\nold\n<!-- end -->\n\nprose\n"
    (tmp_path / "page.md").write_text(text)
    return tmp_path / "page.md"


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fill_tables.py", *map(str, words)])
    return fill_tables.main()


def test_a_table_is_replaced(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, page, "--check") == 1
    assert run(monkeypatch, page) == 0
    text = page.read_text()
    assert "old" not in text and "| plq | W4A4 |" in text and text.endswith("<!-- end -->\n\nprose\n")
    assert run(monkeypatch, page, "--check") == 0
    next((page.parent / "records").glob("*-plq-*")).unlink()
    assert run(monkeypatch, page, "--check") == 1


@pytest.mark.parametrize(
    "command", ["rm -rf x", "python -m os", "srquant bench run x", "srquant bench show nowhere", ""]
)
def test_other_commands_are_refused(command: str) -> None:
    with pytest.raises(ArgumentError, match=r"prints no table|failed: error: nowhere is no folder"):
        fill_tables.filled(f"<!-- table: {command} -->\n<!-- end -->")


def in_this_process(command: str) -> str:
    """What a command of the results prints; a process for each would take long."""
    words = command.split()
    if words[0] == "srquant":
        return show(ROOT / words[3]).strip()
    module = import_module(words[2])
    return module.table(module.read(ROOT / words[4])).strip()


def test_results_are_generated_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No table is typed, each is what its records give, and the prose fits on two screens."""
    monkeypatch.setattr(fill_tables, "printed", in_this_process)
    text = (ROOT / "docs/results.md").read_text()
    outside = re.sub(r"<!-- table: .*?<!-- end -->", "", text, flags=re.DOTALL)
    assert not [line for line in outside.splitlines() if line.startswith("|")]
    assert len([line for line in outside.splitlines() if line.strip()]) <= SCREENS
    assert fill_tables.filled(text) == text, "python tools/fill_tables.py docs/results.md"
