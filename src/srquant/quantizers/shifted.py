"""Grids around a centre of each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srquant.integers import Term
from srquant.quantizers.base import Quantizer
from srquant.quantizers.free_levels import FreeLevels
from srquant.quantizers.uniform import Uniform

_UNITS = 1 << 24
"""In the largest shift: as finely as float32 tells values of that size apart."""


class _Shifted(Quantizer):
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


class ShiftedLevels(_Shifted, FreeLevels):
    """Free levels that all channels share, around a centre of each channel.

    Where channels have different means, a good part of a tensor's levels serves to tell channels apart. Source of the
    shift: "Outlier Suppression+" (Wei et al., EMNLP 2023), where it makes ranges symmetric; here it is the mean.

    Args:
        bits: b.
        values: The levels, as :class:`FreeLevels` has them.
        shift: The centres.
    """

    name = "shifted_levels"

    def __init__(self, bits: int, values: Tensor, shift: Tensor) -> None:
        super().__init__(bits, values)
        self.shift = nn.Parameter(shift.detach().clone())


class ShiftedUniform(_Shifted, Uniform):
    """A uniform grid around a centre of each channel.

    With the 256 values of an image's bytes as levels, and what a network subtracts from its image as centres, it loses
    nothing of an eight-bit image.

    Args:
        bits: b.
        lower: Lower end of the range, counted from the centre.
        upper: Upper end.
        shift: The centres.
    """

    name = "shifted_uniform"

    def __init__(self, bits: int, lower: Tensor, upper: Tensor, shift: Tensor) -> None:
        super().__init__(bits, lower, upper)
        self.shift = nn.Parameter(shift.detach().clone())
