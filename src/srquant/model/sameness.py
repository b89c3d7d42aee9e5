"""Before anything is learned of a network: with quantized layers it is the same network, and its file can be opened."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from srquant.model.layer import CodedWeight, QuantLayer
from srquant.model.multiplications import kind_of
from srquant.model.preparing import Prepared
from srquant.model.storage import require_reopening
from srquant.model.swapping import swap
from srquant.networks.base import SRNetwork
from srquant.quantizers import Uniform
from srquant.support.errors import NetworkError, first_line
from srquant.support.tensors import modules_of
from srquant.support.watching import hooks

_ROUNDING = 1e-3
"""Difference of two outputs, as a part of their largest value, that sums in another order may make."""


class _LetThrough(nn.Module):
    """In the place of a quantizer: the value as it is, or the weight that it was made with."""

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, value: Tensor | None = None) -> Tensor | None:
        return value if self.weight is None else self.weight


def let_through(network: SRNetwork, names: Sequence[str]) -> SRNetwork:
    """A copy of a float network with layers in the places of some multiplications that quantize nothing."""
    return swap(network, {name: _layer(network, name, _LetThrough(), _LetThrough) for name in names})


def require_usable(original: SRNetwork, prepared: Prepared, names: Sequence[str]) -> None:
    """See that a network is the same with quantized layers, and that a file of it can be opened.

    Args:
        original: The float network.
        prepared: As it is quantized.
        names: Multiplications that will be quantized.

    Raises:
        NetworkError: It is not; the first layer that differs is named. Or its file would not open.
    """
    images = original.probe().flip(-1)
    images = images[..., original.alignment :, :] if images.shape[-2] > original.alignment else images
    made = {fold.convolution for fold in prepared.folds} | (set(names) - modules_of(original).keys())
    expected, expected_outputs = _run(original, [name for name in names if name not in made], images)
    try:
        found, outputs = _run(let_through(prepared.network, names), list(expected_outputs), images)
    except Exception as error:  # of the network's own code, which may raise anything
        raise NetworkError(f"with quantized layers in it, {_said(error)}") from error
    if not _agree(expected, found):
        parted = [name for name in outputs if not _agree(expected_outputs[name], outputs[name])]
        where = f"{parted[0]} is the first that gives something else" if parted else "all of them give the same"
        raise NetworkError(
            f"with layers in it that quantize nothing, the network computes something else; of these layers, {where}. "
            f"Leave layers float that the network treats in a way of its own: layers=NAME=float"
        )
    quantized = swap(prepared.network, {name: _layer(prepared.network, name, _coarse(), _coded) for name in names})
    require_reopening(original, quantized, prepared.baked, prepared.folds)


def _said(error: Exception) -> str:
    """What went wrong in a network."""
    return first_line(error) if isinstance(error, NetworkError) else f"{type(error).__name__}: {first_line(error)}"


def _layer(network: SRNetwork, name: str, left: nn.Module, right_of: Any) -> QuantLayer:
    """A quantized layer whose right side is made of the weight, or is the left one again."""
    module = network.get_submodule(name)
    kind = kind_of(module)
    assert kind is not None
    weight = kind.weight_of(module)
    right = left if weight is None else right_of(weight)
    return QuantLayer(kind.product_of(module), cast(Any, left), cast(Any, right), kind.bias_of(module))


def _coarse() -> Uniform:
    return Uniform(8, torch.zeros(()), torch.ones(()))


def _coded(weight: Tensor) -> CodedWeight:
    return CodedWeight.of(weight, _coarse())


def _run(network: SRNetwork, names: Sequence[str], images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What a network gives, and what some of its modules gave when they first ran, in the order in which they ran."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _operands: object, output: Tensor) -> None:
        outputs.setdefault(name, output.clone())

    with hooks(network, after={name: partial(keep, name) for name in names}), torch.no_grad():
        return network(images.clone()), outputs  # some networks write into what they are given


def _agree(expected: Tensor, found: Tensor) -> bool:
    if expected.shape != found.shape:
        return False
    largest = float(expected.nan_to_num(0, 0, 0).abs().max())
    return torch.allclose(found, expected, rtol=0, atol=_ROUNDING * largest, equal_nan=True)
