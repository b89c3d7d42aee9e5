"""What quantizers have in common whose grid lies around a centre of each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srquant.quantizers.base import Quantizer
from srquant.quantizers.numerics.integers import Term

_UNITS = 1 << 24
"""In the largest shift: as finely as float32 tells values of that size apart."""


class Shifted(Quantizer):
    """What is put before another quantizer: every channel is moved by a number of its own, and moved back afterwards.

    What moves back, ``weight ∗ shift``, depends on the image's border only, so that an integer engine can add it up
    beforehand. Zero padding stays zero: it comes after.

    The parameter ``shift`` has the shape in which it is subtracted: ``(c, 1, 1)`` from ``n c h w``, ``(c,)`` from
    ``… c``, or ``()``.
    """

    shift: nn.Parameter

    def centred(self, x: Tensor) -> Tensor:
        return x - self.shift.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.centred(x)) + self.shift.to(x.dtype)

    def codes(self, x: Tensor) -> Tensor:
        return super().codes(self.centred(x).detach())

    def decode(self, codes: Tensor) -> Tensor:
        return super().decode(codes) + self.shift.detach()

    def levels(self) -> Tensor:
        shift = self.shift.detach()
        return super().levels() + (shift.reshape(-1, 1) if shift.ndim else shift)

    def terms(self, codes: Tensor) -> list[Term]:
        """The shift, and the lowest level if it is a term of its own, in units finer than float32's rounding."""
        first, *rest = super().terms(codes)
        offset = self.shift.detach().double()
        if bool((first.integers == 1).all()):
            offset = offset + first.scale.double()
        else:
            rest = [first, *rest]
        unit = offset.abs().max().clamp(min=torch.finfo(torch.float32).tiny) / _UNITS
        return [Term(unit, (offset / unit).round().long().expand(codes.shape)), *rest]

    def integer_grid(self) -> None:
        """None: shifts are not integers."""
