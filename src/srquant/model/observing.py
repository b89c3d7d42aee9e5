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
                warn_if_unlike(network, batch, output / network.value_range)


def warn_if_unlike(network: SRNetwork, images: Tensor, output: Tensor) -> None:
    """Say so if what a network gave, shrunk again, is far from what it was given.

    Args:
        network: It is asked what its weights do not tell.
        images: ``n 3 h w`` in [0, 1].
        output: ``n 3 scale·h scale·w`` in about [0, 1].

    Warns:
        UnlikeWarning: The mean squared error is 0.03 (15 dB) or more.
    """
    error = float((nn.functional.avg_pool2d(output.cpu(), network.scale) - images.cpu()).square().mean())
    if not error < _UNLIKE:
        told = [name for name in network.untold if hasattr(network.config, name)]
        assumed = ", ".join(f"{name}={getattr(network.config, name)}" for name in told)
        warnings.warn(
            f"the network's output does not look like its input (mean squared error {error:.2g} after shrinking, "
            f"images in [0, 1]); its weights do not tell {assumed}: give what they were trained with, by --set "
            f"network.FIELD=VALUE or load(path, settings=['FIELD=VALUE'])",
            UnlikeWarning,
            stacklevel=2,
        )


def first_checked(network: SRNetwork, upscaler: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function of images, with a look at the first of its outputs.

    Args:
        network: What the upscaler runs.
        upscaler: ``n 3 h w`` in [0, 1] to ``n 3 scale·h scale·w`` in about [0, 1].

    Warns:
        UnlikeWarning: See :func:`warn_if_unlike`; when it is called.
    """
    unseen = [network]

    def run(images: Tensor) -> Tensor:
        output = upscaler(images)
        if unseen:
            warn_if_unlike(unseen.pop(), images, output)
        return output

    return run


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
