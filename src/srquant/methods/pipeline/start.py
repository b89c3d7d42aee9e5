"""Quantized layers to start from: levels chosen by the error of each layer's output, weights rounded by GPTQ.

What is lost in a layer is lost by channels of small extent beside channels of large extent, by ranges that drawings
leave, and by weights that are rounded each for itself. So each layer is given the choice of levels whose output is
nearest to the float layer's, among levels of all channels alike, around their means, and with a scale of their own that
is folded into the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from srquant.methods.base import WeightSettings
from srquant.methods.pipeline.build import weight_quantizer
from srquant.methods.pipeline.gptq import round_by_inputs
from srquant.methods.pipeline.plan import Plan, Target
from srquant.methods.pipeline.samples import Ends, Samples
from srquant.model.layer import LearnableWeight, QuantLayer
from srquant.model.multiplications import MultiplicationKind, Product, flat
from srquant.model.observing import OPERANDS, Operand
from srquant.quantizers import (
    NonUniform,
    PiecewiseLinear,
    Quantizer,
    Scaled,
    ScaledNonUniform,
    ScaledUniform,
    ShiftedNonUniform,
    ShiftedUniform,
    Uniform,
    candidate_levels,
    find_sides,
    times_factor,
)
from srquant.quantizers.numerics.integers import Grid
from srquant.quantizers.ranges import LloydMax, PiecewiseSearch
from srquant.support.progress import track

Levels = Literal["non_uniform", "piecewise"]

_WIDE = 8
"""Bits; equal steps serve as well as any there."""
_ALPHAS = (0.0, 0.7, 1.0)
"""Exponents of a channel's extent in its factor; 0 is no factor at all."""
_CUTS = (1.0, 0.85, 0.7)
"""Factors on the range."""
_WEIGHT_PART = 0.1
"""Of the weight's error beside the activation's: GPTQ makes it smaller afterwards."""
_BETTER = 0.99
"""An error must be this part of the one of a simpler choice to be preferred."""
_SMALLEST_EXTENT = 1e-3
"""Of a channel, as a part of the largest one's."""
_TINY = 1e-30


@dataclass(frozen=True)
class Start:
    """How layers start.

    Args:
        levels: Of activations of fewer than eight bits: ``non_uniform`` or ``piecewise``; with eight bits steps are
            equal, on integers.
        grid: Where levels of fewer than eight bits lie.
        weights: How weights are quantized.
        offsets: What is added to the image before a first convolution whose input is otherwise the image; see
            :func:`~srquant.methods.pipeline.image_offsets.image_offsets`.
        gptq: Whether weights are rounded by the inputs they meet, instead of each for itself.
    """

    levels: Levels
    grid: Grid
    weights: WeightSettings
    offsets: dict[str, Tensor]
    gptq: bool = True


@torch.no_grad()
def start_layers(plan: Plan, samples: Samples, start: Start) -> dict[str, QuantLayer]:
    """A quantized layer for every target.

    Args:
        plan: The network and its targets.
        samples: Of this network.
        start: What there is to choose from.
    """
    found = track(samples.of(plan.targets), "Choosing levels", len(plan.targets))
    return {
        target.multiplication.name: _started(plan, target, samples, {key[1]: x for key, x in values.items()}, start)
        for target, values in found
    }


def _started(plan: Plan, target: Target, samples: Samples, values: dict[Operand, Tensor], start: Start) -> QuantLayer:
    name, kind, bits = target.multiplication.name, target.multiplication.kind, target.activation_bits
    module = plan.network.get_submodule(name)
    product, weight, bias = kind.product_of(module), kind.weight_of(module), kind.bias_of(module)
    if weight is None:
        left, right = (
            next(_choices(bits, kind, None, values[operand], samples.ends[name, operand], start)).left
            for operand in OPERANDS
        )
        return QuantLayer(product, left, right, bias)
    weight, sample = weight.detach(), values["left"]
    grid = "int8" if target.weight_bits == _WIDE else start.grid
    quantizer_of = partial(weight_quantizer, bits=target.weight_bits, settings=start.weights, grid=grid)
    if name in start.offsets and bits == _WIDE:
        offset = start.offsets[name]
        top = offset.new_full((), plan.network.value_range)
        chosen = _Choice(ShiftedUniform(bits, offset.new_zeros(()), top, offset), weight)
    else:
        choices = _choices(bits, kind, weight, sample, samples.ends[name, "left"], start)
        chosen = _best(choices, product, weight, sample, quantizer_of)
    assert chosen.weight is not None
    rounding = quantizer_of(chosen.weight)
    if not start.gptq:
        return QuantLayer(product, chosen.left, LearnableWeight(chosen.weight, rounding), bias)
    rounded, shift = round_by_inputs(product, chosen.weight, weight, sample, chosen.left, rounding)
    if shift is not None:
        bias = shift if bias is None else bias.detach() + shift
    return QuantLayer(product, chosen.left, LearnableWeight(rounded, rounding), bias)


