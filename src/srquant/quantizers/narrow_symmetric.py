"""The symmetric quantizer with a zero: one level less than there are codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srquant.quantizers.base import Quantizer, check_bits
from srquant.quantizers.numerics.integers import short


class NarrowSymmetric(Quantizer):
    """2^b − 1 levels from −bound to bound, zero among them.

    ``x̂ = round(clamp(x, −α, α) · q / α) · α / q`` with ``q = 2^(b−1) − 1``. Of values that are never negative only
    2^(b−1) levels are taken.

    Its levels are integers from −q to q times a scale of 16 significant bits, so that zero is exactly zero, and integer
    engines compute the same.

    Source: Li et al., PAMS, ECCV 2020, section 3.1; other words for it are "narrow range".
    """

    name = "narrow_symmetric"

    def __init__(self, bits: int, bound: Tensor, axis: int = 0) -> None:
        super().__init__()
        check_bits(bits)
        self.bits = bits
        self.axis = axis
        self.intervals = ((1 << bits) - 2,)
        self.bound = nn.Parameter(bound.detach().clone())

    def knots(self) -> Tensor:
        half = self.intervals[0] // 2
        bound = half * short(self.bound / half)
        return torch.stack((-bound, bound), -1)

    def constrain(self) -> None:
        self.bound.clamp_(min=0)
