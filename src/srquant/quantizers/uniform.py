"""Uniform quantizers: equal steps between two bounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srquant.quantizers.base import NARROWEST, Quantizer, check_bits


class Uniform(Quantizer):
    """2^b levels at equal distances from lower to upper.

    ``code = round((clamp(x, l, u) − l) / (u − l) · (2^b − 1))``, ``x̂ = code · (u − l) / (2^b − 1) + l``.

    Source: OAPTQ eq. 1 and 2.
    """

    name = "uniform"

    def __init__(self, bits: int, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        check_bits(bits)
        self.bits = bits
        self.steps = ((1 << bits) - 1,)
        self.lower = nn.Parameter(lower.detach().clone())
        self.upper = nn.Parameter(upper.detach().clone())

    def knots(self) -> Tensor:
        return torch.stack((self.lower, self.upper), -1)

    def constrain(self) -> None:
        reach = torch.maximum(self.lower.abs(), self.upper.abs())
        self.upper.copy_(torch.maximum(self.upper, self.lower + NARROWEST * reach))


class Symmetric(Quantizer):
    """:class:`Uniform` with lower = −bound, upper = bound: 2^b levels, none of them zero. The papers' weight quantizer.

    Source: OAPTQ §3.1; AdaBM's released code.
    """

    name = "symmetric"

    def __init__(self, bits: int, bound: Tensor) -> None:
        super().__init__()
        check_bits(bits)
        self.bits = bits
        self.steps = ((1 << bits) - 1,)
        self.bound = nn.Parameter(bound.detach().clone())

    def knots(self) -> Tensor:
        return torch.stack((-self.bound, self.bound), -1)

    def constrain(self) -> None:
        self.bound.clamp_(min=0)
