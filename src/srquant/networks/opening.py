"""Float networks in files: from weights to a network, with no architecture flag, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from srquant.networks.base import SRNetwork
from srquant.networks.checkpoint import read_candidates, read_checkpoint, read_metadata, write_checkpoint
from srquant.networks.recognising import MALFORMED, first_network, network_named, network_settings, tell
from srquant.support.errors import ArgumentError, NetworkError, UnknownNameError, first_line
from srquant.support.settings import Checked, from_json, to_json

HEADER = "srquant.network"
"""Key in the header of the float networks this project writes: name and hyper-parameters, as JSON."""


@dataclass(frozen=True)
class _Description(Checked):
    name: str
    config: dict[str, Any]


def load_network(path: Path, value_range: float | None = None, settings: Iterable[str] = ()) -> SRNetwork:
    """Open a file of float weights.

    Whatever key the weights are under and whatever prefix their own keys have, the first that are a network's are
    taken, averaged ones before others.

    Args:
        path: A safetensors or PyTorch file in any published layout.
        value_range: See :func:`~srquant.networks.recognising.open_network`.
        settings: See there.

    Raises:
        ArgumentError: A setting names no field of the network, or its value breaks its rule.
        NetworkError: See :func:`~srquant.networks.checkpoint.read_candidates`,
            :func:`~srquant.networks.checkpoint.check_weights` and
            :func:`~srquant.networks.recognising.open_network`.
        MissingExtraError: No own network fits and spandrel is not installed.

    Warns:
        WeightsWarning: The file holds several sets of weights, or more than the network's; what was taken is named.
    """
    said = network_settings(value_range, settings)
    header = read_metadata(path).get(HEADER)
    if header is None:
        found = read_candidates(path)
        network, taken = first_network(path, found, said)
        tell(path, taken, found)
        return network
    state = read_checkpoint(path)
    try:
        content = from_json(_Description, header)
        kind = network_named(content.name)
        config: Any = from_json(cast(type[Any], kind.Config), content.config, "config")
        state = kind.from_published(state)
    except UnknownNameError as error:
        reason = error.needed if error.what == "network" else f"is damaged: in its header, {error}"
        raise NetworkError(f"{path} {reason}") from error
    except (ArgumentError, *MALFORMED) as error:
        raise NetworkError(f"{path} is damaged: in its header, {first_line(error)}") from error
    config, state = kind.configured(config, state, said)
    try:
        return kind.build(config, state)
    except (ArgumentError, *MALFORMED) as error:
        raise NetworkError(f"{path} is damaged: in its header, {first_line(error)}") from error


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
