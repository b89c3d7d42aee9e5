"""Networks whose bits follow the image: which are, and how many bits an image gets."""

from __future__ import annotations

import torch
from torch import Tensor

from srquant.model.observing import to_network
from srquant.model.swapping import quant_layers
from srquant.networks.base import SRNetwork
from srquant.quantizers import Adaptive, ImageFactor, Quantizer

_WIDEST = 8
"""Bits; layers that were given so many are not counted, as AdaBM does not."""


def image_factor(network: SRNetwork) -> ImageFactor | None:
    """What hangs at a network's input and looks at its images; None where bits do not follow them."""
    found = dict(network.named_children()).get("image_factor")
    return found if isinstance(found, ImageFactor) else None


def feature_bits(network: SRNetwork, images: Tensor) -> Tensor | None:
    """Mean bits of the activations that each image is computed with, ``(n,)``; None where they do not follow it.

    The mean is over quantized activations, those that have 8 bits for every image left out. Its mean over the images
    of a data set is FAB (feature average bits).

    Source: AdaBM §4, FAB.

    Args:
        network: With quantized layers.
        images: ``n 3 h w`` in [0, 1].
    """
    looking = image_factor(network)
    if looking is None:
        return None
    factors = looking(to_network(network, images))
    bits: list[Tensor] = []
    for layer in quant_layers(network).values():
        for quantizer in (layer.left, layer.right):
            if isinstance(quantizer, Adaptive):
                bits.append(quantizer.bits_of(factors))
            elif isinstance(quantizer, Quantizer) and quantizer.bits != _WIDEST:
                bits.append(torch.full_like(factors, quantizer.bits))
    return torch.stack(bits).mean(0) if bits else None
