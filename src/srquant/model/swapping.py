"""Putting other modules in the places of a network's own, in a copy."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from srquant.model.layer import BareLayer, QuantLayer
from srquant.quantizers import Adaptive
from srquant.support.tensors import modules_of, names_of

N = TypeVar("N", bound=nn.Module)


def copy_network(network: N) -> N:
    """An independent copy. Tensors that a network has computed and keeps are constants in it."""
    constants = {
        id(value): value.detach().clone()
        for module in network.modules()
        for value in (*vars(module).values(), *module.buffers(recurse=False))
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(network, dict[int, Any](constants))


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of a submodule; see :func:`replace_all`."""
    replace_all(network, {name: module})


def replace_all(network: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Put modules in the places of submodules, under all names that these have, in place.

    They take over the settings that networks read off their modules (``kernel_size``, ``out_channels``, …).
    """
    names = {name: every for every in names_of(network).values() for name in every}
    for name, module in modules.items():
        _adopt_settings(module, network.get_submodule(name))
        for other in names[name]:
            parent, _, child = other.rpartition(".")
            setattr(network.get_submodule(parent), child, module)


def _adopt_settings(new: nn.Module, old: nn.Module) -> None:
    """Give a module the public numbers, texts and the like of another, unless it has such of its own, in place."""
    for name, value in vars(old).items():
        if not name.startswith("_") and _is_setting(value) and name not in vars(new) and not hasattr(type(new), name):
            new.__dict__[name] = value


def _is_setting(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_setting(item) for item in cast(Sequence[object], value))
    return isinstance(value, bool | int | float | str | None)


def swap(network: N, layers: Mapping[str, QuantLayer]) -> N:
    """A copy of the network with some layers replaced."""
    swapped = copy_network(network)
    replace_all(swapped, layers)
    follow_images(swapped)
    return swapped


def follow_images(network: nn.Module) -> None:
    """Hang what some quantizers follow, if any does, at the input of their network, in place."""
    followed = {id(module.images): module.images for module in network.modules() if isinstance(module, Adaptive)}
    for images in followed.values():
        images.hang(network)


def quant_layers(network: nn.Module) -> dict[str, QuantLayer]:
    """The quantized layers of a network, by name."""
    return {name: module for name, module in modules_of(network).items() if isinstance(module, QuantLayer)}


def without_activation_quantizers(network: N) -> N:
    """A copy of the network in which quantized layers are bare multiplications, with the weights that they decode."""
    copied = copy_network(network)
    replace_all(copied, {name: BareLayer(layer) for name, layer in quant_layers(copied).items()})
    return copied
