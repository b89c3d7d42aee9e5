"""Exported files in ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srquant.engines.targets import Target
from srquant.support.errors import ModelFileError

if TYPE_CHECKING:
    from torch import Tensor

    from srquant.engines.saturation import Run

TARGET = Target("onnxruntime", "ONNX Runtime", "onnxruntime", "onnxruntime", __name__, rank=1)


def compiled(content: bytes, name: str, threads: int | None = None) -> Run:
    """What runs an ONNX file; see ``Target.runtime``."""
    import torch

    package = TARGET.imported(name)
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
