"""What a network adds to its image before the first convolution."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from srquant.images.calibration import Calibration
from srquant.methods.pipeline.plan import Plan
from srquant.model.observing import to_network
from srquant.support.watching import hooks

_FEW = 4
"""Patches on which a network's handling of its image is looked at."""


_ROUNDING = 1e-5
"""In images of [0, 1]; the bytes of an image are 1/255 apart."""


def image_offsets(plan: Plan, calibration: Calibration) -> dict[str, Tensor]:
    """What is added to each channel of the image before a first convolution, where its input is otherwise the image.

    Args:
        plan: The network and its targets.
        calibration: Four patches of it are looked at.

    Returns:
        By the target's name, ``3 1 1``, in the network's value range.
    """
    network = plan.network
    images = to_network(network, calibration.batch(range(min(_FEW, len(calibration)))))
    offsets: dict[str, Tensor] = {}

    def look(name: str, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        if operands[0].shape == images.shape:
            added = operands[0] - images
            offset = added.mean((0, 2, 3))[:, None, None]
            if bool((added - offset).abs().max() <= _ROUNDING * network.value_range):
                offsets[name] = offset

    first = [target.multiplication.name for target in plan.targets if target.multiplication.role == "first"]
    with hooks(network, {name: partial(look, name) for name in first}), torch.no_grad():
        network(images)
    return offsets
