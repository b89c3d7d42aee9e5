"""Imports go down only, and never in a circle. The floors are those of docs/architecture.md."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "srquant"

FLOORS = (
    {"support"},
    {"fetching"},
    {"networks", "quantizers", "images"},
    {"model"},
    {"learning", "engines"},
    {"methods"},
    {"analysis", "api"},
    {"bench"},
    {"pages"},
    {"__init__", "cli"},
)
"""From the ground up; folders of one floor are strangers, except that the commands are the topmost."""
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
PLUGINS = {
    "methods": {"base", "pipeline"},
    "networks": {
        *("base", "modules", "sizes", "undescribed", "luma"),
        *("checkpoint", "foreign", "unwrapping", "recognising", "opening"),
    },
    "quantizers": {"base", "channel_factor", "channel_shift", "adaptive", "image_factor", "numerics", "ranges"},
    "quantizers/ranges": {"base", "min_max", "lloyd_max", "percentile", "least_squares"},
}
"""Folders of which each file can be taken out without another one missing it, but for these, which they share."""


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py")) if path.name != "__main__.py"}


def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """Modules of srquant, without its name, that a file imports; wherever in the file if ``lazy``."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "srquant":
            inner = node.module.removeprefix("srquant").removeprefix(".")
            for alias in node.names:
                below = f"{inner}.{alias.name}".removeprefix(".")
                found.add(below if below in FILES else inner or "__init__")
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("srquant.") for alias in node.names if alias.name.startswith("srquant.")}
    return found


def test_every_entry_has_a_floor() -> None:
    entries = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.name != "__pycache__"}
    assert entries == FLOOR.keys(), "add it to docs/architecture.md and here"


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down(name: str) -> None:
    own = name.split(".", maxsplit=1)[0]
    for other in {found.split(".")[0] for found in imports(FILES[name])} - {own}:
        lower = FLOOR[other] < FLOOR[own] or (own, other) == ("cli", "__init__")
        assert lower, f"{name} on floor {FLOOR[own]} imports {other} on floor {FLOOR[other]}"


def test_no_file_imports_in_a_circle() -> None:
    graph = {name: imports(path, lazy=False) - {name} for name, path in FILES.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", PLUGINS)
def test_plugins_do_not_know_each_other(folder: str) -> None:
    """A method, network, quantizer or range may import the base and shared pieces, never another one of its kind."""
    prefix = folder.replace("/", ".") + "."
    for path in (SOURCE / folder).glob("*.py"):
        if path.stem not in ("__init__", *PLUGINS[folder]):
            inner = {name.removeprefix(prefix).split(".")[0] for name in imports(path) if name.startswith(prefix)}
            assert inner <= PLUGINS[folder], f"{path.name} imports {inner - PLUGINS[folder]}"


def test_networks_never_hear_of_quantization() -> None:
    for path in (SOURCE / "networks").rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"quantizers", "model", "methods"}, path.name
