"""Uniform quantizers: equal intervals between two bounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srquant.quantizers.adaptive import Adaptive
from srquant.quantizers.base import NARROWEST, Quantizer, check_bits, check_grid
from srquant.quantizers.channel_factor import Scaled
from srquant.quantizers.channel_shift import Shifted
from srquant.quantizers.image_factor import ImageFactor
from srquant.quantizers.numerics.integers import WIDTH, Grid, short, uniform_knots


class Uniform(Quantizer):
    """2^b levels at equal distances from lower to upper.

    ``code = round((clamp(x, l, u) − l) / (u − l) · (2^b − 1))``, ``x̂ = code · (u − l) / (2^b − 1) + l``.

    With ``grid="int8"`` the bounds are first widened to hold zero and then moved together by less than an interval, so
    that zero is a level: the zero point ``−l / scale`` of integer engines is an integer.

    Source: OAPTQ eq. 1 and 2.
    """

    name = "uniform"

    def __init__(self, bits: int, lower: Tensor, upper: Tensor, grid: Grid = "free", axis: int = 0) -> None:
        super().__init__()
        check_bits(bits)
        self.bits = bits
        self.grid = check_grid(grid)
        self.axis = axis
        self.intervals = ((1 << bits) - 1,)
        self.lower = nn.Parameter(lower.detach().clone())
        self.upper = nn.Parameter(upper.detach().clone())

    def knots(self) -> Tensor:
        if self.grid == "int8":
            return uniform_knots(self.lower, self.upper, self.intervals)
        return torch.stack((self.lower, self.upper), -1)

    def constrain(self) -> None:
        reach = torch.maximum(self.lower.abs(), self.upper.abs())
        self.upper.copy_(torch.maximum(self.upper, self.lower + NARROWEST * reach))


class Symmetric(Quantizer):
    """:class:`Uniform` with lower = −bound, upper = bound: 2^b levels, none of them zero. The papers' weight quantizer.

    Up to 7 bits its levels are odd multiples of ``bound / (2^b − 1)``, which fit eight bits. At 8 bits they do not;
    ``grid="int8"`` then leaves out one level and makes the others ``−127 … 127`` times ``bound / 127``.

    Source: OAPTQ §3.1; AdaBM's released code.
    """

    name = "symmetric"

    def __init__(self, bits: int, bound: Tensor, grid: Grid = "free", axis: int = 0) -> None:
        super().__init__()
        check_bits(bits)
        self.bits = bits
        self.grid = check_grid(grid)
        self.axis = axis
        self.intervals = (min((1 << bits) - 1, WIDTH - 1) if grid == "int8" else (1 << bits) - 1,)
        self.bound = nn.Parameter(bound.detach().clone())

    def knots(self) -> Tensor:
        if self.grid == "int8":
            bound = self.intervals[0] * short(self.bound / self.intervals[0])
            return torch.stack((-bound, bound), -1)
        return torch.stack((-self.bound, self.bound), -1)

    def constrain(self) -> None:
        self.bound.clamp_(min=0)


class ShiftedUniform(Shifted, Uniform):
    """A uniform grid around a centre of each channel.

    With the 256 values of an image's bytes as levels, and what a network subtracts from its image as centres, it loses
    nothing of an eight-bit image.

    Args:
        bits: b.
        lower: Lower end of the range, counted from the centre.
        upper: Upper end.
        shift: The centres.

    Raises:
        ArgumentError: The bounds are not those of the whole tensor.
    """

    name = "shifted_uniform"

    def __init__(self, bits: int, lower: Tensor, upper: Tensor, shift: Tensor) -> None:
        self.require_common("lower", lower, 0)
        self.require_common("upper", upper, 0)
        super().__init__(bits, lower, upper)
        self.shift = nn.Parameter(shift.detach().clone())


class ScaledUniform(Scaled, Uniform):
    """A uniform grid for channels of different extents.

    Args:
        bits: b.
        lower: Lower end of the range of divided channels.
        upper: Upper end.
        factor: What channels are divided by, positive.
        grid: Where levels lie.
    """

    name = "scaled_uniform"

    def __init__(self, bits: int, lower: Tensor, upper: Tensor, factor: Tensor, grid: Grid = "free") -> None:
        self.require_common("lower", lower, 0)
        self.require_common("upper", upper, 0)
        super().__init__(bits, lower, upper, grid)
        self.factor = nn.Parameter(factor.detach().clone())


class AdaptiveUniform(Adaptive, Uniform):
    """A uniform grid of as many levels as the image gets.

    Args:
        bits: b of an image with the factor 0, without ``layer``.
        lower: Lower end of the range.
        upper: Upper end.
        images: Has the factors of the images.
        layer: Of the layer, while it is learned.
    """

    name = "adaptive_uniform"

    def __init__(
        self, bits: int, lower: Tensor, upper: Tensor, images: ImageFactor, layer: Tensor | None = None
    ) -> None:
        self.require_common("lower", lower, 0)
        self.require_common("upper", upper, 0)
        super().__init__(bits, lower, upper)
        self.follow(images, layer)
