"""What a quantized network runs on besides PyTorch's float32: exact integers, ONNX files and the engines for them.

Nothing here is imported to open or to quantize a model. An engine is a module of this folder with ``open_exported``.
"""

from __future__ import annotations

import importlib.util
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from srquant.errors import UnknownNameError

if TYPE_CHECKING:
    from srquant.engines.exported import Exported as Exported

ENGINES = ("openvino", "onnxruntime")
"""By name, the faster first."""


def open_exported(path: Path, engine: str | None = None, threads: int | None = None) -> Exported:
    """Open an exported file in an engine.

    Args:
        path: An ``.onnx`` file that srquant wrote.
        engine: ``openvino`` or ``onnxruntime``; the first that is installed if None.
        threads: How many to use; all cores if None.

    Raises:
        UnknownNameError: There is no such engine.
        MissingExtraError: It is not installed.
        ModelFileError: The file is damaged, or was not exported by srquant.
    """
    if engine is None:
        engine = next((name for name in ENGINES if importlib.util.find_spec(name) is not None), ENGINES[0])
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    return import_module(f"srquant.engines.{engine}").open_exported(path, threads)
