"""Building an ONNX graph node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srquant.engines.shuffles import Shuffle
from srquant.support.extras import import_extra

OPSET = 21
"""The first with four-bit tensors; both engines run it."""
IR_VERSION = 10
"""Of the ONNX release that brought opset 21. The package's own default is newer than what ONNX Runtime takes."""

Value = str | Tensor
"""An output of a node, by name, or something that is the same for all images."""


class Writer:
    """Nodes and constants so far; equal ones are written once.

    Args:
        fixed: The image has one size, so shapes may be written as numbers.
    """

    def __init__(self, *, fixed: bool = False) -> None:
        self.fixed = fixed
        self.planes: dict[str, str] = {}
        """Of values ``... c``: the same as planes ``1 c 1 rows``, where that is what was computed."""
        self.to_shuffle: dict[str, Shuffle] = {}
        """Of values whose channels are in the order of the shuffle that takes them."""
        self.shuffled: dict[str, tuple[str, Shuffle]] = {}
        """Of values that a shuffle gave: what it took, and itself."""
        self.onnx = import_extra("onnx", "exporting to ONNX", "onnx")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._known: dict[tuple[Any, ...], str] = {}
        self._written: dict[tuple[Any, ...], Any] = {}

    def node(self, kind: str, *inputs: Value | float, outputs: int = 1, **attributes: Any) -> Any:
        """Append an operator; gives the name of its output, or the names if there are several.

        Args:
            kind: ONNX's name of the operator.
            inputs: Outputs of other nodes, constant tensors, or numbers.
            outputs: How many it has.
            attributes: Of the operator.
        """
        given = [self.name(value) for value in inputs]
        key = (kind, *given, outputs, repr(sorted(attributes.items())))
        if key not in self._written:
            names = [f"{kind.lower()}_{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
            self.nodes.append(self.onnx.helper.make_node(kind, given, names, name=names[0], **attributes))
            self._written[key] = names[0] if outputs == 1 else names
        return self._written[key]

    def given_to(self, kind: str, value: Value) -> Value:
        """What an operator of this kind was given, if it made the value; else the value."""
        return next((n.input[0] for n in self.nodes if n.op_type == kind and n.output[0] == value), value)

    def used(self, output: str) -> tuple[list[Any], list[Any]]:
        """The nodes and constants that a value needs, in order."""
        wanted, nodes = {output}, list[Any]()
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                nodes.append(node)
        return nodes[::-1], [tensor for tensor in self.constants if tensor.name in wanted]

    def name(self, value: Value | float) -> str:
        """The name of a value, stored as a constant if it has none."""
        if isinstance(value, str):
            return value
        if isinstance(value, int | float):
            value = torch.tensor(float(value))
        return self.constant(value.detach().cpu().contiguous().numpy())

    def numbers(self, *values: int) -> str:
        """A list of integers, as shapes, axes and pads are given."""
        return self.constant(np.array(values, dtype=np.int64))

    def constant(self, array: NDArray[Any]) -> str:
        """Store an array: float32, int64, int8, int4, uint8 or bool."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._known:
            name = self._known[key] = f"constant_{len(self.constants)}"
            self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return self._known[key]
