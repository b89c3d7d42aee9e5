"""Window attention: windows that differ in a mask only are computed group by group.

An attention's mask is another constant for every window, though most windows have none. Added to all scores it is
either a constant as large as the scores, or one more pass over them amid what engines compute as one operator. So the
windows are cut, where the mask changes, into groups that have one mask each or none. That needs windows with equal
masks to follow one another; an attention whose masks would make too many groups is left as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from srquant.engines.passes.graphs import Array, constant_of, node, pointwise_operand, shape_of, stored, user_of

_MOST = 8
"""Groups; each is as many operators as an attention."""


@dataclass(frozen=True)
class Attention:
    """What lies between the cut and the place where the groups are joined.

    Args:
        sources: Values that are cut, along their first axis.
        nodes: What is computed for each group, in the order of the graph; the result of the last is joined.
        mask: The operand of one of them that does not depend on the image and differs between windows.
        groups: For each the number of windows and their mask, with a first axis of one.
    """

    sources: tuple[Any, ...]
    nodes: tuple[Any, ...]
    mask: Any
    groups: tuple[tuple[int, Array], ...]


def group_attentions(model: Any) -> int:
    """Cut masked attentions into groups; gives how many."""
    found = find_attentions(model)
    for attention in found:
        _cut(model, attention)
    return len(found)


def find_attentions(model: Any) -> list[Attention]:
    """Every product, masked by a few groups of windows, softmax and second product."""
    order = {found: number for number, found in enumerate(model.graph)}
    around = (_around(found, order) for found in model.graph if found.op_type == "Softmax")
    return [attention for attention in around if attention is not None]


def _around(softmax: Any, order: dict[Any, int]) -> Attention | None:
    nodes, masks = [softmax], list[Any]()
    scores = softmax.inputs[0]
    while (maker := scores.producer()) is not None and maker.op_type == "Add" and user_of(scores) is not None:
        nodes.append(maker)
        scores, added = maker.inputs
        constant = constant_of(added)
        if constant is not None and constant.ndim == len(scores.shape) and len(constant) > 1:
            masks.append(added)
    if maker is None or maker.op_type != "MatMul" or user_of(scores) is None or len(masks) != 1:
        return None
    nodes.append(maker)
    weights, behind = softmax.outputs[0], user_of(softmax.outputs[0])
    while behind is not None and pointwise_operand(behind) is not None:
        nodes.append(behind)
        weights, behind = behind.outputs[0], user_of(behind.outputs[0])
    if behind is None or behind.op_type != "MatMul" or behind.inputs[0] is not weights:
        return None
    nodes.append(behind)
    sources: list[Any] = []
    for operand in (*maker.inputs, behind.inputs[1]):
        value = operand
        while (before := _inside(value)) is not None:
            nodes.append(value.producer())
            value = before
        sources.append(value)
    last = behind
    after = user_of(behind.outputs[0])
    if after is not None and _keeps_windows(after):
        nodes.append(after)
        last = after
    constant = constant_of(masks[0])
    assert constant is not None
    groups = tuple(_runs(constant))
    shapes = [shape_of(value) for value in (*sources, *(each.outputs[0] for each in nodes))]
    if any(shape is None for shape in shapes):
        return None
    windows = {shape[0] for shape in shapes if shape} | {len(constant)}
    axis, rank = softmax.attributes["axis"].as_int(), len(shape_of(softmax.outputs[0]) or ())
    made = {each.outputs[0] for each in nodes}
    if axis % rank == 0 or len(windows) > 1 or set(sources) & made or not 1 < len(groups) <= _MOST:
        return None
    ordered = sorted(set(nodes), key=order.__getitem__)
    return Attention(tuple(sources), tuple(ordered), masks[0], groups) if ordered[-1] is last else None


def _inside(value: Any) -> Any | None:
    """What a value was made of, if inside each window, by an operator that nothing else reads."""
    maker = value.producer()
    if maker is None or user_of(value) is None:
        return None
    place = pointwise_operand(maker)
    if place is not None:
        return maker.inputs[place]
    return maker.inputs[0] if _keeps_windows(maker) else None


def _keeps_windows(found: Any) -> bool:
    """Whether an operator exchanges axes, but not the first."""
    return found.op_type == "Transpose" and found.attributes["perm"].as_ints()[0] == 0


def _runs(mask: Array) -> Iterator[tuple[int, Array]]:
    """Windows with equal masks that follow one another."""
    same = (mask[1:] == mask[:-1]).reshape(len(mask) - 1, -1).all(1)
    cuts = [0, *(int(last) + 1 for last in np.flatnonzero(~same)), len(mask)]
    for start, end in itertools.pairwise(cuts):
        yield end - start, mask[start : start + 1]


def _cut(model: Any, attention: Attention) -> None:
    last = attention.nodes[-1]
    name, count = last.outputs[0].name, len(attention.groups)
    sizes = stored(model, np.array([number for number, _ in attention.groups], np.int64), f"{name}_groups")

    def add(made: Any) -> Any:
        model.graph.insert_before(last, made)
        return made

    parts = {
        source: add(node("Split", [source, sizes], {"axis": 0}, outputs=count)).outputs
        for source in dict.fromkeys(attention.sources)
    }
    results: list[Any] = []
    for number, (_, mask) in enumerate(attention.groups):
        own: dict[Any, Any] = {source: part[number] for source, part in parts.items()}
        if mask.any():
            own[attention.mask] = stored(model, mask, f"{name}_mask_{number}")
        for each in attention.nodes:
            if attention.mask in each.inputs and attention.mask not in own:
                own[each.outputs[0]] = own[each.inputs[0]]
                continue
            inputs = [own.get(value, value) for value in each.inputs]
            own[each.outputs[0]] = add(node(each.op_type, inputs, each.attributes)).outputs[0]
        results.append(own[last.outputs[0]])
    joined = add(node("Concat", results, {"axis": 0}, like=last.outputs[0]))
    last.outputs[0].replace_all_uses_with(joined.outputs[0], replace_graph_outputs=True)
    model.graph.remove(list(reversed(attention.nodes)), safe=True)
