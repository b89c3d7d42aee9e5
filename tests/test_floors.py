"""Imports go down only. The floors are those of docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "srquant"

LADDER, FLAT = "each uses those named before it", "strangers to each other"
TOOLS = ("errors", "bridges", "files", "kernels", "compiled", "functional", "integers", "memory", "packing", "plugins")
MORE_TOOLS = ("processes", "progress", "settings", "sorted_values", "states")
FLOORS = (
    (LADDER, (*TOOLS, *MORE_TOOLS)),
    (FLAT, ("quantizers", "ranges", "networks", "images", "metrics")),
    (LADDER, ("layers", "surgery", "finetune", "storage", "model")),
    (FLAT, ("methods", "training", "engines", "evaluation", "upscaling")),
    (FLAT, ("analysis",)),
    (LADDER, ("report", "api", "demo")),
    (LADDER, ("__init__", "cli")),
)
PLACE = {
    name: (floor, step if kind == LADDER else 0)
    for floor, (kind, names) in enumerate(FLOORS)
    for step, name in enumerate(names)
}
"""Floor, and step on it where the floor is a ladder."""


def imports(path: Path) -> set[str]:
    """Names of the srquant modules (first level) that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "srquant":
            parts = node.module.split(".")
            named = {alias.name for alias in node.names} & PLACE.keys() or {"__init__"}
            found |= {parts[1]} if len(parts) > 1 else named
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("srquant.")}
    return found


def home(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


FILES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "__main__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    own = home(path)
    assert own in PLACE, f"{own} has no floor; add it to docs/architecture.md and here"
    for other in imports(path) - {own}:
        assert PLACE[other] < PLACE[own], f"{path.name} on {PLACE[own]} imports {other} on {PLACE[other]}"


@pytest.mark.parametrize(("package", "base"), [("methods", "base"), ("networks", "base"), ("quantizers", "base")])
def test_plugins_do_not_know_each_other(package: str, base: str) -> None:
    """A method, network or quantizer may import the base and shared pieces, never another one of its kind."""
    shared = {base, "modules", "probing", "checkpoint", "opening", "plan", "steps", "shift"}
    for path in (SOURCE / package).glob("*.py"):
        if path.stem in ("__init__", *shared):
            continue
        tree = ast.parse(path.read_text())
        inner = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
        inner = [m.split(".")[2] for m in inner if m.startswith(f"srquant.{package}.")]
        assert set(inner) <= shared, f"{path.name} imports {inner}"


def test_networks_never_hear_of_quantization() -> None:
    for path in (SOURCE / "networks").glob("*.py"):
        assert not imports(path) & {"quantizers", "ranges", "layers", "methods"}, path.name
