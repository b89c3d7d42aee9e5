"""What quantizers have in common whose bits follow the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from srquant.quantizers.base import BITS, Quantizer
from srquant.quantizers.image_factor import ImageFactor
from srquant.quantizers.numerics.grid import Intervals
from srquant.support.errors import NetworkError


class Adaptive(Quantizer):
    """What is put before a quantizer of one segment: its bits are b = ``bits + layer + image``, within 2…8.

    ``image`` is the :class:`ImageFactor` of the image that a row along axis 0 belongs to; outside a pass through the
    network there is no image, and it is 0. ``layer`` is a number of the layer, rounded to −1, 0 or 1, with the gradient
    of tanh, while it is learned; :meth:`finished` adds it to the bits. With n = 2^b − 1 the gradient of the bits is
    that of n under a straight-through rounding: ``∂x̂/∂b = (clamp(x) − x̂) · ln 2 · 2^b / n``.

    Source: AdaBM §3; its released code, in which bits have no limits. Differs: they stay within 2…8.
    """

    follows_image = True
    apart = "bits"

    def follow(self, images: ImageFactor, layer: Tensor | None) -> None:
        """Called once, where the quantizer is made.

        Args:
            images: Has the factors of the images.
            layer: The number of the layer, ``()``; None where it is not learned.
        """
        self._images = (images,)  # a module by itself would become a part of each of its quantizers
        self.register_parameter("layer", None if layer is None else nn.Parameter(layer.detach().clone()))

    @property
    def images(self) -> ImageFactor:
        """Where it reads the factors of images."""
        return self._images[0]

    @property
    def own_bits(self) -> int:
        """Of an image with the factor 0."""
        return round(float(self.bits_of(torch.zeros(1))))

    def finished(self) -> Adaptive:
        own = {"bits": self.own_bits}
        bounds = {name: bound for name, bound in self.named_parameters() if name != "layer"}
        return type(self)(**{**self.arguments(), **own}, **bounds, images=self.images)

    def bits_of(self, factors: Tensor) -> Tensor:
        """Bits of images of these factors, whole numbers in the dtype of the factors, ``(n,)``."""
        bits = self.bits + factors
        layer = self._parameters.get("layer")
        if layer is not None:
            soft, hard = torch.tanh(layer), layer.detach().clamp(-1, 1).round()
            bits = bits + (soft - soft.detach() + hard).to(bits)
        return bits.clamp(BITS[0], BITS[-1])

    def forward(self, x: Tensor) -> Tensor:
        values = super().forward(x)
        bits = self._bits(x)
        if not bits.requires_grad:
            return values
        with torch.no_grad():
            power = 2**bits
            low, high = self.knots().unbind()
            slope = (x.clamp(low, high) - values) * _along(math.log(2) * power / (power - 1), x)
        return values + _along(bits - bits.detach(), x) * slope

    def _bits(self, x: Tensor) -> Tensor:
        factors = self.images.factors
        if factors is None:
            return self.bits_of(torch.zeros(1, device=x.device))
        if len(factors) != len(x):
            raise NetworkError(
                f"a layer whose bits follow the image was given {len(x)} rows for {len(factors)} images: its batch "
                f"axis is not that of images; quantize again with its bits fixed (fixed=PATTERN)"
            )
        return self.bits_of(factors)

    def _along_axis(self, x: Tensor, work: Callable[[Tensor, Intervals], Tensor]) -> Tensor:
        widths = [round(bits) for bits in cast(list[float], self._bits(x).tolist())]
        if len(set(widths)) == 1:
            return work(x, ((1 << widths[0]) - 1,))
        images = zip(torch.split(x, 1), widths, strict=True)
        return torch.cat([work(image, ((1 << width) - 1,)) for image, width in images])


def _along(values: Tensor, x: Tensor) -> Tensor:
    """A number for each image, as it meets the images' values."""
    return values.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
