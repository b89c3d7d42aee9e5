"""Whether an engine's byte products saturate on this processor: not asked of the processor, but tried.

x86 processors without VNNI or AMX multiply bytes by an instruction that adds two products in 16 bits and cuts off what
is beyond them. Which instructions an engine uses depends on more than the processor's name: on the engine, its version,
a cap that the environment sets, an emulator. So a tiny network whose products all leave 16 bits is run once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srquant.engines.standard import IR_VERSION, OPSET
from srquant.support.extras import import_extra

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
    onnx = import_extra("onnx", "trying byte products", "onnx")
    nodes, stored = list[Any](), list[Any]()

    def add(kind: str, *given: Any, **attributes: Any) -> str:
        """A node, whose operands are names or constants; gives its output's name."""
        names: list[str] = []
        for value in given:
            if isinstance(value, str):
                names.append(value)
            else:
                stored.append(onnx.numpy_helper.from_array(np.asarray(value), f"constant_{len(stored)}"))
                names.append(stored[-1].name)
        nodes.append(onnx.helper.make_node(kind, names, [f"value_{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def as_bytes(x: str) -> str:
        """Ones as the byte 255; of a product's output too, else ONNX Runtime multiplies floats."""
        scale, zero = np.float32(1 / 255), np.uint8(0)
        return add("DequantizeLinear", add("QuantizeLinear", x, scale, zero), scale, zero)

    def weight(shape: tuple[int, ...], axis: int) -> str:
        """Bytes of 127 that add up to one for each output."""
        integers = np.full(shape, 127, np.int8)
        outputs = shape[axis]
        scale = np.full(outputs, outputs / (127 * integers.size), np.float32)
        return add("DequantizeLinear", integers, scale, np.zeros(outputs, np.int8), axis=axis)

    x = as_bytes("images")
    for size in (3, 1):
        x = as_bytes(add("Conv", x, weight((_CHANNELS, _CHANNELS, size, size), 0), kernel_shape=[size, size]))
    x = as_bytes(add("MatMul", x, weight((_SIZE, _SIZE), 1)))
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = {"images": [1, _CHANNELS, _SIZE + 2, _SIZE + 2], x: [1, _CHANNELS, _SIZE, _SIZE]}
    given, found = (helper.make_tensor_value_info(name, kind, shape) for name, shape in ends.items())
    graph = helper.make_graph(nodes, "saturation", [given], [found], initializer=stored)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return content.SerializeToString()
