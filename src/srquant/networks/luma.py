"""Running a network of one channel on RGB images: it enlarges the luma, and the colours are enlarged bicubically.

That is how SRCNN, ESPCN, FSRCNN and VDSR are meant and scored.

Source: Dong et al., TPAMI 2016, section 4 ("we only consider the luminance channel (Y channel in YCbCr color space)";
"Cb, Cr are upsampled by bicubic interpolation").
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_OFFSET = 16 / 255
_GAIN = 255 / 219
"""What a step of luma is in each of red, green and blue."""
_REACH = 3
"""Pixels around an image that bicubic enlargement looks at, and one to spare."""


def luma(images: Tensor, value_range: float) -> Tensor:
    """ITU-R BT.601 luma as the super-resolution literature takes it (MATLAB's ``rgb2ycbcr``).

    Args:
        images: RGB, ``n 3 h w`` in [0, value_range].
        value_range: Largest value of images.

    Returns:
        ``n 1 h w`` in [16/255, 235/255] · value_range.
    """
    red, green, blue = (weight * channel for weight, channel in zip(_WEIGHTS, images.unbind(1), strict=True))
    return (red + green + blue + _OFFSET * value_range).unsqueeze(1)


def enlarge_on_luma(network: Callable[[Tensor], Tensor], images: Tensor, scale: int, value_range: float) -> Tensor:
    """Enlarge the luma by a network, and blue and red difference bicubically; differentiable.

    In YCbCr a change of luma alone moves red, green and blue alike, so both are one sum: the image enlarged
    bicubically, plus 255/219 of what the network's luma differs from the enlarged image's.

    Args:
        network: ``n 1 h w`` to ``n 1 scale·h scale·w``, in the value range.
        images: RGB, ``n 3 h w`` in [0, value_range].
        scale: How many times larger the output is.
        value_range: Largest value of images.
    """
    enlarged = enlarge_bicubic(images, scale)
    change = network(luma(images, value_range)) - luma(enlarged, value_range)
    return enlarged + _GAIN * change


def enlarge_bicubic(images: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement with Keys' kernel, a = -1/2, the border pixels repeated, as MATLAB does it; differentiable.

    Args:
        images: ``n c h w``, floating point.
        scale: How many times larger the result is.
    """
    if scale == 1:
        return images
    # Of PyTorch's two cubic kernels the antialiased one is Keys'; when it enlarges, it is no wider than the other.
    padded = F.pad(images, [_REACH] * 4, mode="replicate")
    larger = F.interpolate(padded, scale_factor=float(scale), mode="bicubic", align_corners=False, antialias=True)
    border = scale * _REACH
    return larger[..., border:-border, border:-border]
