"""Pixel shuffles, written where they cost least.

A shuffle only moves values. What acts on single values, as the quantization for the next convolution does, is written
before it and so becomes part of the convolution before; then bytes are moved instead of floats. And where the output of
a convolution is shuffled, its channels get an order that leaves those of a pixel side by side, as they lie in the
engine's memory: it moves rows instead of single values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from srquant.engines.passes.graphs import Array, constant_of, ir, pointwise_operand, stored, user_of


def shuffle_last(model: Any) -> int:
    """Move what acts on single values before the shuffles; gives how many operators were moved."""
    moved = 0
    for shuffle in list(model.graph):
        if shuffle.op_type != "DepthToSpace":
            continue
        while (user := user_of(shuffle.outputs[0])) is not None:
            place = pointwise_operand(user)
            channels = _constant_of_channels(user)
            if place is None and channels is None:
                break
            place = 0 if place is None else place
            if channels is not None and user.inputs[place] is not shuffle.outputs[0]:
                break
            if channels is not None:
                repeated = np.repeat(channels, shuffle.attributes["blocksize"].as_int() ** 2, 0)
                user.replace_input_with(1, stored(model, repeated, f"{user.inputs[1].name}_repeated"))
            _exchange(model, shuffle, user, place)
            moved += 1
    return moved


def _constant_of_channels(found: Any) -> Array | None:
    """The second operand of a node, if it is a number for each channel: ``c 1 1``."""
    other = constant_of(found.inputs[1]) if found.op_type in ("Mul", "PRelu") else None
    if (
        other is None
        or other.ndim < 3
        or other.size == 1
        or other.size != other.shape[-3]
        or other.shape[-2:] != (1, 1)
    ):
        return None
    return other.reshape(-1, 1, 1)


def _exchange(model: Any, shuffle: Any, user: Any, place: int) -> None:
    """Shuffle → user becomes user → shuffle."""
    before, between, after = shuffle.inputs[0], shuffle.outputs[0], user.outputs[0]
    user.replace_input_with(place, before)
    after.replace_all_uses_with(between, replace_graph_outputs=True)
    shuffle.replace_input_with(0, after)
    after.shape, (between.type, after.type) = before.shape, (after.type, after.type)
    model.graph.remove(shuffle)
    model.graph.insert_after(user, shuffle)


def order_channels(model: Any) -> int:
    """Give convolutions before shuffles the order of channels that is shuffled fastest; gives how many."""
    ordered = 0
    for shuffle in list(model.graph):
        if shuffle.op_type != "DepthToSpace" or shuffle.attributes["mode"].as_string() != "CRD":
            continue
        value, between = shuffle.inputs[0], list[Any]()
        while len(value.uses()) == 1 and (maker := value.producer()) is not None and maker.op_type != "Conv":
            place = pointwise_operand(maker)
            if place is None and _constant_of_channels(maker) is None:
                break
            between.append(maker)
            value = maker.inputs[place or 0]
        convolution = value.producer()
        if convolution is None or convolution.op_type != "Conv" or len(value.uses()) != 1:
            continue
        group = convolution.attributes.get("group")
        weight = convolution.inputs[1].producer()
        if (group is not None and group.as_int() != 1) or (weight is not None and weight.op_type != "DequantizeLinear"):
            continue
        places: list[tuple[Any, int]] = [(convolution, 2)]
        places += [(convolution, 1)] if weight is None else [(weight, 0), (weight, 1), (weight, 2)]
        places += [(each, 1) for each in between if _constant_of_channels(each) is not None]
        places = [
            (each, place) for each, place in places if place < len(each.inputs) and each.inputs[place] is not None
        ]
        if not all(constant_of(each.inputs[at]) is not None for each, at in places):
            continue
        factor = shuffle.attributes["blocksize"].as_int()
        for each, place in places:
            array = constant_of(each.inputs[place])
            assert array is not None
            rows = array.reshape(-1, 1, 1) if _constant_of_channels(each) is not None else array
            if rows.ndim and len(rows) > 1:
                turned = rows.reshape(-1, factor**2, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)
                each.replace_input_with(place, stored(model, turned, f"{each.inputs[place].name}_by_pixel"))
        shuffle.attributes["mode"] = ir().AttrString("mode", "DCR")
        ordered += 1
    return ordered
