"""The public names, what they say of themselves, and that importing them costs nothing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest

import srquant
from srquant.methods import METHODS, Method
from srquant.support.errors import UnknownNameError

ROOT = Path(__file__).parent.parent


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = "import sys, srquant; print([n for n in sys.modules if n.startswith(('srquant.', 'torch', 'numpy'))])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_asking_for_a_name_that_is_not_there_imports_nothing() -> None:
    code = "import sys, srquant; print(hasattr(srquant, 'model_zoo'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False False"


@pytest.mark.parametrize("name", [name for name in dir(srquant) if not name.startswith("_")])
def test_every_name_is_there(name: str) -> None:
    assert getattr(srquant, name) is not None


def test_every_method_class_is_a_public_name() -> None:
    for kind in METHODS.values():
        assert getattr(srquant, kind.__name__) is kind
    assert {"Scores", "Exported", "MinMax", "PLQ", "OAPTQ", "methods", "__version__"} <= {*dir(srquant)}
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = srquant.Nothing


def test_the_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"] and "version" not in project["project"]
    assert f'__version__ = "{srquant.__version__}"' in (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text()


def test_methods_describe_themselves() -> None:
    found = srquant.methods()
    assert [method.name for method in found] == list(METHODS)
    for method in found:
        assert issubclass(method.kind, Method)
        assert method.summary.endswith(".")
        assert method.source
        assert all(field.type and field.documentation for field in method.fields if "." not in field.name)
        for field in method.fields:
            made = srquant.configure(method.name, **{field.name: field.default})
            assert made == method.kind(), "each field is one that configure takes"
    plq = {field.name: field for field in next(method for method in found if method.name == "plq").fields}
    assert (plq["quantile"].type, plq["quantile"].default) == ("number, (0, 1)", 0.99)
    assert plq["bits"].type == "whole number, 2…8"
    assert plq["grid"].type == "free | int8"
    assert plq["weights.range"].type == "bound_search | least_squares | min_max | percentile"
    assert "99th percentile" in plq["quantile"].documentation


def test_the_command_prints_the_same(run) -> None:
    code, text, _ = run("methods")
    assert code == 0
    for method in srquant.methods():
        assert f"\n{method.name} " in text
        assert method.summary[:40] in text
        assert method.source[:30] in text
    code, text, _ = run("methods", "plq")
    assert code == 0
    for field in next(method for method in srquant.methods() if method.name == "plq").fields:
        assert f"\n{field.name} " in text
        assert field.documentation[:30] in text
    code, _, error = run("methods", "plc")
    assert code == 2
    assert error.startswith("error: unknown method 'plc'; did you mean 'plq'?")


def test_types_of_public_functions_can_be_read() -> None:
    with pytest.raises(UnknownNameError):
        srquant.configure("plc")
    assert get_type_hints(srquant.configure)["return"] is Method
