"""A page with something of everything, and a browser to open it in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srquant.pages.contents import (
    Axis,
    Cell,
    Column,
    Curve,
    LayerRow,
    Layers,
    Page,
    Point,
    Provenance,
    Row,
    Series,
    Table,
    TradeOff,
)
from srquant.pages.pictures import Labelled, Pixels, make_scene

HOSTILE = "</script><script>window.hacked = true</script><img src=x onerror='window.hacked = true'> & \"quoted\" 'name'"
TITLES = ("HR", "bicubic", "float", "plain", "better")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def pixels(number: int, height: int = 150, width: int = 220) -> Pixels:
    """A picture whose colours say where they are and which picture it is."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack((x, y, np.full_like(x, 40 * number)), -1).astype(np.uint8)


def whole_page(title: str = "edsr ×4") -> Page:
    """All sections; every name holds ``title``."""
    names = [title, f"{title} better"]
    table = Table(
        f"Set5 {title}",
        (Column("PSNR (dB)", "Set5"), Column("file", "Set5", smaller_first=True)),
        (
            Row(f"float {title}", "float", (Cell("30.28", 30.28), Cell("1.16 MB", 1158648.0))),
            Row(names[0], "W4A4", (Cell("28.70", 28.7, 2), Cell("–")), 0),
            Row(names[1], "W4A4", (Cell("∞", float("inf"), 1), Cell("187.7 kB", 187690.0)), 1),
        ),
        f"note {title}",
    )
    points = [Point("W4A4", {"psnr": 28.7, "bytes": 187.7}), Point("W8A8", {"psnr": 30.1, "bytes": 300.0})]
    trade_off = TradeOff(
        title,
        (Axis("bytes", "size (kB)", logarithmic=True), Axis("seconds", "time (s)")),
        (Axis("psnr", "PSNR (dB)"),),
        (Series(names[0], 0, (points[0],)), Series(names[1], 1, tuple(points))),
        {"psnr": 30.28},
    )
    scenes = [
        make_scene(
            f"{name} {title}",
            {each: Labelled(pixels(number + shift), "28.70 dB") for number, each in enumerate((*TITLES[:4], title))},
            start=("float", "plain"),
        )
        for shift, name in enumerate(("first.png", "second.png"))
    ]
    rows = (
        LayerRow(f"head {title}", "W8A8", -1.0, 1.5, 0.02, (-1.2, 1.6), (1, 0, 5, 200, 30, 2)),
        LayerRow("body", "A4", -0.5, 0.5, None),
    )
    return Page(
        title=title,
        result=f"{title} loses 0.08 dB.",
        remarks=(f"one cell failed: {title}",),
        tables=(table, Table("first.png", table.columns, table.rows, folded=True)),
        trade_offs=(trade_off, TradeOff("another", trade_off.costs, trade_off.qualities, trade_off.series)),
        scenes=tuple(scenes),
        layers=(Layers(names[0], rows, f"worst: {title}"), Layers(names[1], (), "nothing measured")),
        curves=(Curve(names[0], 0, {"feature": (3.0, 2.0, 1.5), f"loss {title}": (None, 0.5, 0.2)}),),
        provenance=(Provenance(title, (("network", title),), ((f"field {title}", title),)),),
        made_by="srquant",
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, which drives browsers, is absent")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium (apt-get install chromium): pages are not opened")
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=found, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Open a file in a window of a size; it must load, and say nothing on the console."""
    contexts: list[Any] = []
    said: list[str] = []

    def call(path: Path, width: int = 1200, height: int = 900, **options: Any) -> Any:
        options = {"reduced_motion": "reduce"} | options  # else places still move while the page scrolls
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
        page.goto(path.as_uri())
        while page.evaluate("comparer && !comparer.view"):
            page.wait_for_timeout(20)
        return page

    yield call
    for context in contexts:
        context.close()
    assert said == []
