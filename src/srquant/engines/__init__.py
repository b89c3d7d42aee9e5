"""What a quantized network runs on besides PyTorch's float32: exact integers, ONNX files and the engines for them.

Nothing here is imported to open or to quantize a model. An engine is a module of this folder with
``open_exported`` and ``compiled``.
"""

from __future__ import annotations

import importlib.util
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srquant.support.errors import UnknownNameError
from srquant.support.settings import Threads, check

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
        ArgumentError: The number of threads is not at least 1.
        UnknownNameError: There is no such engine.
        MissingExtraError: It is not installed.
        ModelFileError: The file is damaged, or was not exported by srquant.
    """
    check("threads", threads, Threads | None)
    if engine is None:
        engine = next((name for name in ENGINES if importlib.util.find_spec(name) is not None), ENGINES[0])
    return _module(engine).open_exported(path, threads)


def saturates(engine: str) -> bool:
    """Whether byte products that leave 16 bits saturate in an engine on this processor; tried once in a process.

    Args:
        engine: ``openvino`` or ``onnxruntime``.

    Raises:
        UnknownNameError: There is no such engine.
        MissingExtraError: It is not installed.
    """
    module = _module(engine)
    # Only now, as it needs PyTorch.
    from srquant.engines.saturation import products_saturate

    return products_saturate(module.compiled)


def _module(engine: str) -> Any:
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    return import_module(f"srquant.engines.{engine}")
