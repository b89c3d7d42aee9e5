"""What quantizers have in common whose channels have scales of their own, folded into the weights behind them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srquant.quantizers.base import Quantizer


class Scaled(Quantizer):
    """What is put before another quantizer: every channel is divided by a number of its own, its factor.

    ``x̂_c = Q(x_c / f_c)``: what comes out are the divided channels. Weights that multiply them are multiplied by the
    factors, ``w'_c = w_c · f_c``, before they are rounded, so that the product is that of x and w. An engine sees one
    scale for the whole tensor.

    The parameter ``factor`` has the shape in which it divides: ``(c, 1, 1)`` from ``n c h w``, ``(c,)`` from ``… c``.

    Source: the same idea for language models is Xiao et al., SmoothQuant, ICML 2023, equation 3.
    """

    apart = "factor"
    factor: nn.Parameter

    def centred(self, x: Tensor) -> Tensor:
        return x / self.factor.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.centred(x))

    def codes(self, x: Tensor) -> Tensor:
        return super().codes(self.centred(x).detach())


def times_factor(weight: Tensor, factor: Tensor) -> Tensor:
    """A weight whose input channels are multiplied by factors.

    Args:
        weight: Output channels first, then the input channels of a group: ``o c/groups …``.
        factor: ``c`` values, in any shape.
    """
    outputs, inputs = weight.shape[:2]
    by_group = factor.reshape(-1, 1, inputs)  # groups 1 c/groups
    wide = by_group.expand(-1, outputs // len(by_group), -1)
    return weight * wide.reshape(outputs, inputs, *[1] * (weight.ndim - 2))


def without_factor(weight: Tensor, quantizer: nn.Module) -> Tensor:
    """The weight as it would multiply what was not divided; see :class:`Scaled`."""
    return times_factor(weight, torch.reciprocal(quantizer.factor)) if isinstance(quantizer, Scaled) else weight
