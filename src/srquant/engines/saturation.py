"""Whether an engine's byte products saturate on this processor: not asked of the processor, but tried.

x86 processors without VNNI or AMX multiply bytes by an instruction that adds two products in 16 bits and cuts off what
is beyond them. Which instructions an engine uses depends on more than the processor's name: on the engine, its version,
a cap that the environment sets, an emulator. So a tiny network whose products all leave 16 bits is run once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from srquant.engines.writer import IR_VERSION, OPSET, Writer

Run = Callable[[Tensor], Tensor]
Compile = Callable[[bytes, str, int | None], Run]
"""Content of an ONNX file, how messages call it, threads (all cores if None): what runs it."""

_CHANNELS, _SIZE = 16, 16


@cache
def products_saturate(compiled: Compile) -> bool:
    """Whether pairs of byte products that leave 16 bits come out too small; tried once in a process.

    Args:
        compiled: Of an engine's module.

    Raises:
        MissingExtraError: The ``onnx`` extra is not installed.
        ModelFileError: The engine refuses the network that tries it.
    """
    found = compiled(_probe(), "a network of byte products", 1)(torch.ones(1, _CHANNELS, _SIZE + 2, _SIZE + 2))
    return not float(found.min()) > 0.9  # 1 is right; it is half as much after the first product that saturates


def _probe() -> bytes:
    """A convolution, one of single pixels, and a linear map: largest bytes times largest bytes, each giving ones."""
    w = Writer(fixed=True)
    x = _bytes(w, "images")
    for size in (3, 1):
        x = _bytes(w, w.node("Conv", x, _weight(w, (_CHANNELS, _CHANNELS, size, size), 0), kernel_shape=[size, size]))
    x = _bytes(w, w.node("MatMul", x, _weight(w, (_SIZE, _SIZE), 1)))
    helper, kind = w.onnx.helper, w.onnx.TensorProto.FLOAT
    ends = {"images": [1, _CHANNELS, _SIZE + 2, _SIZE + 2], x: [1, _CHANNELS, _SIZE, _SIZE]}
    given, found = (helper.make_tensor_value_info(name, kind, shape) for name, shape in ends.items())
    graph = helper.make_graph(w.nodes, "saturation", [given], [found], initializer=w.constants)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return content.SerializeToString()


def _bytes(w: Writer, x: str) -> str:
    """Ones as the byte 255; of a product's output too, else ONNX Runtime multiplies floats."""
    scale, zero = torch.tensor(1 / 255), torch.tensor(0, dtype=torch.uint8)
    return w.node("DequantizeLinear", w.node("QuantizeLinear", x, scale, zero), scale, zero)


def _weight(w: Writer, shape: tuple[int, ...], axis: int) -> str:
    """Bytes of 127 that add up to one for each output."""
    integers = torch.full(shape, 127, dtype=torch.int8)
    outputs = shape[axis]
    scale = torch.full((outputs,), outputs / (127 * integers.numel()))
    return w.node("DequantizeLinear", integers, scale, torch.zeros(outputs, dtype=torch.int8), axis=axis)
