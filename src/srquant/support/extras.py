"""Optional packages, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from srquant.support.errors import MissingExtraError


def import_extra(package: str, need: str, extra: str) -> Any:
    """The package.

    Args:
        package: As Python imports it.
        need: What needs it ("exporting to ONNX").
        extra: The extra of this project that brings it.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(need, extra) from error
