"""Which layers lose most: each alone is quantized, and the network's output compared."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from srquant.images.calibration import Calibration
from srquant.images.covering import Covering
from srquant.methods.pipeline.plan import Plan
from srquant.methods.pipeline.work import Work
from srquant.model.layer import QuantLayer
from srquant.model.observing import to_network
from srquant.model.record import LayerLoss, LayerLosses
from srquant.model.replaying import Replays
from srquant.model.swapping import copy_network, replace_all
from srquant.networks.base import SRNetwork
from srquant.support.progress import track

_NAMED = 3
"""Layers that are named."""
_RUNS, _FEWEST, _MOST = 400, 2, 8
"""Layers times patches, about, and limits of the latter."""
_SIZE = 24
"""Of patches, at most, and the next multiple of the network's alignment."""


@torch.no_grad()
def layer_losses(
    plan: Plan,
    layers: Mapping[str, QuantLayer],
    quantized: SRNetwork,
    patches: Calibration | Covering,
    at_once: int = _MOST,
) -> LayerLosses:
    """Quantize one layer at a time, and name those after which the output agrees least with the float network's.

    For these it is also measured what the whole agrees better by if they stay float.

    Args:
        plan: The float network and what is quantized.
        layers: The layers of ``quantized``.
        quantized: The whole.
        patches: Some of them are looked at, evenly spaced: two to eight, the fewer the more layers there are, of 24×24
            pixels. With n layers that costs n/2 passes.
        at_once: More than so many are not, as the network may take no more.
    """
    alignment = plan.network.alignment
    count = min(_count(len(layers), patches), at_once)
    chosen = [number * (len(patches) - 1) // max(count - 1, 1) for number in range(count)]
    size = _SIZE + -_SIZE % alignment
    images = to_network(plan.network, patches.batch(chosen)[..., :size, :size])
    network = copy_network(plan.network)
    replays = Replays(network, [each.name for each in plan.survey.multiplications])
    replays.record()
    expected = network(images.clone())

    def agreement(student: SRNetwork) -> float:
        return _agreement(student(images.clone()), expected, network.value_range)

    together = agreement(quantized)
    alone = {name: agreement(network) for name in track(replays.each_alone(layers), "Weighing each layer", len(layers))}
    worst = sorted(alone, key=alone.__getitem__)[:_NAMED]
    losses: list[LayerLoss] = []
    for name in worst:
        replace_all(quantized, {name: plan.network.get_submodule(name)})
        gain = agreement(quantized) - together
        replace_all(quantized, {name: layers[name]})
        losses.append(LayerLoss(name, alone[name], round(gain, 2), _part(plan, name)))
    return LayerLosses(len(layers), len(images), images.shape[-1], together, tuple(losses))


def work(patches: Calibration, layers: int) -> Work:
    """Of :func:`layer_losses`."""
    pixels = _count(layers, patches) * _SIZE**2
    return Work(layers * pixels, pixels, pixels)


def _count(layers: int, patches: Calibration | Covering) -> int:
    return min(max(_RUNS // max(layers, 1), _FEWEST), _MOST, len(patches))


def _part(plan: Plan, name: str) -> float:
    """Of the multiply-adds."""
    work = {each.name: each.multiply_adds for each in plan.survey.multiplications}
    return work[name] / plan.survey.multiply_adds


def _agreement(found: Tensor, expected: Tensor, value_range: float) -> float:
    """In dB, of images clamped to their range, at most 100; NaN counts as no agreement at all."""
    error = float((found.clamp(0, value_range) - expected.clamp(0, value_range)).square().mean()) / value_range**2
    return round(-10 * math.log10(min(max(error, 1e-10), 1.0)), 2) if math.isfinite(error) else 0.0
