"""How activations and weights are distributed, layer by layer and sample by sample.

Source: OAPTQ §3.1, fig. 3; 2DQuant, fig. 4.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from srquant.images.calibration import Calibration
from srquant.model import Model
from srquant.model.multiplications import flat
from srquant.model.observing import Operand, observe
from srquant.model.preparing import prepare
from srquant.quantizers.ranges import quantile as quantile_of
from srquant.support.errors import ArgumentError
from srquant.support.progress import track
from srquant.support.settings import check


@dataclass(frozen=True)
class Distribution:
    """Of the input of one layer for one sample.

    Args:
        layer: Name of the multiplication; ``NAME.right`` is the right operand of an attention product,
            ``NAME.weight`` a weight.
        sample: Number of the calibration patch; 0 for a weight.
        lower: Smallest value.
        upper: Largest value.
        mean: Their mean.
        deviation: Their standard deviation.
        skewness: Third standardised moment; 0 if symmetric.
        breakpoint: Percentile of the magnitude, as the piecewise-linear quantizer places it.
        counts: Values in equal bins between lower and upper.
    """

    layer: str
    sample: int
    lower: float
    upper: float
    mean: float
    deviation: float
    skewness: float
    breakpoint: float
    counts: tuple[int, ...]


def distributions(
    model: Model,
    patches: Calibration,
    *,
    layers: Sequence[str] = ("*",),
    quantile: float = 0.99,
    bins: int = 100,
    weights: bool = False,
) -> tuple[Distribution, ...]:
    """Measure the inputs of layers on calibration patches, in the order in which the layers run.

    Args:
        model: A float model.
        patches: LR images, each a sample.
        layers: Name patterns.
        quantile: Of the magnitudes, where the breakpoint lies.
        bins: Of the histograms.
        weights: Describe the weights of these layers too, after all activations.

    Raises:
        ArgumentError: No layer matches, or a number breaks its rule.
    """
    check("quantile", quantile, Annotated[float, Field(gt=0, lt=1)])
    check("bins", bins, Annotated[int, Field(ge=1, le=100_000)])
    network, _, _, survey = prepare(model.network)
    kinds = {each.name: each.kind for each in survey.multiplications}
    names = [name for name in kinds if any(fnmatch.fnmatchcase(name, pattern) for pattern in layers)]
    if not names:
        raise ArgumentError(f"layers: {', '.join(layers)} matches no layer; the first are {', '.join(list(kinds)[:5])}")
    found: dict[str, list[Distribution]] = {}

    def look(name: str, operand: Operand, values: Tensor) -> None:
        layer = f"{name}.right" if operand == "right" else name
        rows = found.setdefault(layer, [])
        rows.append(_describe(layer, len(rows), flat(values).float(), quantile, bins))

    observe(network, names, track(patches.batches(1), "Observing", len(patches)), look)
    for name in names if weights else ():
        weight = kinds[name].weight_of(network.get_submodule(name))
        if weight is not None:
            layer = f"{name}.weight"
            found[layer] = [_describe(layer, 0, weight.detach().reshape(1, -1), quantile, bins)]
    return tuple(row for rows in found.values() for row in rows)


def _describe(layer: str, sample: int, row: Tensor, q: float, bins: int) -> Distribution:
    lower, upper = (float(x) for x in torch.aminmax(row))
    values = row.double()
    mean = values.mean()
    centred = values - mean
    deviation = centred.square().mean().sqrt()
    skewness = centred.pow(3).mean() / deviation.pow(3).clamp(min=1e-30)
    counts = (
        torch.histc(row.cpu(), bins, lower, upper) if upper > lower else torch.tensor([row.numel()] + [0] * (bins - 1))
    )
    breakpoint = quantile_of(row, q, magnitude=True)
    summary = (float(mean), float(deviation), float(skewness), float(breakpoint))
    return Distribution(layer, sample, lower, upper, *summary, tuple(int(count) for count in counts))
