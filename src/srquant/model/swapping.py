"""Putting other modules in the places of a network's own, in a copy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

from torch import nn

from srquant.model.layer import QuantLayer
from srquant.support.tensors import modules_of, names_of

N = TypeVar("N", bound=nn.Module)


def copy_network(network: N) -> N:
    """An independent copy."""
    return copy.deepcopy(network)


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of a submodule, under all names that this has, in place."""
    old = network.get_submodule(name)
    for other in next(names for names in names_of(network).values() if network.get_submodule(names[0]) is old):
        parent, _, child = other.rpartition(".")
        setattr(network.get_submodule(parent), child, module)


def swap(network: N, layers: Mapping[str, QuantLayer]) -> N:
    """A copy of the network with some layers replaced."""
    swapped = copy_network(network)
    for name, layer in layers.items():
        replace(swapped, name, layer)
    return swapped


def quant_layers(network: nn.Module) -> dict[str, QuantLayer]:
    """The quantized layers of a network, by name."""
    return {name: module for name, module in modules_of(network).items() if isinstance(module, QuantLayer)}
