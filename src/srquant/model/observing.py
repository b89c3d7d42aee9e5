"""Showing what passes through a float network: the operands of its multiplications, batch by batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from srquant.networks.base import SRNetwork
from srquant.support.errors import ImageError, NetworkError, UnlikeWarning
from srquant.support.watching import hooks

_UNLIKE = 0.03
"""Mean squared error, 15 dB; a working network is above 25 dB, also on noise."""


Operand = Literal["left", "right"]
OPERANDS: tuple[Operand, Operand] = ("left", "right")
Observer = Callable[[str, Operand, Tensor], None]
"""Takes a multiplication's name, the operand and its values."""


def observe(
    network: SRNetwork,
    names: Iterable[str],
    batches: Iterable[Tensor],
    observer: Observer,
    outputs: Callable[[str, Tensor], None] | None = None,
) -> None:
    """Show the observer every operand of some multiplications, batch by batch, as the float network computes them.

    Args:
        network: The float network.
        names: Multiplications to watch.
        batches: ``n 3 h w`` in [0, 1].
        observer: Called for every operand that is an activation.
        outputs: Called with the multiplication's name and what it gave.

    Raises:
        NetworkError: A value is NaN or infinite, or an operand has no elements; the multiplication is named.
    """

    def show(name: str, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        for operand, values in zip(OPERANDS, operands, strict=False):
            if not values.numel():
                size = network.probe().shape[-1]
                raise NetworkError(
                    f"an operand of {name} has no elements on images of this size, though it has some at "
                    f"{size}x{size}; leave it float: layers={name}=float"
                )
            observer(name, operand, values)

    def gave(name: str, _module: nn.Module, _operands: object, output: Tensor) -> None:
        if outputs is not None:
            outputs(name, output)

    names = list(names)
    before, after = ({name: partial(call, name) for name in names} for call in (show, gave))
    with hooks(network, before, after), torch.inference_mode():
        for number, batch in enumerate(batches):
            if not bool(batch.isfinite().all()):
                raise ImageError("a calibration batch holds NaN or infinite values")
            output = network(to_network(network, batch))
            if number == 0:
                _warn_if_unlike(network, batch, output)


def _warn_if_unlike(network: SRNetwork, images: Tensor, output: Tensor) -> None:
    """Say so if what a network gave, shrunk again, is far from what it was given."""
    shrunk = nn.functional.avg_pool2d(output.cpu(), network.scale) / network.value_range
    error = float((shrunk - images).square().mean())
    if not error < _UNLIKE:
        warnings.warn(
            f"the float network's output does not look like its input (mean squared error {error:.2g} after shrinking, "
            f"images in [0, 1]); is its value range really {network.value_range:g}? Otherwise give value_range",
            UnlikeWarning,
            stacklevel=2,
        )


def to_network(network: SRNetwork, images: Tensor) -> Tensor:
    """Images in [0, 1] as a network takes them: its value range, its device, channels last in memory."""
    device = next(network.parameters()).device
    return images.to(device, memory_format=torch.channels_last) * network.value_range


def require_finite(name: str, values: Iterable[Tensor]) -> None:
    """Refuse bounds that are not finite.

    Raises:
        NetworkError: They are not; ``name`` is named.
    """
    if not all(bool(value.isfinite().all()) for value in values):
        raise NetworkError(
            f"the input of {name} becomes NaN or infinite on the calibration images; the network is broken"
        )
