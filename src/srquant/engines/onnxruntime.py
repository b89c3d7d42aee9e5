"""Exported files in ONNX Runtime."""

from __future__ import annotations

import torch
from torch import Tensor

from srquant.engines.saturation import Run
from srquant.engines.targets import TARGETS
from srquant.support.errors import ModelFileError


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
    package = TARGETS["onnxruntime"].imported(name)
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
