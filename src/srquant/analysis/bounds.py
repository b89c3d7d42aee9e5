"""Where the bounds of quantizers lie in the distributions of the tensors they clip.

Source: 2DQuant, fig. 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from srquant.images.calibration import Calibration
from srquant.model import Model
from srquant.model.observing import Operand, observe
from srquant.model.preparing import prepare
from srquant.model.swapping import copy_network, quant_layers
from srquant.quantizers import Quantizer
from srquant.support.errors import ArgumentError
from srquant.support.progress import track

_BATCH = 4


@dataclass(frozen=True)
class BoundPercentiles:
    """The bounds of one quantizer of one model, among the values of the float network.

    Args:
        model: Title of the quantized model.
        tensor: ``NAME.left`` (the input), ``NAME.right`` (the right operand of an attention product), ``NAME.weight``.
        kind: What the tensor is.
        bits: Of the quantizer.
        lower: Its lowest level; of bounds for each channel the mean.
        upper: Its highest level, alike.
        below: Percentage of the values below the lowest level: the percentile at which it lies.
        above: Percentage of the values above the highest level; 100 minus its percentile.
    """

    model: str
    tensor: str
    kind: Literal["activation", "weight"]
    bits: int
    lower: float
    upper: float
    below: float
    above: float


def bound_percentiles(
    model: Model, quantized: Mapping[str, Model], patches: Calibration
) -> tuple[BoundPercentiles, ...]:
    """Count the values of each tensor of the float network that lie beyond the bounds of quantized models.

    Every value is counted, batch by batch, so that memory does not grow with the patches.

    Args:
        model: The float model.
        quantized: Made of it, by title.
        patches: LR images.

    Returns:
        In the order in which layers run; the models of one tensor together.

    Raises:
        ArgumentError: A model is not a quantized one made of ``model``.
    """
    folded = {bool(other.record is not None and other.record.folds) for other in quantized.values()}
    if len(folded) > 1:
        raise ArgumentError("some models have batch normalisations folded and others not (norms); look at them apart")
    network, _, _, survey = prepare(model.network, "folded" if True in folded else "float")
    kinds = {each.name: each.kind for each in survey.multiplications}
    layers = {title: quant_layers(other.network) for title, other in quantized.items()}
    for title, found in layers.items():
        if not found or not found.keys() <= kinds.keys():
            raise ArgumentError(f"{title} is no quantized model made of {model.source}")
    counts: dict[tuple[str, str], _Count] = {}

    def look(tensor: str, name: str, operand: Operand, values: Tensor) -> None:
        for title, found in layers.items():
            if name in found:
                if (tensor, title) not in counts:
                    counts[tensor, title] = _Count(found[name].quantizers()[operand], values.device)
                counts[tensor, title].add(values)

    def look_at_operand(name: str, operand: Operand, values: Tensor) -> None:
        look(f"{name}.{operand}", name, operand, values)

    watched = [name for name in kinds if any(name in found for found in layers.values())]
    observe(network, watched, track(patches.batches(_BATCH), "Observing", -(-len(patches) // _BATCH)), look_at_operand)
    for name in watched:
        weight = kinds[name].weight_of(network.get_submodule(name))
        if weight is not None:
            look(f"{name}.weight", name, "right", weight.detach())
    tensors = [f"{name}.{end}" for name in watched for end in ("left", "right", "weight")]
    return tuple(
        counts[tensor, title].percentiles(title, tensor)
        for tensor in tensors
        for title in layers
        if (tensor, title) in counts
    )


class _Count:
    """Of the values beyond the bounds of a quantizer."""

    def __init__(self, quantizer: Quantizer, device: torch.device) -> None:
        self._quantizer = copy_network(quantizer).to(device)
        knots = self._quantizer.knots().detach()
        self._lower, self._upper = knots[..., 0], knots[..., -1]
        self._below = self._above = self._all = 0

    def add(self, values: Tensor) -> None:
        values = self._quantizer.centred(values)
        granularity = self._quantizer.granularity
        lower, upper = (granularity.along(bound, values) for bound in (self._lower, self._upper))
        self._below += int((values < lower).sum())
        self._above += int((values > upper).sum())
        self._all += values.numel()

    def percentiles(self, title: str, tensor: str) -> BoundPercentiles:
        kind = "weight" if tensor.endswith(".weight") else "activation"
        ends = float(self._lower.mean()), float(self._upper.mean())
        percentages = 100 * self._below / self._all, 100 * self._above / self._all
        return BoundPercentiles(title, tensor, kind, self._quantizer.bits, *ends, *percentages)
