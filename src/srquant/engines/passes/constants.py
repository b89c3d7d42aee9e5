"""What does not depend on the image: computed and stored, unless that makes it larger; then the engine does it."""

from __future__ import annotations

from typing import Any

import numpy as np

from srquant.engines.passes.graphs import Array, constant_of, ir, stored, without_unused
from srquant.support.extras import import_extra

_LARGER = 2
"""A constant that another one grows into by more than this is made by the engine instead of stored."""
_SMALL = 4096
"""Values that are stored in any case."""
_KEPT = ("QuantizeLinear", "DequantizeLinear")
"""Operators that are what they are for the engine to see them."""


def store_constants(model: Any) -> int:
    """Compute what no image changes, and store it where it is read; gives how many values were stored."""
    found = _worth_storing(_values(model))
    done = 0
    for value, array in found.items():
        read = [use for use in value.uses() if not all(each in found for each in use.node.outputs)]
        if not read:
            continue
        kept = stored(model, array, f"{value.name}_stored")
        for use in read:
            use.node.replace_input_with(use.idx, kept)
        done += 1
    without_unused(model)
    return done


def _worth_storing(found: dict[Any, Array]) -> dict[Any, Array]:
    """Those that have not grown, nor are made of what has."""
    kept = dict[Any, Array]()
    for value, array in found.items():
        given = [each for each in value.producer().inputs if each is not None]
        arrays = [kept[each] if each in kept else constant_of(each) for each in given]
        if all(each is not None for each in arrays):
            largest = max((each.size for each in arrays if each is not None), default=0)
            if array.dtype != np.float32 or array.size <= max(_SMALL, _LARGER * largest):
                kept[value] = array
    return kept


def _values(model: Any) -> dict[Any, Array]:
    """Computed values that do not depend on the image."""
    nodes, known = list[Any](), set[Any]()
    for found in model.graph:
        plain = found.domain in ("", "ai.onnx") and found.op_type not in _KEPT
        if plain and all(value is None or constant_of(value) is not None or value in known for value in found.inputs):
            nodes.append(found)
            known.update(found.outputs)
    nodes = [found for found in nodes if found.outputs]
    if not nodes:
        return {}
    inside = ir().Graph([], [], nodes=[], opset_imports=model.graph.opset_imports, name="constants")
    copies = dict[Any, Any]()
    for value in {each for found in nodes for each in found.inputs if each is not None and each not in known}:
        copies[value] = ir().Value(name=value.name, const_value=value.const_value, shape=value.shape, type=value.type)
        inside.register_initializer(copies[value])
    for found in nodes:
        inputs = [None if value is None else copies[value] for value in found.inputs]
        copy = ir().Node("", found.op_type, inputs, found.attributes.values(), num_outputs=len(found.outputs))
        for value, twin in zip(found.outputs, copy.outputs, strict=True):
            twin.name, twin.type, twin.shape = value.name, value.type, value.shape
            copies[value] = twin
        inside.append(copy)
    wanted = [value for found in nodes for value in found.outputs]
    inside.outputs.extend(copies[value] for value in wanted)
    proto = ir().to_proto(ir().Model(inside, ir_version=model.ir_version))
    evaluator = import_extra("onnx.reference", "exporting to ONNX", "onnx").ReferenceEvaluator(proto)
    with np.errstate(all="ignore"):  # what no image changes may be no number, where nothing reads it
        return dict(zip(wanted, evaluator.run(None, {}), strict=True))
