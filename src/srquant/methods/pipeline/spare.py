"""Which layers stay float: the few whose rounding costs most, as far as a part of the multiply-adds allows."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from srquant.methods.pipeline.plan import Plan
from srquant.methods.pipeline.work import Work
from srquant.model.layer import QuantLayer
from srquant.model.observing import to_network
from srquant.model.swapping import replace_all, swap
from srquant.support.progress import track

_CANDIDATES = 24
"""Layers that are tried: the cheapest ones."""
_QUANTIZED = 2
"""Float passes that one of the quantized network takes."""
_WORTH = 0.97
"""The error must fall to this part of what it was, for a layer to stay float."""


def spare(
    plan: Plan,
    layers: Mapping[str, QuantLayer],
    images: Tensor,
    part: float,
    among: Collection[str] | None = None,
) -> list[str]:
    """Choose layers that cost most: each is tried in float alone, and those that help most are taken while they help on
    top.

    Args:
        plan: The float network and what is quantized.
        layers: The quantized layers.
        images: On which outputs are compared, ``n 3 h w`` in [0, 1].
        part: Of the multiply-adds that they may do, all in all.
        among: Those that may be chosen; None for all.

    Returns:
        Their names, in the order in which they were chosen.
    """
    costs = {
        target.multiplication.name: target.multiplication.multiply_adds / plan.survey.multiply_adds
        for target in plan.targets
    }
    allowed = [name for name in layers if costs[name] <= part and (among is None or name in among)]
    candidates = sorted(allowed, key=costs.__getitem__)[:_CANDIDATES]
    if not candidates:
        return []
    student = swap(plan.network, layers)
    images = to_network(plan.network, images)
    expected = _outputs(plan.network, images)

    def error_without(name: str) -> float:
        replace_all(student, {name: plan.network.get_submodule(name)})
        found = _error(student, images, expected)
        replace_all(student, {name: layers[name]})
        return found

    least = _error(student, images, expected)
    alone = {name: error_without(name) for name in track(candidates, "Weighing layers", len(candidates))}
    chosen: list[str] = []
    for name in sorted(candidates, key=alone.__getitem__):
        if costs[name] > part - sum(costs[other] for other in chosen):
            continue
        error = error_without(name)
        if error > _WORTH * least:
            break
        replace_all(student, {name: plan.network.get_submodule(name)})
        chosen.append(name)
        least = error
    return chosen


def work_of_sparing(images: int, size: int, layers: int) -> Work:
    """Of :func:`spare`."""
    pixels = images * size**2
    return Work(_QUANTIZED * (min(layers, _CANDIDATES) + 2) * pixels, pixels)


def _error(student: torch.nn.Module, images: Tensor, expected: Tensor) -> float:
    """The mean over images of the root mean square error of the outputs."""
    return float((_outputs(student, images) - expected).square().mean((1, 2, 3)).sqrt().mean())


def _outputs(network: torch.nn.Module, images: Tensor) -> Tensor:
    """Of images one by one; some networks take no more."""
    with torch.inference_mode():
        return torch.cat([network(image[None].clone()) for image in images])
