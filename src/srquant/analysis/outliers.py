"""What activation outliers carry: clip them, and look at the colours.

Source: OAPTQ §3.1, fig. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from srquant.images.evaluation import enlarge
from srquant.images.metrics import colour_shift, psnr
from srquant.model import Model
from srquant.model.multiplications import flat
from srquant.model.survey import survey
from srquant.quantizers.ranges import quantile
from srquant.support.errors import ArgumentError
from srquant.support.watching import hooks


@dataclass(frozen=True)
class Clipped:
    """A network's output with a share of its activations' outliers clipped.

    Args:
        share: Of the values of every layer's input, those of the largest magnitude, in each image.
        pixels: The output, uint8 ``h w 3``.
        psnr: Against the HR image, luma, in dB, the border cropped.
        shift: Mean CIELAB ΔE*ab to the output without clipping; about 2 is just visible.
    """

    share: float
    pixels: NDArray[np.uint8]
    psnr: float
    shift: float


def clip_outliers(
    model: Model, low: NDArray[np.uint8], high: NDArray[np.uint8], shares: Sequence[float] = (0.001, 0.01, 0.05)
) -> tuple[Clipped, ...]:
    """Clip the largest activations in front of every convolution, linear map and attention product.

    Args:
        model: A float model.
        low: The LR image, uint8 ``h w 3``.
        high: The HR image, ``scale`` times as large.
        shares: How many values are clipped, each in (0, 1).

    Returns:
        The output without clipping (share 0), then one for each share.

    Raises:
        ArgumentError: A share is outside (0, 1).
    """
    for share in shares:
        if not 0 < share < 1:
            raise ArgumentError(f"share={share} is outside (0, 1); 0.01 clips the largest 1 % of the magnitudes")
    names = [each.name for each in survey(model.network).multiplications]
    inside = (slice(model.scale, -model.scale),) * 2
    results: list[Clipped] = []
    for share in (0.0, *shares):
        before = {name: partial(_clip, share) for name in names} if share else {}
        with hooks(model.network, before):
            pixels = enlarge(model, low, model.scale)
        shift = colour_shift(pixels[inside], results[0].pixels[inside]) if results else 0.0
        results.append(Clipped(share, pixels, psnr(pixels[inside], high[inside]), shift))
    return tuple(results)


def _clip(share: float, _module: nn.Module, operands: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    limits = [quantile(flat(operand), 1 - share, magnitude=True) for operand in operands]
    return tuple(operand.clamp(-limit, limit) for operand, limit in zip(operands, limits, strict=True))