@dataclass(frozen=True)
class _Choice:
    """A quantizer of the input, and the weight with its factors; None where the other operand is no weight."""

    left: Quantizer
    weight: Tensor | None


def _choices(
    bits: int, kind: MultiplicationKind, weight: Tensor | None, sample: Tensor, ends: Ends, start: Start
) -> Iterator[_Choice]:
    """What there is to choose from, the simplest first."""
    lowest, highest = ends[0].min(), ends[1].max()
    search = PiecewiseSearch(partial(candidate_levels, bits=bits, form="distinct", grid=start.grid))
    if bits == _WIDE:
        if weight is None:
            yield _Choice(Uniform(bits, lowest, highest, "int8"), None)
            return
        for alpha in _ALPHAS:
            factor = _factor(torch.maximum(ends[0].abs(), ends[1].abs()), alpha)
            lower, upper = (ends[0] / factor).min(), (ends[1] / factor).max()
            scaled = times_factor(weight, factor)
            for cut in _CUTS:
                left = ScaledUniform(bits, cut * lower, cut * upper, kind.along_channels(factor), "int8")
                yield _Choice(left, scaled)
    elif start.levels == "piecewise":
        found = search.among(search.ordered(flat(sample)), {"lower": lowest[None], "upper": highest[None]})
        bounds = found["lower"][0], found["upper"][0], found["breakpoint"][0]
        yield _Choice(PiecewiseLinear(bits, *bounds, sides=find_sides(*bounds), grid=start.grid), weight)
    else:
        levels, channels = LloydMax(search), kind.by_channel(sample)
        yield _Choice(NonUniform(bits, levels(channels.reshape(1, -1))["levels"][0]), weight)
        if weight is None or len(channels) == 1:
            return
        centre = channels.mean(1)
        centred = levels((channels - centre[:, None]).reshape(1, -1))["levels"][0]
        yield _Choice(ShiftedNonUniform(bits, centred, kind.along_channels(centre)), weight)
        for alpha in _ALPHAS[1:]:
            factor = _factor(channels.std(1), alpha)
            divided = levels((channels / factor[:, None]).reshape(1, -1))["levels"][0]
            left = ScaledNonUniform(bits, divided, kind.along_channels(factor))
            yield _Choice(left, times_factor(weight, factor))


def _factor(extent: Tensor, alpha: float) -> Tensor:
    largest = float(extent.max())
    return (extent.clamp(min=max(largest * _SMALLEST_EXTENT, _TINY)) / max(largest, _TINY)) ** alpha


def _best(
    choices: Iterator[_Choice],
    product: Product,
    weight: Tensor,
    sample: Tensor,
    quantizer_of: Callable[[Tensor], Quantizer],
) -> _Choice:
    """The choice of least error of the layer's output, each patch relative to its own variance."""
    expected = product(sample, weight, None)
    best, least, scaled, of_weight = None, float("inf"), None, 0.0
    for choice in choices:
        assert choice.weight is not None
        if scaled is None or choice.weight is not scaled:
            scaled = choice.weight
            whole = choice.left.centred(sample) if isinstance(choice.left, Scaled) else sample
            of_weight = _WEIGHT_PART * _error(product(whole, quantizer_of(scaled)(scaled), None), expected)
        error = of_weight + _error(product(choice.left(sample), scaled, None), expected)
        if best is None or error < _BETTER * least:
            best, least = choice, error
    assert best is not None
    return best


def _error(found: Tensor, expected: Tensor) -> float:
    """The mean over patches of the squared error as a part of the patch's variance."""
    axes = tuple(range(1, found.ndim))
    variance = expected.var(axes) + 0.05 * expected.var()
    return float(((found - expected).square().mean(axes) / variance.clamp(min=_TINY)).mean())
