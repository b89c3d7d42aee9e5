"""Relu before a quantization whose smallest integer is zero: the quantization clips as well."""

from __future__ import annotations

from typing import Any

from srquant.engines.passes.graphs import constant_of, user_of


def join_relus(model: Any) -> int:
    """Let quantizations do what Relus before them do; gives how many."""
    joined = 0
    for relu in list(model.graph):
        quantize = user_of(relu.outputs[0]) if relu.op_type == "Relu" else None
        if quantize is None or quantize.op_type != "QuantizeLinear":
            continue
        zero = constant_of(quantize.inputs[2])
        if zero is not None and not zero.any():
            quantize.replace_input_with(0, relu.inputs[0])
            model.graph.remove(relu, safe=True)
            joined += 1
    return joined
