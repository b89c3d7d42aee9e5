"""Opening whatever a command is given: a float network, a quantized model, or an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srquant.engines.exported import Exported
    from srquant.model import Model


def open_any(path: Path, value_range: float | None, engine: str | None, threads: int | None) -> Model | Exported:
    """A model, or an exported file in an engine, by the file's name.

    Raises:
        ArgumentError: The number of threads breaks its rule, or an engine was named for a model that is no ``.onnx``
            file.
        SrquantError: It cannot be opened.
    """
    import torch

    from srquant import load, open_exported
    from srquant.support.errors import ArgumentError
    from srquant.support.settings import Threads, check

    check("threads", threads, Threads | None)
    if path.suffix == ".onnx":
        return open_exported(path, engine, threads)
    if engine is not None:
        raise ArgumentError(f"--engine {engine} runs .onnx files, and {path} is none; make one with: srquant export")
    if threads is not None:
        torch.set_num_threads(threads)
    return load(path, value_range=value_range)
