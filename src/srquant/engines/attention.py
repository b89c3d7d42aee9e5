"""Window attention in exported files: windows that differ in a mask only are computed group by group.

An attention's mask is another constant for every window, though most windows have none. Added to all scores it is
either a constant as large as the scores, or one more pass over them amid what engines compute as one operator. So the
windows are cut, where the mask changes, into groups that have one mask each or none. That needs windows with equal
masks to follow one another; an attention whose masks would make too many groups is left as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx

from srquant.engines.operators import shape_of

_MOST = 8
"""Groups; each is as many operators as an attention."""
_PRODUCT, _SUM, _SOFTMAX = "aten.matmul.default", "aten.add.Tensor", "aten.softmax.int"
_MOVING = ("aten.transpose.int", "aten.permute.default")


@dataclass(frozen=True)
class Attention:
    """What lies between the cut and the place where the groups are joined.

    Args:
        sources: Nodes whose results are cut, along their first axis.
        nodes: What is computed for each group, in the order of the trace; the result of the last is joined.
        mask: The operand of one of them that does not depend on the image and differs between windows.
        groups: For each the number of windows and their mask, with a first axis of one.
    """

    sources: tuple[fx.Node, ...]
    nodes: tuple[fx.Node, ...]
    mask: fx.Node
    groups: tuple[tuple[int, Tensor], ...]

    @property
    def result(self) -> fx.Node:
        """What is joined."""
        return self.nodes[-1]


def find_attentions(graph: fx.Graph, constants: Mapping[fx.Node, Tensor]) -> list[Attention]:
    """Every product, masked by a few groups of windows, softmax and second product.

    Args:
        graph: Of a trace.
        constants: What does not depend on the image.
    """
    order = {node: number for number, node in enumerate(graph.nodes)}
    around = (_around(node, constants, order) for node in graph.nodes if str(node.target) == _SOFTMAX)
    return [attention for attention in around if attention is not None]


def _around(softmax: fx.Node, constants: Mapping[fx.Node, Tensor], order: Mapping[fx.Node, int]) -> Attention | None:
    nodes, masks = [softmax], list[fx.Node]()
    scores = cast(fx.Node, softmax.args[0])
    while str(scores.target) == _SUM and len(scores.users) == 1:
        nodes.append(scores)
        scores, added = cast(tuple[fx.Node, fx.Node], scores.args)
        if added in constants and constants[added].ndim == len(shape_of(scores)) and len(constants[added]) > 1:
            masks.append(added)
    product = next(iter(softmax.users))
    products = str(scores.target) == str(product.target) == _PRODUCT and product.args[0] is softmax
    if not products or len(scores.users) > 1 or len(softmax.users) > 1 or len(masks) != 1:
        return None
    nodes += [scores, product]
    sources: list[fx.Node] = []
    for operand in (*scores.args, product.args[1]):
        source = cast(fx.Node, operand)
        while _moves_inside(source) and len(source.users) == 1:
            nodes.append(source)
            source = cast(fx.Node, source.args[0])
        sources.append(source)
    behind = next(iter(product.users))
    if len(product.users) == 1 and _moves_inside(behind):
        nodes.append(behind)
    groups = tuple(_runs(constants[masks[0]]))
    windows = {shape_of(node)[0] for node in (*nodes, *sources)} | {len(constants[masks[0]])}
    across = cast(int, softmax.args[1]) % len(shape_of(softmax)) == 0
    if across or len(windows) > 1 or set(sources) & set(nodes) or not 1 < len(groups) <= _MOST:
        return None
    return Attention(tuple(sources), tuple(sorted(nodes, key=order.__getitem__)), masks[0], groups)


def _moves_inside(node: fx.Node) -> bool:
    """Whether an operator exchanges axes, but not the first."""
    if str(node.target) not in _MOVING:
        return False
    rank = len(shape_of(node))
    if str(node.target) == "aten.permute.default":
        return cast(list[int], node.args[1])[0] % rank == 0
    return all(cast(int, axis) % rank for axis in node.args[1:])


def _runs(mask: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Windows with equal masks that follow one another."""
    same = (mask[1:] == mask[:-1]).flatten(1).all(1)
    cuts = [0, *(int(last) + 1 for last in torch.nonzero(~same)), len(mask)]
    for start, end in itertools.pairwise(cuts):
        yield end - start, mask[start : start + 1]
