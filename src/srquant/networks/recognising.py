"""Which network given weights are of."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from srquant.networks.base import SRNetwork, State, ValueRange
from srquant.networks.checkpoint import check_weights
from srquant.networks.unwrapping import Candidate
from srquant.support.errors import (
    ArgumentError,
    MissingExtraError,
    NetworkError,
    PluginWarning,
    SrquantError,
    WeightsWarning,
    first_line,
)
from srquant.support.overriding import override
from srquant.support.plugins import Registry
from srquant.support.settings import Checked, check

NETWORKS: Registry[type[SRNetwork]] = Registry("network", "srquant.networks", SRNetwork, group="srquant.networks")
_FALLBACK = "spandrel"
"""The network class that is asked after all others."""
MALFORMED = (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError)
"""What code that looks for certain weights meets in others."""


def all_networks() -> dict[str, type[SRNetwork]]:
    """Every network class, by name."""
    return dict(NETWORKS)


def network_named(name: str) -> type[SRNetwork]:
    """The network class of that name.

    Raises:
        UnknownNameError: There is none.
    """
    return NETWORKS.named(name)


def network_settings(value_range: float | None, settings: Iterable[str]) -> tuple[str, ...]:
    """One list of what a user says of a float network; a value range is one of the settings.

    Args:
        value_range: Largest value of images in the network, or None.
        settings: Fields of the network's hyper-parameters, as ``field=value``.

    Raises:
        ArgumentError: The value range is not above 0, or not finite.
    """
    check("value_range", value_range, ValueRange | None)
    return (*(() if value_range is None else (f"value_range={value_range!r}",)), *settings)


@dataclass(frozen=True)
class _Said(Checked):
    """What networks ask for when they deduce their hyper-parameters."""

    value_range: ValueRange | None = None

    @classmethod
    def of(cls, settings: Sequence[str]) -> _Said:
        return override(cls(), [text for text in settings if text.partition("=")[0].strip() == "value_range"])


def open_network(state: State, value_range: float | None = None, settings: Iterable[str] = ()) -> SRNetwork:
    """Recognise weights, deduce the hyper-parameters from their shapes, and build the network in float32.

    The project's own networks are tried first, then whatever spandrel knows (the ``spandrel`` extra).

    Args:
        state: Keys and tensors of a checkpoint, in any published layout.
        value_range: Largest input value, 1 or 255, where the weights do not tell; None to deduce it. It is the same as
            the setting ``value_range=…``.
        settings: Hyper-parameters that weights do not tell, or that are deduced wrongly, as ``field=value``:
            ``residual_scale=0.1``. The fields are those of the network's ``Config``.

    Raises:
        ArgumentError: A setting names no field of the network, or its value breaks its rule.
        NetworkError: No network fits; the message says what is missing, unexpected or of another shape.
        MissingExtraError: No own network fits and spandrel is not installed.
    """
    said = network_settings(value_range, settings)
    network = _own_network(state, said)
    if network is None:
        network = _foreign_network(state, said)
    if network is None:
        raise _unknown(state)
    return network


def first_network(path: Path, found: Sequence[Candidate], said: Sequence[str]) -> tuple[SRNetwork, Candidate]:
    """The network of the first candidate that is one; those of nothing but zeros come last.

    Args:
        path: The file, for messages and the size that its weights may have.
        found: The likeliest first.
        said: See :func:`network_settings`.

    Returns:
        The network, and the form of the candidate that it was made of.

    Raises:
        SrquantError: There is none. What was wrong with the likeliest that looked like one is said.
    """
    faults: list[SrquantError] = []
    usable: list[Candidate] = []
    for candidate in found:
        try:
            check_weights(path, candidate.state)
            usable.append(candidate)
        except NetworkError as error:
            faults.append(error)
    # The sort is stable: among all others the order stays.
    for candidate in sorted(usable, key=lambda one: _is_zero(one.state)):
        for form in candidate.forms():
            network = _own_network(form.state, said)
            try:
                network = _foreign_network(form.state, said) if network is None else network
            except (NetworkError, MissingExtraError) as error:
                faults.append(error)
            if network is not None:
                return network, form
    raise faults[0] if faults else _unknown(usable[0].state)


def _is_zero(state: State) -> bool:
    return not any(bool(value.float().any()) for value in state.values() if value.is_floating_point())


def tell(path: Path, taken: Candidate, found: Sequence[Candidate]) -> None:
    """Say which weights were taken where there is more in the file.

    Warns:
        WeightsWarning: Other candidates have the same keys, or other tensors were beside them.
    """
    same = [other for other in found if other.place != taken.place and taken.is_like(other)]
    others = [other.name or "at the top" for other in same]
    own = [other.place[-1] for other in same if other.place]
    beside = [key for key in taken.beside if key.partition(".")[0] not in own]
    left = [f"the weights {', '.join(others)}"] if others else []
    left += [f"{', '.join(beside[:3])}{f' and {len(beside) - 3} more' if len(beside) > 3 else ''}"] if beside else []
    if left:
        kind = "averaged weights" if taken.averaged else "weights"
        warnings.warn(
            f"took the {kind} {taken.name or 'at the top'} of {path}, and left {' and '.join(left)}",
            WeightsWarning,
            stacklevel=4,
        )


def _own_network(state: State, said: Sequence[str]) -> SRNetwork | None:
    """The project's own network with these weights; None if they are of none."""
    state = _in_float32(state)
    value_range = _Said.of(said).value_range
    for kind in all_networks().values():
        if kind.name == _FALLBACK:
            continue
        try:
            found = kind.read(state, value_range)
        except Exception as error:
            if kind.name not in NETWORKS.own:  # it shall not keep other weights from being opened
                message = f"the network {kind.name!r} of {kind.__module__} cannot say whether weights are its own"
                warnings.warn(f"{message}: {first_line(error)}", PluginWarning, stacklevel=2)
                continue
            if isinstance(error, ArgumentError):
                raise NetworkError(f"the weights look like {kind.name}, but {error}") from error
            raise (_incomplete(kind, error) if isinstance(error, MALFORMED) else error) from error
        if found is None:
            continue
        config, own = kind.configured(*found, said)
        try:
            return kind.build(config, own)
        except ArgumentError as error:
            raise NetworkError(f"the weights look like {kind.name}, but {error}") from error
        except MALFORMED as error:
            raise _incomplete(kind, error) from error
    return None


def _foreign_network(state: State, said: Sequence[str]) -> SRNetwork | None:
    """Spandrel's network with these weights; None if it knows none."""
    fallback = all_networks()[_FALLBACK]
    found = fallback.read(_in_float32(state), _Said.of(said).value_range)
    return None if found is None else fallback.build(*fallback.configured(*found, said))


def _in_float32(state: State) -> State:
    return {key: value.to(torch.float32) if value.is_floating_point() else value for key, value in state.items()}


def _incomplete(kind: type[SRNetwork], error: Exception) -> NetworkError:
    return NetworkError(
        f"the weights look like {kind.name} but are incomplete: {type(error).__name__}: {first_line(error)}"
    )


def _unknown(state: State) -> NetworkError:
    keys = ", ".join(list(state)[:5])
    return NetworkError(
        f"no known network has these weights (their keys begin {keys}); pass the nn.Module in Python: "
        f"Model.wrap(module, scale)"
    )
