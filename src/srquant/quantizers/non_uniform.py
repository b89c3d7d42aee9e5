"""Levels wherever they serve best."""

from __future__ import annotations

from torch import Tensor, nn

from srquant.quantizers.base import Quantizer, check_bits
from srquant.quantizers.channel_factor import Scaled
from srquant.quantizers.channel_shift import Shifted
from srquant.support.errors import ArgumentError


class NonUniform(Quantizer):
    """Up to 2^b levels without a formula, each a parameter; a value goes to the nearest.

    The scalar quantizer of least squared error has this form (Lloyd 1982, Max 1960; see
    :class:`~srquant.quantizers.ranges.LloydMax`). As a grid it is 2^b − 1 segments of one interval, the levels its
    knots; gradients follow from that (:func:`~srquant.quantizers.numerics.rounding.quantize`).

    Args:
        bits: b.
        values: The levels, increasing, ``(k,)``, or ``(c, k)`` for each channel its own; 3 < k ≤ 2^b.
        axis: Of channels.
    """

    name = "free_levels"

    def __init__(self, bits: int, values: Tensor, axis: int = 0) -> None:
        super().__init__()
        check_bits(bits)
        if values.ndim not in (1, 2) or not 3 < values.shape[-1] <= 1 << bits:
            raise ArgumentError(
                f"values of shape {tuple(values.shape)}: a row of 4 to {1 << bits}, or such a row for each channel, "
                f"is wanted"
            )
        self.bits = bits
        self.axis = axis
        self.intervals = (1,) * (values.shape[-1] - 1)
        self.values = nn.Parameter(values.detach().clone())

    def knots(self) -> Tensor:
        return self.values

    def constrain(self) -> None:
        """Keep the levels in order."""
        self.values.copy_(self.values.sort().values)

    def extra_repr(self) -> str:
        if self.values.ndim == 2:
            return super().extra_repr()
        return f"bits={self.bits}, {', '.join(f'{float(value):.4g}' for value in self.values)}"


class ShiftedNonUniform(Shifted, NonUniform):
    """Non-uniform levels that all channels have in common, around a centre of each channel.

    Where channels have different means, a good part of a tensor's levels serves to tell channels apart. Source of the
    shift: "Outlier Suppression+" (Wei et al., EMNLP 2023), where it makes ranges symmetric; here it is the mean.

    Args:
        bits: b.
        values: The levels, as :class:`NonUniform` has them.
        shift: The centres.

    Raises:
        ArgumentError: The levels are not those of the whole tensor.
    """

    name = "shifted_levels"

    def __init__(self, bits: int, values: Tensor, shift: Tensor) -> None:
        self.require_common("values", values, 1)
        super().__init__(bits, values)
        self.shift = nn.Parameter(shift.detach().clone())


class ScaledNonUniform(Scaled, NonUniform):
    """Levels for channels of different extents.

    Args:
        bits: b.
        values: The levels of divided channels, as :class:`NonUniform` has them.
        factor: What channels are divided by, positive.

    Raises:
        ArgumentError: The levels are not those of the whole tensor.
    """

    name = "scaled_levels"

    def __init__(self, bits: int, values: Tensor, factor: Tensor) -> None:
        self.require_common("values", values, 1)
        super().__init__(bits, values)
        self.factor = nn.Parameter(factor.detach().clone())
