"""Ranges that are narrowed for the bits that a layer has."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from srquant.model.layer import QuantLayer
from srquant.model.multiplications import flat
from srquant.model.observing import to_network
from srquant.model.swapping import quant_layers
from srquant.networks.base import SRNetwork
from srquant.quantizers import Adaptive, Uniform
from srquant.quantizers.ranges import JointShrink
from srquant.support.watching import hooks

_WIDE = 8
"""Bits; layers that have so many are left as they are."""


@torch.no_grad()
def clip_to_bits(student: SRNetwork, images: Tensor, old: float) -> None:
    """Bit-aware clipping, in place: the mean of a range and of what is best for the layer's bits.

    Layer by layer, of the student's own inputs, which earlier layers have quantized with their new ranges: of both
    bounds times ``1 − 0.01·i``, i = 0 … 99, those of the least squared error.

    Source: AdaBM's released code, its bit-aware clipping.

    Args:
        student: Its activations have uniform quantizers.
        images: ``n 3 h w`` in [0, 1].
        old: Weight of the range as it was.
    """

    def clip(layer: QuantLayer, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        for quantizer, values in zip((layer.left, layer.right), operands, strict=False):
            if not isinstance(quantizer, Uniform):
                continue
            bits = quantizer.own_bits if isinstance(quantizer, Adaptive) else quantizer.bits
            if quantizer.bits == _WIDE:
                continue
            best = JointShrink(bits, candidates=100).shrunk(
                flat(values), quantizer.lower.reshape(1), quantizer.upper.reshape(1)
            )
            for name, bound in best.items():
                own = quantizer.get_parameter(name)
                own.copy_(torch.lerp(bound[0], own, old))

    layers = quant_layers(student)
    with hooks(student, {name: partial(clip, layer) for name, layer in layers.items()}):
        student(to_network(student, images))
