"""What passes have in common: looking at a graph of onnx_ir, and adding to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srquant.support.extras import import_extra

Array = NDArray[Any]

POINTWISE = frozenset(("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Gelu", "Round", "PRelu", "QuantizeLinear", "Clip"))
"""Operators that turn each value into another, with parameters that are numbers (of PRelu, a number a channel)."""
ARITHMETIC = frozenset(("Mul", "Add", "Sub", "Div"))


def ir() -> Any:
    """onnx_ir.

    Raises:
        MissingExtraError: The ``onnx`` extra is not installed.
    """
    return import_extra("onnx_ir", "exporting to ONNX", "onnx")


def constant_of(value: Any) -> Array | None:
    """What is stored under a value; None if it is computed, given or nothing."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def stored(model: Any, array: Array, name: str) -> Any:
    """A constant of the model, under a name that no other has."""
    known = model.graph.initializers
    while name in known:
        name += "_"
    tensor = ir().tensor(np.array(array, order="C"), name=name)
    value = ir().Value(name=name, const_value=tensor, shape=ir().Shape(array.shape), type=ir().TensorType(tensor.dtype))
    model.graph.register_initializer(value)
    return value


def node(
    kind: str, inputs: Iterable[Any], attributes: Mapping[str, Any] | None = None, outputs: int = 1, like: Any = None
) -> Any:
    """A node that is not in a graph yet; its one output has the shape and type of another value."""
    made = ir().node(kind, list(inputs), dict(attributes or {}), num_outputs=outputs)
    if like is not None:
        made.outputs[0].shape, made.outputs[0].type = like.shape, like.type
    return made


def user_of(value: Any) -> Any | None:
    """The one node that reads a value, once; None if there are several, none, or the value is the model's output."""
    uses = value.uses()
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def scalar_operand(found: Any) -> int | None:
    """Which operand of a node of arithmetic is a value, where the other is a stored number; None if neither is."""
    for place in (0, 1):
        other = constant_of(found.inputs[1 - place])
        if other is not None and other.size == 1 and constant_of(found.inputs[place]) is None:
            return place
    return None


def pointwise_operand(found: Any) -> int | None:
    """Which input of a node is turned into its output value by value, by the same rule for all; None if none is."""
    if found.op_type in ARITHMETIC:
        return scalar_operand(found)
    if found.op_type not in POINTWISE or any(
        each is not None and constant_of(each) is None for each in found.inputs[1:]
    ):
        return None
    return 0 if all(each is None or constant_of(each).size == 1 for each in found.inputs[1:]) else None  # type: ignore[union-attr]


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Shape of a value, if all of it is known."""
    if value.shape is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(value.shape)


def without_unused(model: Any) -> None:
    """Remove what nothing reads, in place."""
    ir().passes.common.RemoveUnusedNodesPass()(model)
