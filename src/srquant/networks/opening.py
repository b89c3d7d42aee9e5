"""From weights to a network, with no architecture flag."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from srquant.networks.base import SRNetwork, State, ValueRange
from srquant.networks.checkpoint import read_checkpoint, read_metadata, write_checkpoint
from srquant.support.errors import ArgumentError, NetworkError
from srquant.support.plugins import plugin, plugins
from srquant.support.settings import Checked, check, from_json, to_json

HEADER = "srquant.network"
"""Key in the header of the float networks this project writes: name and hyper-parameters, as JSON."""


@dataclass(frozen=True)
class _Description(Checked):
    name: str
    config: dict[str, Any]


_MALFORMED = (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError)
"""What code that looks for certain weights meets in others."""


def check_value_range(value_range: float | None) -> None:
    """Refuse what cannot be the largest value of images.

    Raises:
        ArgumentError: It is not above 0, or not finite.
    """
    check("value_range", value_range, ValueRange | None)


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def all_networks() -> dict[str, type[SRNetwork]]:
    """Every network class of this folder, by name."""
    return plugins("srquant.networks", SRNetwork)


def network_named(name: str) -> type[SRNetwork]:
    """The network class of that name.

    Raises:
        UnknownNameError: There is none.
    """
    return plugin("srquant.networks", SRNetwork, "network", name)


def load_network(path: Path, value_range: float | None = None) -> SRNetwork:
    """Open a file of float weights.

    Args:
        path: A safetensors or PyTorch file in any published layout.
        value_range: See :func:`open_network`.

    Raises:
        NetworkError: See :func:`~srquant.networks.checkpoint.read_checkpoint` and :func:`open_network`.
        MissingExtraError: No own network fits and spandrel is not installed.
    """
    check_value_range(value_range)
    state = read_checkpoint(path)
    header = read_metadata(path).get(HEADER)
    if header is None:
        return open_network(state, value_range)
    try:
        content = from_json(_Description, header)
        network = network_named(content.name)
        config: Any = from_json(cast(type[Any], network.Config), content.config, "config")
        return network.build(config, network.from_published(state))
    except (ArgumentError, *_MALFORMED) as error:
        raise NetworkError(f"{path} is damaged: in its header, {_one_line(error)}") from error


def save_network(path: Path, network: SRNetwork, notes: Mapping[str, str]) -> None:
    """Write a float network under its published keys, so that other programs that know its layout open it too.

    Args:
        path: A ``.safetensors`` file.
        network: What to write.
        notes: Further texts for the header: data, recipe, scores.
    """
    header = json.dumps({"name": network.name, "config": to_json(network.config)})
    state = network.to_published({key: value.detach().cpu() for key, value in network.state_dict().items()})
    write_checkpoint(path, state, {HEADER: header, **notes})


def open_network(state: State, value_range: float | None = None) -> SRNetwork:
    """Recognise weights, deduce the hyper-parameters from their shapes, and build the network in float32.

    The project's own networks are tried first, then whatever spandrel knows (the ``spandrel`` extra).

    Args:
        state: Keys and tensors of a checkpoint, in any published layout.
        value_range: Largest input value, 1 or 255, where the weights do not tell; None to deduce it.

    Raises:
        ArgumentError: The value range is none.
        NetworkError: No network fits; the message says what is missing, unexpected or of another shape.
        MissingExtraError: No own network fits and spandrel is not installed.
    """
    check_value_range(value_range)
    state = {key: value.to(torch.float32) if value.is_floating_point() else value for key, value in state.items()}
    fallback = all_networks()["spandrel"]
    for network in all_networks().values():
        if network is fallback:
            continue
        try:
            found = network.read(state, value_range)
            if found is not None:
                return network.build(*found)
        except ArgumentError as error:
            raise NetworkError(f"the weights look like {network.name}, but {error}") from error
        except _MALFORMED as error:
            reason = f"{type(error).__name__}: {_one_line(error)}"
            raise NetworkError(f"the weights look like {network.name} but are incomplete: {reason}") from error
    found = fallback.read(state, value_range)
    if found is None:
        keys = ", ".join(list(state)[:5])
        raise NetworkError(
            f"no known network has these weights (their keys begin {keys}); pass the nn.Module in Python"
        )
    return fallback.build(*found)
