"""Weights as engines want them: the axes in the order of the product, and few bits stored as such."""

from __future__ import annotations

from typing import Any

import numpy as np

from srquant.engines.passes.graphs import constant_of, ir, node, stored


def turn_weights(model: Any) -> int:
    """Linear maps as MatMul with a weight that lies as it is multiplied, and Add; gives how many.

    PyTorch's exporter transposes the decoded weight, or takes Gemm where its input has two axes.
    """
    turned = 0
    for found in list(model.graph):
        transposed = found.op_type == "Transpose" and _swaps(found)
        gemm = found.op_type == "Gemm" and found.attributes["transB"].as_int() == 1
        if not (transposed or gemm):
            continue
        decode = found.inputs[1 if gemm else 0].producer()
        if decode is None or decode.op_type != "DequantizeLinear" or decode.attributes["axis"].as_int() != 0:
            continue
        integers = constant_of(decode.inputs[0])
        if integers is None or integers.ndim != 2:
            continue
        weight = stored(model, integers.T, f"{decode.inputs[0].name}_turned")
        again = node("DequantizeLinear", [weight, *decode.inputs[1:]], {"axis": 1})
        model.graph.insert_before(found, again)
        if gemm:
            product = node("MatMul", [found.inputs[0], again.outputs[0]], like=found.outputs[0])
            result = product
            model.graph.insert_before(found, product)
            if len(found.inputs) > 2 and found.inputs[2] is not None:
                result = node("Add", [product.outputs[0], found.inputs[2]], like=found.outputs[0])
                model.graph.insert_before(found, result)
            found.outputs[0].replace_all_uses_with(result.outputs[0], replace_graph_outputs=True)
        else:
            found.outputs[0].replace_all_uses_with(again.outputs[0])
        model.graph.remove(found, safe=True)
        turned += 1
    return turned


def _swaps(found: Any) -> bool:
    return tuple(found.attributes["perm"].as_ints()) == (1, 0)


def store_four_bits(model: Any) -> int:
    """Weights of up to four bits stored as such, ``integer = 2 · code + 1`` where all are odd; gives how many."""
    kinds, narrowed = ir().DataType, 0
    for decode in list(model.graph):
        integers = constant_of(decode.inputs[0]) if decode.op_type == "DequantizeLinear" else None
        if integers is None or decode.inputs[0].dtype != kinds.INT8:
            continue
        odd = bool((integers % 2 != 0).all())
        codes = (integers - 1) // 2 if odd else integers
        if int(codes.min()) < -8 or int(codes.max()) > 7:
            continue
        name = decode.inputs[0].name
        value = stored(model, codes.astype(kinds.INT4.numpy()), f"{name}_in_four_bits")
        made = [node("Cast", [value], {"to": int(kinds.INT8)})]
        if odd:
            two, one = (stored(model, np.array(number, np.int8), f"{name}_{number}") for number in (2, 1))
            made.append(node("Mul", [made[-1].outputs[0], two]))
            made.append(node("Add", [made[-1].outputs[0], one]))
        for each in made:
            model.graph.insert_before(decode, each)
        decode.replace_input_with(0, made[-1].outputs[0])
        narrowed += 1
    return narrowed
