from __future__ import annotations

import pytest
from tests.fuzz.lab import Lab, make_inputs


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Small inputs of every kind, and a place to break them."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "inputs").mkdir()
    make_inputs(folder / "inputs")
    return Lab(folder / "inputs", folder / "work")
