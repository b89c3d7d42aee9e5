"""Linear maps as convolutions of single pixels: in OpenVINO up to three times as fast, where shapes are known.

Values ``... c`` are taken as an image of one row, ``1 c 1 rows``: planes. What acts on single values between two linear
maps is computed on the planes, so that only at the ends of such a chain axes change their places, of bytes where it can
be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srquant.engines.passes.graphs import (
    constant_of,
    node,
    pointwise_operand,
    shape_of,
    stored,
    user_of,
    without_unused,
)

_TO_PLANES, _TO_ROWS = (0, 3, 1, 2), (0, 2, 3, 1)
_SMALLEST = np.finfo(np.float32).tiny


def convolve_pixels(model: Any) -> int:
    """Write quantized linear maps as convolutions; gives how many."""
    work = _Pixels(model)
    done = 0
    for found in list(model.graph):
        if found.op_type == "MatMul":
            done += work.convolve(found)
        elif found.inputs and found.inputs[0] in work.planes and pointwise_operand(found) == 0:
            if found.op_type in ("QuantizeLinear", "Mul", "Clip", "Round", "PRelu"):
                continue
            work.on_planes(found)
    without_unused(model)
    return done


@dataclass(frozen=True)
class _Map:
    """A linear map with a decoded weight: its input before quantization, and what makes bytes of it."""

    x: Any
    between: Sequence[Any]
    decode: Any
    weight: Any


class _Pixels:
    def __init__(self, model: Any) -> None:
        self.model = model
        self.planes: dict[Any, Any] = {}
        """Of values ``... c``: the same as planes, where that is what was computed."""
        self.quantized: dict[Any, Any] = {}
        """Of quantized rows: the same as planes."""

    def convolve(self, product: Any) -> bool:
        found = _linear_map(product)
        if found is None:
            return False
        if found.decode.outputs[0] not in self.quantized:
            self.quantized[found.decode.outputs[0]] = self._bytes(product, found)
        integers, scale = (constant_of(value) for value in found.weight.inputs[:2])
        assert integers is not None
        assert scale is not None
        total = user_of(product.outputs[0])
        bias = (
            None if total is None or total.op_type != "Add" else next(map(constant_of, _others(total, product)), None)
        )
        if bias is None or bias.shape != (integers.shape[1],):
            total, bias = product, np.zeros(integers.shape[1], np.float32)
        if not bias.any():
            bias = np.full_like(bias, _SMALLEST)  # OpenVINO drops a bias of zeros; see IntegerOperands.bias
        name = found.weight.inputs[0].name
        kernel = stored(self.model, np.ascontiguousarray(integers.T)[..., None, None], f"{name}_of_pixels")
        weight = self._add(total, "DequantizeLinear", [kernel, *found.weight.inputs[1:]], {"axis": 0})
        given = [self.quantized[found.decode.outputs[0]], weight, stored(self.model, bias, f"{name}_bias")]
        self._rows(total, self._add(total, "Conv", given, {"kernel_shape": [1, 1]}))
        return True

    def on_planes(self, found: Any) -> None:
        """Compute an operator on planes."""
        inputs = [self.planes[found.inputs[0]], *found.inputs[1:]]
        self._rows(found, self._add(found, found.op_type, inputs, found.attributes))

    def _bytes(self, product: Any, found: _Map) -> Any:
        """The quantized input as planes.

        Quantized before the axes change places, but not in the shape in which it was made: OpenVINO would join the
        quantization with a norm before it, and its kernel for that is slow.
        """
        shape = shape_of(found.x)
        assert shape is not None
        planes = self.planes.get(found.x)
        if planes is None:
            rows = self._shape(1, 1, math.prod(shape[:-1]), shape[-1])
            value = self._add(product, "Reshape", [found.x, rows])
        else:
            value = planes
        for each in found.between:
            place = pointwise_operand(each)
            inputs = list(each.inputs)
            if place is None and planes is not None:
                factor = constant_of(inputs[1])
                assert factor is not None
                inputs[1] = stored(self.model, factor.reshape(-1, 1, 1), f"{inputs[1].name}_of_planes")
            inputs[place or 0] = value
            value = self._add(product, each.op_type, inputs, each.attributes)
        value = self._add(product, "DequantizeLinear", [value, *found.decode.inputs[1:]])
        return value if planes is not None else self._add(product, "Transpose", [value], {"perm": _TO_PLANES})

    def _rows(self, replaced: Any, planes: Any) -> None:
        """Put planes, as rows again, in the place of a node."""
        before = replaced.outputs[0]
        shape = shape_of(before)
        assert shape is not None
        turned = self._add(replaced, "Transpose", [planes], {"perm": _TO_ROWS})
        rows = self._add(replaced, "Reshape", [turned, self._shape(*shape)], like=before)
        before.replace_all_uses_with(rows, replace_graph_outputs=True)
        self.planes[rows] = planes

    def _shape(self, *sizes: int) -> Any:
        return stored(self.model, np.array(sizes, np.int64), f"shape_{'_'.join(map(str, sizes))}")

    def _add(self, before: Any, kind: str, inputs: Sequence[Any], attributes: Any = None, like: Any = None) -> Any:
        made = node(kind, inputs, attributes, like=like)
        self.model.graph.insert_before(before, made)
        return made.outputs[0]


def _others(found: Any, maker: Any) -> list[Any]:
    return [value for value in found.inputs if value is not maker.outputs[0]]


def _linear_map(product: Any) -> _Map | None:
    decode, weight = (value.producer() for value in product.inputs)
    if decode is None or weight is None or {decode.op_type, weight.op_type} != {"DequantizeLinear"}:
        return None
    integers = constant_of(weight.inputs[0])
    if integers is None or integers.ndim != 2 or weight.attributes["axis"].as_int() != 1:
        return None
    between, value = list[Any](), decode.inputs[0]
    while (maker := value.producer()) is not None:
        place = pointwise_operand(maker)
        if place is None and not _multiplies_channels(maker, integers.shape[0]):
            break
        if maker.op_type not in ("Mul", "Add", "LeakyRelu", "Clip", "Round", "QuantizeLinear"):
            break
        if between and len(value.uses()) > 1:
            break
        between.insert(0, maker)
        value = maker.inputs[place or 0]
    known = shape_of(value) is not None and shape_of(product.outputs[0]) is not None
    return _Map(value, between, decode, weight) if known and between else None


def _multiplies_channels(found: Any, channels: int) -> bool:
    factor = constant_of(found.inputs[1]) if found.op_type == "Mul" else None
    return factor is not None and factor.shape == (channels,)
