"""Levels around each channel's mean, as far apart as its values spread, in each image anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from srquant.quantizers.base import Quantizer, check_bits
from srquant.support.errors import ArgumentError

STEPS = {2: 1.596, 3: 0.996, 4: 0.586, 5: 0.335, 6: 0.188, 7: 0.104, 8: 0.057}
"""Distances of levels in standard deviations, by bits: those of DAQ's released code. They are the uniform steps of
least squared error on normal values, of half as many levels (Max 1960)."""
_TINY = 1e-12


class DistributionAware(Quantizer):
    """Levels of each image and channel of an activation ``n c h w``, from its mean μ and standard deviation σ there.

    With step = c_b · σ', c_b of :data:`STEPS` and σ' the σ of an image's channels, uniformly quantized between the
    smallest and the largest of them:

    - where an image has negative values: ``μ ± (k + ½)·step``, k < 2^(b−1);
    - after a ReLU: ``k·step``, k < 2^b, σ being that of the positive values.

    Gradients go straight through everywhere, none to μ and σ.

    Source: Hong et al., "DAQ: Channel-Wise Distribution-Aware Quantization for Deep Image Super-Resolution Networks",
    WACV 2022, section 3; released code.
    Differs: the release never clamps values after a ReLU from above; ``clamp=False`` does as it does, and takes more
    than 2^b values.

    Args:
        bits: b.
        deviation_bits: Of σ'.
        clamp: Whether levels after a ReLU end at the last of 2^b.

    Raises:
        ArgumentError: Bits are outside 2…8.
    """

    name = "distribution_aware"
    gridless = True

    def __init__(self, bits: int, deviation_bits: int = 4, clamp: bool = True) -> None:
        super().__init__()
        check_bits(bits)
        check_bits(deviation_bits, "deviation_bits")
        self.bits = bits
        self.intervals = ((1 << bits) - 1,)
        self.deviation_bits = deviation_bits
        self.clamp = clamp

    def arguments(self) -> dict[str, Any]:
        return {"bits": self.bits, "deviation_bits": self.deviation_bits, "clamp": self.clamp}

    def knots(self) -> Tensor:
        """There are none.

        Raises:
            ArgumentError: Always.
        """
        raise ArgumentError(f"{self.name}: levels follow each image and channel; there is no grid to look at")

    def constrain(self) -> None:
        """Nothing is learned."""

    def integer_grid(self) -> None:
        """None: levels follow each image."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            values = self.nearest(x.float()).to(x.dtype)
        return x + (values - x).detach() if x.requires_grad else values

    def nearest(self, x: Tensor) -> Tensor:
        """The nearest level of each value."""
        signed = x.flatten(1).amin(1).lt(0).view(-1, 1, 1, 1)
        mean, spread = _moments(x, torch.ones_like(x))
        _, upper = _moments(x, (x > 0).to(x.dtype))
        step = STEPS[self.bits] * self._coarse(torch.where(signed, spread, upper)).clamp(min=_TINY)
        half = 1 << (self.bits - 1)
        around = (((x - mean) / step).floor().clamp(-half, half - 1) + 0.5) * step + mean
        codes = (x / step).round()
        above = (codes.clamp(max=2 * half - 1) if self.clamp else codes) * step
        return torch.where(signed, around, above)

    def _coarse(self, spread: Tensor) -> Tensor:
        """Standard deviations ``n c 1 1``, quantized between the extremes of each image's channels."""
        low, high = spread.amin(1, keepdim=True), spread.amax(1, keepdim=True)
        unit = ((high - low) / ((1 << self.deviation_bits) - 1)).clamp(min=_TINY)
        return ((spread - low) / unit).round() * unit + low


def _moments(x: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of the values that are counted, in each image and channel: ``n c 1 1``."""
    axes = (2, 3)
    count = counted.sum(axes, keepdim=True)
    mean = (x * counted).sum(axes, keepdim=True) / count.clamp(min=1)
    squares = ((x - mean).square() * counted).sum(axes, keepdim=True)
    return mean, (squares / (count - 1).clamp(min=1)).sqrt()
