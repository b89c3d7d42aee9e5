"""Quantized layers whose input channels have scales of their own, folded into the weights, and weights by GPTQ.

For eight bits, where every multiplication is one int8 product and what is lost is lost by ranges: channels of small
extent beside channels of large extent, and ranges that drawings leave.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from srquant.images.calibration import Calibration
from srquant.images.covering import Covering
from srquant.methods.base import WeightSettings
from srquant.methods.pipeline.build import weight_quantizer
from srquant.methods.pipeline.gptq import round_by_inputs
from srquant.methods.pipeline.plan import Plan, Target
from srquant.methods.pipeline.work import OBSERVED, Work
from srquant.model.layer import LearnableWeight, QuantLayer
from srquant.model.multiplications import MultiplicationKind, Product
from srquant.model.observing import OPERANDS, Operand, require_finite, to_network
from srquant.quantizers import Quantizer, ScaledUniform, Uniform, times_factor
from srquant.support.errors import NetworkError
from srquant.support.progress import track
from srquant.support.watching import hooks

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
_OUTSIDE = 1.0
"""How far, in value ranges, the output of a network that works may leave the range of images."""
_SAMPLES, _SAMPLE_SIZE, _CROP = 24, 48, 28
"""Patches whose values are looked at one by one, their size, and the size of what is kept of a convolution's input."""
_BYTES = 512 << 20
"""Of samples in memory at a time."""
_SAMPLED, _TRIED = 2, 40
"""Float passes that samples take, and choosing and rounding on them."""

Extents = dict[tuple[str, Operand], tuple[Tensor, Tensor]]
"""The smallest and the largest value of each channel."""


@torch.no_grad()
def scaled_layers(plan: Plan, patches: Covering, weights: WeightSettings) -> dict[str, QuantLayer]:
    """A quantized layer for every target: per-channel factors and range chosen by the error of the layer's output.

    All levels lie on integers of eight bits, zero among them. Patches on which the float network leaves the range of
    images are passed over: it is broken there, and would widen every range.

    Raises:
        NetworkError: A value is not finite, or the network leaves the range of images on every patch.
    """
    extents = _extents(plan, patches)
    images = to_network(plan.network, patches.sample(_SAMPLES, _SAMPLE_SIZE))
    layers: dict[str, QuantLayer] = {}
    progress = iter(track(range(len(plan.targets)), "Balancing channels", len(plan.targets)))
    for targets in _groups(plan, images):
        samples = _samples(plan, [target.multiplication.name for target in targets], images)
        for target in targets:
            next(progress)
            name = target.multiplication.name
            layers[name] = _layer(plan, target, extents, samples.pop(name, None), weights)
    return layers


def work_of_scaling(patches: Calibration, more: int) -> Work:
    """Of :func:`scaled_layers` on patches and some more that cover."""
    sampled = min(_SAMPLES, len(patches)) + more
    pixels = OBSERVED * (len(patches) + more) * patches.size**2 + _SAMPLED * sampled * _SAMPLE_SIZE**2
    return Work(pixels + _TRIED * sampled * _CROP**2, patches.size**2, memory=2 * _BYTES)


