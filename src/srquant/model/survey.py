"""Which multiplications a network has: in which order they run, and how much work each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from srquant.model.multiplications import KINDS, MultiplicationKind, kind_of
from srquant.networks.base import SRNetwork
from srquant.support.errors import NetworkError
from srquant.support.tensors import modules_of
from srquant.support.watching import Call, Watched, watch


@dataclass(frozen=True)
class Multiplication:
    """A multiplication that can be quantized.

    ``multiply_adds`` is per pixel of the low-resolution input; ``weights`` counts the weight's elements (0 for an
    attention product); ``origins`` names, for each operand that is an activation, the operator whose output it is
    (``softmax``, ``gelu``, ``native_layer_norm``, …; see :class:`~srquant.support.watching.Watched`).
    """

    name: str
    kind: MultiplicationKind
    role: str
    multiply_adds: float
    weights: int
    origins: tuple[str, ...]


@dataclass(frozen=True)
class LeftOut:
    """A module that multiplies but cannot be quantized, why, and its own multiply-adds per LR pixel."""

    name: str
    reason: str
    multiply_adds: float


@dataclass(frozen=True)
class Survey:
    """A network's multiplications in the order in which they run, what is left out, and all multiply-adds per LR pixel.

    Left out are also multiplications with an operand or a weight that has no elements, as very narrow networks have
    them: they multiply nothing.
    """

    multiplications: tuple[Multiplication, ...]
    left_out: tuple[LeftOut, ...]
    multiply_adds: float


def survey(network: SRNetwork, watched: Watched | None = None) -> Survey:
    """Find the multiplications in one forward pass.

    Subclasses, which may compute something else, modules that do not run or are given more than their operands, and
    products that are no layers of their own are left out.

    Args:
        network: Any network.
        watched: A pass of it on its own probe; None to make one.

    Raises:
        NetworkError: The network multiplies nothing.
    """
    watched = watch(network, network.probe()) if watched is None else watched
    edges = network.edges_seen(watched)
    multiplications: list[Multiplication] = []
    left_out: list[LeftOut] = []
    for name, calls in watched.by_name().items():
        module = network.get_submodule(name)
        kind = kind_of(module)
        if kind is None or not all(call.plain for call in calls):
            continue
        if _multiplies_nothing(kind, module, calls):
            left_out.append(LeftOut(name, "an operand has no elements", 0.0))
            continue
        work = sum(_multiply_adds(kind, module, call) for call in calls) / watched.pixels
        origins = tuple(watched.origins.get(operand.value, "") for operand in calls[-1].operands)
        multiplications.append(
            Multiplication(name, kind, edges.role(name), work, _count_weights(kind, module), origins)
        )
    if not watched.multiply_adds:
        size = network.probe().shape[-1]
        raise NetworkError(f"{network.name}: not one multiplication ran on an image of {size}x{size}")
    runs = watched.by_name()
    for name, module in modules_of(network).items():
        if name not in runs and kind_of(module) is not None:
            left_out.append(LeftOut(name, "it did not run on a small image, and may run on others", 0.0))
    found = {each.name for each in multiplications}
    for name, work in watched.multiply_adds_in.items():
        if name not in found:
            reason = _why_not(network.get_submodule(name))
            left_out.append(LeftOut(name or network.name, reason, work / watched.pixels))
    return Survey(tuple(multiplications), tuple(left_out), watched.multiply_adds / watched.pixels)


def _why_not(module: nn.Module) -> str:
    """Why a module that multiplies cannot be quantized."""
    own = type(module).__name__
    if kind_of(module) is not None:
        return f"a {own} that is given more than its operands"
    for kind in KINDS.values():
        if type(module) is kind.module:
            return f"a {own} that makes its weight from the image"
        if isinstance(module, kind.module):
            return f"a {own}, which computes something else than {kind.module.__name__}"
    return f"a {own}, which multiplies by operators of its own, not by layers"


def _multiplies_nothing(kind: MultiplicationKind, module: nn.Module, calls: Sequence[Call]) -> bool:
    """Whether the weight, or an operand of any call, has no elements."""
    weight = kind.weight_of(module)
    shapes = [operand.shape for call in calls for operand in call.operands]
    return not all(shape.numel() for shape in (shapes if weight is None else [*shapes, weight.shape]))


def _multiply_adds(kind: MultiplicationKind, module: nn.Module, call: Call) -> int:
    assert call.output is not None
    return kind.multiply_adds(module, [operand.shape for operand in call.operands], call.output.shape)


def _count_weights(kind: MultiplicationKind, module: nn.Module) -> int:
    weight = kind.weight_of(module)
    return 0 if weight is None else weight.numel()
