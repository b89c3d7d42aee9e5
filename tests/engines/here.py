"""What engines do on the processor that runs the tests, and what to compare them with there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
from torch import Tensor

from srquant.engines import TARGETS, saturates
from srquant.engines.operands import Range
from srquant.model import Model

NORM = """
import numpy, openvino
ops = openvino.opset13
images = ops.parameter([1, 64, 12], numpy.float32)
normed = ops.mvn(images, numpy.array([-1]), True, 1e-5, "INSIDE_SQRT")
compiled = openvino.Core().compile_model(openvino.Model([normed], [images], "norm"), "CPU")
compiled([numpy.ones((1, 64, 12), numpy.float32)])
"""


def right_range(*engines: str) -> Range:
    """The range of weights in which products saturate in none of these engines here."""
    return "reduced" if any(saturates(engine) for engine in engines or TARGETS) else "full"


def widest_weight(content: bytes) -> int:
    """The largest absolute integer among the int8 constants of an ONNX file."""
    stored = onnx.load_from_string(content).graph.initializer
    arrays = [onnx.numpy_helper.to_array(t) for t in stored if t.data_type == onnx.TensorProto.INT8]
    return max(int(np.abs(array.astype(int)).max()) for array in arrays)


def saturating(compiled: Callable, model: Model, factor: float) -> Callable:
    """An engine whose products saturate, on any processor: with full range it gives so much of what the model gives."""

    def saturated(content: bytes, name: str, threads: int | None = None) -> Callable[[Tensor], Tensor]:
        run = compiled(content, name, threads)
        if widest_weight(content) <= 64:
            return run
        return lambda images: factor * model(images) if images.shape[1] == 3 else run(images) / 2

    return saturated


@cache
def openvino_dies_of_norms() -> bool:
    """Whether its layer norm ends the process, under a cap that oneDNN heeds and its own kernels do not."""
    if "ONEDNN_MAX_CPU_ISA" not in os.environ:
        return False
    return subprocess.run([sys.executable, "-c", NORM], capture_output=True).returncode < 0


def skip_if_it_dies(engine: str, network: str) -> None:
    if engine == "openvino" and network.startswith("swinir") and openvino_dies_of_norms():
        pytest.skip("OpenVINO's layer norm heeds no ONEDNN_MAX_CPU_ISA and crashes; an emulated processor runs it")