def _extents(plan: Plan, patches: Covering) -> Extents:
    """Of each channel of each operand, over all patches on which the float network works."""
    kinds = {target.multiplication.name: target.multiplication.kind for target in plan.targets}
    found: Extents = {}
    now: Extents = {}

    def look(name: str, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        for operand, values in zip(OPERANDS, operands, strict=False):
            ends = kinds[name].by_channel(values).aminmax(dim=1)
            require_finite(name, ends)
            now[name, operand] = _wider(now.get((name, operand)), (ends.min, ends.max))

    before = {name: partial(look, name) for name in plan.names}
    network, used = plan.network, 0
    with hooks(network, before), torch.inference_mode():
        for image in track(patches.batches(1), "Calibrating", len(patches)):
            now.clear()
            output = network(to_network(network, image)) / network.value_range
            if float(output.min()) >= -_OUTSIDE and float(output.max()) <= 1 + _OUTSIDE:
                used += 1
                found |= {key: _wider(found.get(key), ends) for key, ends in now.items()}
    if not used:
        raise NetworkError(
            "the float network's output is far outside [0, 1] on every calibration patch; is its value range really "
            f"{network.value_range:g}?"
        )
    return found


def _wider(known: tuple[Tensor, Tensor] | None, ends: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return ends if known is None else (torch.minimum(known[0], ends[0]), torch.maximum(known[1], ends[1]))


def _groups(plan: Plan, images: Tensor) -> Iterator[list[Target]]:
    """Targets in the order in which they run, as many together as their samples have room."""
    group: list[Target] = []
    room = _BYTES
    for target in plan.targets:
        channels = target.multiplication.kind.channels_of(plan.network.get_submodule(target.multiplication.name))
        needed = 4 * channels * _CROP**2 * len(images)
        if group and needed > room:
            yield group
            group, room = [], _BYTES
        group.append(target)
        room -= needed
    yield group


class _Enough(BaseException):
    """Ends a pass of which all that is wanted was seen; networks from elsewhere are guarded against Exceptions."""


def _samples(plan: Plan, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Inputs of some layers with weights, a piece for each image: ``n c h w``, or ``n rows c`` of linear maps.

    Of a layer that runs several times in a pass, those of its first run.
    """
    kinds = {target.multiplication.name: target.multiplication.kind for target in plan.targets}
    pieces: dict[str, list[Tensor]] = {}
    draw = torch.Generator().manual_seed(0)

    def look(name: str, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        if len(pieces.setdefault(name, [])) == done:
            pieces[name].append(_piece(operands[0].detach(), kinds[name], draw))
            missing.discard(name)
            if not missing:
                raise _Enough

    watched = [name for name in names if kinds[name].has_weight]
    with hooks(plan.network, {name: partial(look, name) for name in watched}), torch.no_grad():
        for done in range(len(images) if watched else 0):
            missing = set(watched)
            with contextlib.suppress(_Enough):
                plan.network(images[done : done + 1].clone())
    return {name: torch.stack(found) for name, found in pieces.items()}


def _piece(values: Tensor, kind: MultiplicationKind, draw: torch.Generator) -> Tensor:
    if kind.channel_axis != 1:
        rows = values.reshape(-1, values.shape[-1])
        return rows[torch.randint(len(rows), (_CROP**2,), generator=draw).to(rows.device)].clone()
    height, width = values.shape[2:]
    top, left = (int(torch.randint(max(size - _CROP, 0) + 1, (), generator=draw)) for size in (height, width))
    return values[0, :, top : top + _CROP, left : left + _CROP].clone()


def _layer(plan: Plan, target: Target, extents: Extents, sample: Tensor | None, weights: WeightSettings) -> QuantLayer:
    name, kind, bits = target.multiplication.name, target.multiplication.kind, target.activation_bits
    module = plan.network.get_submodule(name)
    product, weight, bias = kind.product_of(module), kind.weight_of(module), kind.bias_of(module)
    if weight is None or sample is None:
        left, right = (_plain(extents[name, operand], bits) for operand in OPERANDS)
        return QuantLayer(product, left, right, bias)
    quantizer_of = partial(weight_quantizer, bits=target.weight_bits, settings=weights, grid="int8")
    chosen = _choose(product, kind, weight.detach(), sample, extents[name, "left"], bits, quantizer_of)
    rounding = quantizer_of(chosen.weight)
    rounded, shift = round_by_inputs(product, chosen.weight, weight.detach(), sample, chosen.left, rounding)
    if shift is not None:
        bias = shift if bias is None else bias.detach() + shift
    return QuantLayer(product, chosen.left, LearnableWeight(rounded, rounding), bias)


def _plain(ends: tuple[Tensor, Tensor], bits: int) -> Uniform:
    return Uniform(bits, ends[0].min(), ends[1].max(), "int8")


@dataclass(frozen=True)
class _Choice:
    """A quantizer of the input, and the weight with its factors."""

    left: ScaledUniform
    weight: Tensor


def _choose(
    product: Product,
    kind: MultiplicationKind,
    weight: Tensor,
    sample: Tensor,
    ends: tuple[Tensor, Tensor],
    bits: int,
    quantizer_of: Callable[[Tensor], Quantizer],
) -> _Choice:
    """The factors and the range of least error of the layer's output, each patch relative to its own variance."""
    expected = product(sample, weight, None)
    extent = torch.maximum(ends[0].abs(), ends[1].abs())
    extent = extent.clamp(min=max(float(extent.max()) * _SMALLEST_EXTENT, 1e-30))
    best, least = None, float("inf")
    for alpha in _ALPHAS:
        factor = (extent / extent.max()) ** alpha
        scaled = times_factor(weight, factor)
        lower, upper = (ends[0] / factor).min(), (ends[1] / factor).max()
        shape = kind.along_channels(factor)
        rounded = quantizer_of(scaled)(scaled)
        of_weight = _WEIGHT_PART * _error(product(sample / shape, rounded, None), expected)
        for cut in _CUTS:
            left = ScaledUniform(bits, cut * lower, cut * upper, shape, "int8")
            error = of_weight + _error(product(left(sample), scaled, None), expected)
            if best is None or error < _BETTER * least:
                best, least = _Choice(left, scaled), error
    assert best is not None
    return best


def _error(found: Tensor, expected: Tensor) -> float:
    """The mean over patches of the squared error as a part of the patch's variance."""
    axes = tuple(range(1, found.ndim))
    variance = expected.var(axes) + 0.05 * expected.var()
    return float(((found - expected).square().mean(axes) / variance.clamp(min=1e-30)).mean())
