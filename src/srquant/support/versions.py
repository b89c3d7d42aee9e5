"""Which versions compute."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch


def versions() -> dict[str, str]:
    """Of srquant ("not installed" where it runs from its sources), torch and python."""
    try:
        own = version("srquant")
    except PackageNotFoundError:
        own = "not installed"
    return {"srquant": own, "torch": torch.__version__, "python": platform.python_version()}
