"""Which versions compute."""

from __future__ import annotations

import platform

__version__ = "0.1.0"
"""Of srquant; the build reads it from here too."""


def versions() -> dict[str, str]:
    """Of srquant, torch and python."""
    import torch

    return {"srquant": __version__, "torch": torch.__version__, "python": platform.python_version()}
