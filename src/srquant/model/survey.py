"""Which multiplications a network has: in which order they run, and how much work each is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from srquant.model.multiplications import MultiplicationKind, kind_of
from srquant.networks.base import SRNetwork
from srquant.support.errors import NetworkError
from srquant.support.tensors import modules_of
from srquant.support.watching import Origins, hooks

PROBE = 48
"""Height and width of the image on which multiply-adds are counted."""


@dataclass(frozen=True)
class Point:
    """A multiplication that can be quantized.

    ``multiply_adds`` is per pixel of the low-resolution input; ``weights`` counts the weight's elements (0 for an
    attention product); ``origins`` names, for each operand that is an activation, the operator whose output it is
    (``softmax``, ``gelu``, ``native_layer_norm``, …; see :class:`~srquant.support.watching.Origins`).
    """

    name: str
    kind: MultiplicationKind
    role: str
    multiply_adds: float
    weights: int
    origins: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """All points of a network in the order in which they run, and its multiply-adds per LR pixel, points or not.

    ``empty`` names multiplications with an operand or a weight that has no elements, as very narrow networks have them:
    they multiply nothing and are no points.
    """

    points: tuple[Point, ...]
    multiply_adds: float
    empty: tuple[str, ...] = ()


def survey(network: SRNetwork) -> Survey:
    """Find the points by running the network once on a small black image.

    Modules that never run, and subclasses that may compute something else, are no points.

    Raises:
        NetworkError: The network cannot run, or multiplies nothing.
    """
    order: dict[str, float] = {}
    empty: dict[str, None] = {}
    made: dict[str, tuple[str, ...]] = {}
    origins = Origins()
    edges = network.edges
    modules = modules_of(network)
    device = next(network.parameters()).device
    probe = torch.zeros(1, 3, PROBE, PROBE, device=device)

    def count(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        work = kinds[name].multiply_adds(module, [operand.shape for operand in inputs], output.shape)
        order[name] = order.get(name, 0.0) + work / PROBE**2

    def look(name: str, module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        made[name] = tuple(origins.of(operand) for operand in operands)
        weight = kinds[name].weight_of(module)
        multiplied = operands if weight is None else (*operands, weight)
        if not all(operand.numel() for operand in multiplied):
            empty[name] = None

    kinds = {name: kind for name, module in modules.items() if (kind := kind_of(module)) is not None}
    before, after = ({name: partial(call, name) for name in kinds} for call in (look, count))
    with hooks(network, before, after), torch.no_grad(), FlopCounterMode(display=False) as counter, origins:
        network(probe)
    points = (
        Point(name, kinds[name], edges.role(name), work, _count_weights(kinds[name], modules[name]), made[name])
        for name, work in order.items()
        if name not in empty
    )
    total = counter.get_total_flops() / 2 / PROBE**2
    if not total:
        raise NetworkError(f"{network.name}: not one multiplication ran on an image of {PROBE}x{PROBE}")
    return Survey(tuple(points), total, tuple(empty))


def _count_weights(kind: MultiplicationKind, module: nn.Module) -> int:
    weight = kind.weight_of(module)
    return 0 if weight is None else weight.numel()
