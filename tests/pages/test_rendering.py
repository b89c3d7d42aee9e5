"""What a page is made of: everything in one file, escaped, the same each time."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.pages.conftest import HOSTILE, whole_page

from srquant.pages import wording
from srquant.pages.contents import LayerRow, Layers, Page
from srquant.pages.rendering import render, write_page
from srquant.support.errors import OutputError

LIBRARY = files("srquant.pages") / "libraries/chart.js"


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of scripts and styles, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        both = zip(self.elements, self.texts, strict=True)
        return [(attributes, text) for (name, attributes), text in both if name == tag]


def test_the_same_page_gives_the_same_bytes(tmp_path: Path) -> None:
    write_page(whole_page(), tmp_path / "a.html")
    write_page(whole_page(), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    with pytest.raises(OutputError, match="cannot write"):
        write_page(whole_page(), tmp_path / "a.html" / "c.html")


def test_names_are_shown_as_they_are_and_never_run() -> None:
    plain, hostile = Parsed(render(whole_page())), Parsed(render(whole_page(HOSTILE)))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(a) for _, a in hostile.elements] == [sorted(a) for _, a in plain.elements]
    scenes = [json.loads(text) for attributes, text in hostile.all("script") if attributes.get("class") == "scene"]
    assert [scene["name"] for scene in scenes] == [f"first.png {HOSTILE}", f"second.png {HOSTILE}"]
    assert hostile.all("title")[0][1] == HOSTILE
    assert hostile.all("h1")[0][1] == f"{HOSTILE} loses 0.08 dB."


def test_its_policy_lets_its_own_scripts_and_styles_run_and_reaches_nothing() -> None:
    page = Parsed(render(whole_page()))
    (policy,) = [a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:; ")
    scripts = [text for attributes, text in page.all("script") if attributes.get("type") != "application/json"]
    for text in (*scripts, *(text for _, text in page.all("style"))):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(scripts) == 12
    for _, attributes in page.elements:
        assert not {"style", "srcset", "action"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


def test_every_identifier_is_there_once_and_labels_lead_to_something() -> None:
    page = Parsed(render(whole_page()))
    found = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(found) == len({*found})
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert attributes.get(name, found[0]) in found


def test_a_page_with_nothing_to_show_is_its_sentence() -> None:
    text = render(Page("nothing", "Nothing was measured."))
    assert Parsed(text).all("h1")[0][1] == "Nothing was measured."
    assert not Parsed(text).all("section")
    assert "© Chart.js Contributors" not in text  # nor the library
    assert len(text) < 60_000


def test_what_is_not_finite_is_drawn_nowhere() -> None:
    rows = (LayerRow("a", "W4A4", -math.inf, math.nan, math.inf, (0.0, math.inf)),)
    page = Parsed(render(replace(whole_page(), layers=(Layers("x", rows),))))
    (data,) = [text for attributes, text in page.all("script") if attributes.get("id") == "layers-data"]

    def refuse(name: str) -> None:
        raise AssertionError(name)

    (layers,) = json.loads(data, parse_constant=refuse)
    row = layers["rows"][0]
    assert (row["lower"], row["upper"], row["loss"], row["seen"]) == (None, None, None, [0.0, None])


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (wording.number(30.278), "30.28"),
        (wording.number(-0.5), "−0.50"),
        (wording.number(math.inf), "∞"),
        (wording.number(math.nan), "–"),
        (wording.number(None), "–"),
        (wording.change(-0.074), "−0.07"),
        (wording.change(0.074), "+0.07"),
        (wording.change(-0.001), "±0.00"),
        (wording.change(0.001), "±0.00"),
        (wording.change(1234.5), "+1,234.50"),
        (wording.change(None), "–"),
        (wording.size(0), "–"),
        (wording.size(980), "980 B"),
        (wording.size(209_667), "209.7 kB"),
        (wording.size(1_158_648), "1.16 MB"),
        (wording.duration(None), "–"),
        (wording.duration(8.71), "8.7 s"),
        (wording.duration(630), "10.5 min"),
        (wording.duration(7200), "2.0 h"),
        (wording.listed([]), "none"),
        (wording.listed(["a"]), "a"),
        (wording.listed(["a", "b", "c"]), "a, b and c"),
        (wording.listed(list("abcdefg")), "a, b, c, d and 3 more"),
    ],
)
def test_numbers_and_lists_for_people(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(30.0, 31.5, -1.5), (math.inf, math.inf, 0.0), (math.inf, 30.0, None), (math.nan, 30.0, None), (None, 1.0, None)],
)
def test_differences_of_scores(one: float | None, other: float | None, expected: float | None) -> None:
    assert wording.difference(one, other) == expected


def test_what_reads_alike_shares_a_rank() -> None:
    assert wording.ranks([30.001, 30.002, 29.0, 28.0, None, math.nan], 2) == [1, 1, 2, 0, 0, 0]
    assert wording.ranks([30.0, None], 2) == [0, 0]
    assert wording.ranks([30.0, math.inf], 2) == [2, 1]


def test_the_plotting_library_is_the_published_one_and_its_licence_is_beside_it() -> None:
    (code,) = [path for path in LIBRARY.iterdir() if path.name.endswith(".js")]
    dependencies = (ROOT / "docs/dependencies.md").read_text()
    assert hashlib.sha256(code.read_bytes()).hexdigest() in re.findall(r"[0-9a-f]{64}", dependencies)
    assert "The MIT License" in (LIBRARY / "LICENSE.md").read_text()
