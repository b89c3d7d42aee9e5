"""From what a page says to its HTML: one file with everything in it.

A content security policy lets the page run its own scripts, known by their digests, and reach nothing else: a name that
slipped through unescaped could still do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from srquant.pages.contents import Page, Scene
from srquant.pages.wording import finite
from srquant.support.files import replacing

_HERE = "srquant.pages"
_STYLES = ("colours", "page", "tables", "charts", "comparer")
_SCRIPTS = (
    "theme",
    "tables",
    "charts",
    "trade_offs",
    "layers",
    "curves",
    "view",
    "pictures",
    "stage",
    "comparer",
    "start",
)
"""In this order: each may use those before it."""
_LIBRARY = "libraries/chart.js/chart-4.6.1.umd.min.js"


def write_page(page: Page, output: Path) -> Path:
    """Write a page, all or nothing.

    Raises:
        OutputError: It cannot be written.
    """
    with replacing(output) as temporary:
        temporary.write_text(render(page), encoding="utf-8", newline="\n")
    return output


def render(page: Page) -> str:
    """The HTML of a page; the same page gives the same text."""
    styles = [_read(f"styles/{name}.css") for name in _STYLES]
    scripts = [_read(f"scripts/{name}.js") for name in _SCRIPTS]
    if page.trade_offs or page.layers or page.curves:
        scripts.insert(0, _library())
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            styles=[Markup(style) for style in styles],
            scripts=[Markup(script) for script in scripts],
            policy=_policy(styles, scripts),
            trade_offs=_json([asdict(each) for each in page.trade_offs]),
            layers=_json([asdict(each) for each in page.layers]),
            curves=_json([asdict(each) for each in page.curves]),
            scenes=[_json(_scene(scene)) for scene in page.scenes],
        )
    )


@cache
def _environment() -> Environment:
    loader = PackageLoader(_HERE)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def _read(name: str) -> str:
    return files(_HERE).joinpath(name).read_text(encoding="utf-8").strip()


def _library() -> str:
    """The plotting library, without the name of a file that debuggers would look for."""
    return _read(_LIBRARY).partition("\n//# sourceMappingURL=")[0]


def _policy(styles: list[str], scripts: list[str]) -> str:
    kinds = (("style-src", styles), ("script-src", scripts))
    own = "; ".join(f"{kind} {' '.join(map(_digest, texts))}" for kind, texts in kinds)
    return f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _scene(scene: Scene) -> dict[str, Any]:
    def picture(title: str, note: str, webp: bytes) -> dict[str, str]:
        return {
            "title": title,
            "note": note,
            "source": f"data:image/webp;base64,{base64.b64encode(webp).decode()}",
        }

    return {
        "name": scene.name,
        "width": scene.width,
        "height": scene.height,
        "region": scene.region,
        "storage": scene.storage,
        "left": scene.left,
        "right": scene.right,
        "pictures": [picture(each.title, each.note, each.webp) for each in scene.pictures],
    }


def _json(content: object) -> Markup:
    """JSON that can stand in a script element, whatever names are in it."""
    text = json.dumps(_clean(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _clean(content: object) -> object:
    """With numbers that can be drawn only."""
    if isinstance(content, dict):
        return {key: _clean(value) for key, value in cast("dict[str, object]", content).items()}
    if isinstance(content, list | tuple):
        return [_clean(value) for value in cast("list[object]", content)]
    return finite(content) if isinstance(content, float) else content
