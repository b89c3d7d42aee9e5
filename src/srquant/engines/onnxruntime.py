"""Exported files in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from srquant.engines.exported import Exported, read_contract, warn_if_saturating
from srquant.engines.saturation import Run
from srquant.support.errors import ModelFileError
from srquant.support.extras import import_extra


def open_exported(path: Path, threads: int | None = None) -> Exported:
    """Open an exported file.

    Args:
        path: What :func:`~srquant.engines.onnx.write_onnx` wrote.
        threads: How many to use; all cores if None.

    Raises:
        ModelFileError: The file is damaged, or the engine refuses it.
        MissingExtraError: The ``onnxruntime`` extra is not installed.
    """
    package = import_extra("onnxruntime", f"running {path.name} in ONNX Runtime", "onnxruntime")
    contract, content = read_contract(path)
    name = f"ONNX Runtime {package.__version__}"
    warn_if_saturating(contract, path, name, compiled)
    return Exported(contract, path.name, name, compiled(content, str(path), threads))


def compiled(content: bytes, name: str, threads: int | None = None) -> Run:
    """What runs an ONNX file.

    Args:
        content: Of the file; ``images`` in, enlarged images out.
        name: Of the file, for messages.
        threads: How many to use; all cores if None.

    Raises:
        ModelFileError: The engine refuses it.
        MissingExtraError: The ``onnxruntime`` extra is not installed.
    """
    package = import_extra("onnxruntime", f"running {name} in ONNX Runtime", "onnxruntime")
    options = package.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        session = package.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # Its exceptions are bound from C++ and have no common base.
        raise ModelFileError(f"ONNX Runtime refuses {name}: {str(error).splitlines()[0]}") from error

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return run
