"""PSNR and SSIM on the luma channel, as the SR literature prints them, and colour differences.

Images are uint8 RGB, ``h w 3``, with the border already cropped. Luma is ITU-R BT.601 with the +16 offset, not rounded.
SSIM comes in two dialects. On good pictures they agree to about the third decimal; on poor ones they do not (MinMax at
W4A4 on an SRResNet: 0.817 and 0.765), so compare only what is in the same dialect:

- :func:`ssim`: valid windows only (BasicSR; the tables of 2DQuant);
- :func:`ssim_adabm`: luma without the offset, borders replicated (AdaBM; the tables of OAPTQ).

Source of SSIM: Wang et al. 2004, 11×11 Gaussian window with σ = 1.5, K1 = 0.01, K2 = 0.03, L = 255.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from srquant.support.errors import ArgumentError
from srquant.support.tensors import as_tensor

_LUMA = (65.481, 128.553, 24.966)
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_D65 = (0.95047, 1.0, 1.08883)
_WINDOW = 11
_SIGMA = 1.5


def luma(image: NDArray[Any], *, offset: bool = True) -> Tensor:
    """Luma of an RGB image, float64, ``h w``, in 16…235 (0…219 without the offset)."""
    weights = np.array(_LUMA) / 255
    return as_tensor(image.astype(np.float64) @ weights + (16.0 if offset else 0.0))


def psnr(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of the luma in dB, 10·log10(255²/MSE); infinity for identical images.

    Raises:
        ArgumentError: The shapes differ or are not ``h w 3``.
    """
    _check(image, reference)
    error = float((luma(image) - luma(reference)).square().mean())
    return 10 * math.log10(255**2 / error) if error > 0 else math.inf


def ssim(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """Structural similarity of the luma, mean over windows that lie inside the image (BasicSR's dialect).

    Raises:
        ArgumentError: The shapes differ, are not ``h w 3``, or are smaller than the 11×11 window.
    """
    _check(image, reference)
    if min(image.shape[:2]) < _WINDOW:
        raise ArgumentError(f"SSIM needs images of at least 11x11 pixels; got {image.shape[1]}x{image.shape[0]}")
    return float(_ssim_map(luma(image), luma(reference)).mean())


def ssim_adabm(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """Structural similarity of the luma without offset, mean over all pixels, borders replicated (AdaBM's dialect).

    Raises:
        ArgumentError: The shapes differ or are not ``h w 3``.
    """
    _check(image, reference)
    margin = [_WINDOW // 2] * 4
    padded = [
        F.pad(luma(picture, offset=False)[None, None], margin, mode="replicate")[0, 0] for picture in (image, reference)
    ]
    return float(_ssim_map(*padded).mean())


def cielab(image: NDArray[Any]) -> NDArray[np.float64]:
    """CIELAB of an sRGB image under D65: L* in 0…100, a* and b* in about ±110.

    Source: IEC 61966-2-1 (sRGB), CIE 15 (L*a*b*, 2° observer).
    """
    encoded = image.astype(np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    relative = linear @ np.array(_XYZ).T / np.array(_D65)
    roots = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = roots[..., 0], roots[..., 1], roots[..., 2]
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1)


def colour_shift(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """Mean ΔE*ab (CIE 1976) between two images.

    Raises:
        ArgumentError: The shapes differ or are not ``h w 3``.
    """
    _check(image, reference)
    difference = cielab(image) - cielab(reference)
    return float(np.sqrt((difference**2).sum(axis=-1)).mean())


def _ssim_map(x: Tensor, y: Tensor) -> Tensor:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return above / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))


def _blur(values: Tensor) -> Tensor:
    """Gaussian mean over windows that lie inside."""
    offset = torch.arange(_WINDOW, dtype=values.dtype) - _WINDOW // 2
    kernel = torch.exp(-(offset**2) / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    rows = F.conv2d(values[None, None], kernel.view(1, 1, -1, 1))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1))[0, 0]


def _check(image: NDArray[Any], reference: NDArray[Any]) -> None:
    if image.shape != reference.shape or image.ndim != 3 or image.shape[2] != 3:
        raise ArgumentError(f"images must both be h w 3; got {image.shape} and {reference.shape}")
