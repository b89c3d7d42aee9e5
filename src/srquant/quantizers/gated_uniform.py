"""A uniform quantizer whose two bounds a small gate moves for each image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from srquant.quantizers.base import NARROWEST, Quantizer, check_bits
from srquant.quantizers.numerics.integers import uniform_knots
from srquant.quantizers.numerics.rounding import quantize
from srquant.support.errors import ArgumentError

_TINY = 1e-12
_COARSE = 3
"""Intervals of the two bits inside the gate."""


class GatedUniform(Quantizer):
    """For each image of ``n c h w`` a uniform quantizer with a zero, from ``l·2σ(g_l)`` to ``u·2σ(g_u)``.

    The gate: ``g = excite · q(relu(scale · (T(squeeze) · q(mean over pixels)) + offset))``, T rounding weights to −1, 0
    or 1, q two bits between the extremes of an image's channels. With ``excite`` all zero the bounds are l and u.
    Rounding inside the gate passes gradients straight through.

    Source: Zhong et al., "Dynamic Dual Trainable Bounds for Ultra-low Precision Super-Resolution Networks" (DDTB), ECCV
    2022, section 3.4; released code.
    Differs: scale and offset are a batch normalisation whose statistics stay as they were measured before learning.

    Args:
        bits: b.
        lower: l.
        upper: u.
        squeeze: ``hidden c``.
        scale: ``hidden``.
        offset: ``hidden``.
        excite: ``2 hidden``.
    """

    name = "gated_uniform"
    gridless = True
    apart = "gates"

    def __init__(
        self,
        bits: int,
        lower: Tensor,
        upper: Tensor,
        squeeze: Tensor,
        scale: Tensor,
        offset: Tensor,
        excite: Tensor,
    ) -> None:
        check_bits(bits)
        self.require_common("lower", lower, 0)
        self.require_common("upper", upper, 0)
        super().__init__()
        self.bits = bits
        self.intervals = ((1 << bits) - 1,)
        self.lower, self.upper = (nn.Parameter(value.detach().clone()) for value in (lower, upper))
        self.squeeze, self.scale = (nn.Parameter(value.detach().clone()) for value in (squeeze, scale))
        self.offset, self.excite = (nn.Parameter(value.detach().clone()) for value in (offset, excite))

    def arguments(self) -> dict[str, Any]:
        return {"bits": self.bits}

    def gate(self, x: Tensor) -> Tensor:
        """The two logits of each image: ``n 2``."""
        seen = two_bits(x.to(self.squeeze.dtype).mean((2, 3)))
        hidden = seen @ ternary(self.squeeze).T * self.scale + self.offset
        return two_bits(hidden.relu()) @ self.excite.T

    def forward(self, x: Tensor) -> Tensor:
        lower, upper = (2 * self.gate(x).sigmoid() * torch.stack((self.lower, self.upper))).unbind(1)
        return quantize(x, uniform_knots(lower, upper, self.intervals), self.intervals)

    def knots(self) -> Tensor:
        """There are none.

        Raises:
            ArgumentError: Always.
        """
        raise ArgumentError(f"{self.name}: bounds follow each image; there is no grid to look at")

    def constrain(self) -> None:
        reach = torch.maximum(self.lower.abs(), self.upper.abs())
        self.upper.copy_(torch.maximum(self.upper, self.lower + NARROWEST * reach))

    def integer_grid(self) -> None:
        """None: bounds follow each image."""


def two_bits(values: Tensor) -> Tensor:
    """Rows rounded to four levels between their extremes; the gradient goes straight through."""
    low, high = values.detach().aminmax(dim=1, keepdim=True)
    unit = ((high - low) / _COARSE).clamp(min=_TINY)
    return values + (((values - low) / unit).round() * unit + low - values).detach()


def ternary(weight: Tensor) -> Tensor:
    """−1, 0 or 1; the gradient goes straight through inside, and is none beyond."""
    clipped = weight.clamp(-1, 1)
    return clipped + (clipped.round() - clipped).detach()
