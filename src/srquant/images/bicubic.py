"""MATLAB's ``imresize`` with the bicubic kernel and antialiasing: the degradation that SR benchmarks are made with.

When shrinking by ``scale`` < 1 the kernel is widened by 1/scale. The 8-bit form works as MATLAB does on uint8 images:
vertical pass first, rounding and clipping to 8 bits after each pass. Borders: ``replicate`` reproduces the LR images of
Set5, Set14 and BSD100 pixel by pixel; newer MATLAB versions mirror (``mirror``, edge pixel repeated).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from srquant.support.errors import ArgumentError

Border = Literal["replicate", "mirror"]


def shrink_8bit(image: Tensor, scale: int, border: Border = "replicate") -> Tensor:
    """Make the low-resolution image of a benchmark pair.

    Args:
        image: uint8, ``c h w``; h and w multiples of ``scale``.
        scale: How many times smaller the result is.
        border: See the module.

    Returns:
        uint8, ``c h/scale w/scale``.

    Raises:
        ArgumentError: The size is not a multiple of the scale; :func:`crop_to_multiple` makes it one.
    """
    height, width = image.shape[-2:]
    if height % scale or width % scale:
        raise ArgumentError(f"an image of {width}x{height} is not a multiple of scale={scale}; crop it first")
    if scale == 1:
        return image
    values = image.to(torch.float64)
    for axis in (-2, -1):
        values = _resample(values, axis, 1 / scale, border).add_(0.5).floor_().clamp_(0, 255)
    return values.to(torch.uint8)


def resize(images: Tensor, scale: float, border: Border = "replicate") -> Tensor:
    """Shrink or enlarge without rounding, in the dtype of ``images``; differentiable.

    Args:
        images: float, ``... h w``.
        scale: Factor on height and width, above or below 1; the result has ceil(scale · size) rows and columns.
        border: See the module.
    """
    return _resample(_resample(images, -2, scale, border), -1, scale, border)


def crop_to_multiple(image: Tensor, scale: int) -> Tensor:
    """Cut the lower and right border so that height and width are multiples of ``scale``."""
    height, width = image.shape[-2:]
    return image[..., : height - height % scale, : width - width % scale]


def _resample(values: Tensor, axis: int, scale: float, border: Border) -> Tensor:
    index, weights = _contributions(values.shape[axis], scale, border)
    index, weights = index.to(values.device), weights.to(values)
    if axis == -2:
        weights = weights.unsqueeze(-1)
    # One tap at a time: the memory of the result, not of all taps.
    result = values.index_select(axis, index[0]) * weights[0]
    for tap in range(1, len(index)):
        result = result + values.index_select(axis, index[tap]) * weights[tap]
    return result


def _contributions(size: int, scale: float, border: Border) -> tuple[Tensor, Tensor]:
    """Input indices and weights of every output pixel, both taps × outputs."""
    narrowing = min(scale, 1.0)
    width = 4 / narrowing
    outputs = torch.arange(1, math.ceil(scale * size) + 1, dtype=torch.float64)
    centre = outputs / scale + 0.5 * (1 - 1 / scale)
    first = (centre - width / 2).floor()
    pixels = first + torch.arange(math.ceil(width) + 2, dtype=torch.float64)[:, None]
    weights = narrowing * _cubic(narrowing * (centre - pixels))
    weights = weights / weights.sum(0)
    index = pixels.long() - 1
    if border == "mirror":
        index = index.remainder(2 * size)
        index = torch.minimum(index, 2 * size - 1 - index)
    used = (weights != 0).any(dim=1)
    return index.clamp(0, size - 1)[used], weights[used]


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2 (Keys 1981, MATLAB's choice)."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, 0.0))
