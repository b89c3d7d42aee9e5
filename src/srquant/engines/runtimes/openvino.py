"""Exported files in OpenVINO."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from srquant.engines.targets import Target
from srquant.support.errors import ModelFileError

if TYPE_CHECKING:
    from torch import Tensor

    from srquant.engines.saturation import Run

TARGET = Target("openvino", "OpenVINO", "openvino", "openvino", __name__, rank=0)


def compiled(content: bytes, name: str, threads: int | None = None) -> Run:
    """What runs an ONNX file; see ``Target.runtime``."""
    import torch

    core = TARGET.imported(name).Core()
    # Floats as floats: on processors with bfloat16 arithmetic the default is to compute what is not quantized in it.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    try:
        model = core.compile_model(core.read_model(io.BytesIO(content)), "CPU", options)
    except Exception as error:
        # Its exceptions are bound from C++ and have no common base.
        raise ModelFileError(f"OpenVINO refuses {name}: {str(error).splitlines()[0]}") from error
    request = model.create_infer_request()

    def run(images: Tensor) -> Tensor:
        # Without AMX, OpenVINO 2026.4.1 computes a pixel that comes alone wrongly, two of them rightly.
        alone = images.shape[:1] + images.shape[2:] == (1, 1, 1)
        given = images.repeat(2, 1, 1, 1) if alone else images
        # A copy, because the next run writes to the same memory.
        return torch.from_numpy(request.infer([given.numpy()])[0][: len(images)].copy())

    return run
