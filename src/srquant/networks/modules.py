"""Pieces that several networks share."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from srquant.support.errors import ArgumentError

_STAGES = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}


class MatMul(nn.Module):
    """A product of two activations, as a module, so that it can be found and swapped like a convolution.

    It has no parameters and adds no state-dict keys.
    """

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """``(..., n, k) @ (..., k, m)``."""
        return multiplied(left, right)


def multiplied(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``, by a name that nobody else uses: who looks for products that are functions leaves it alone."""
    return cast(Tensor, torch.linalg.matmul(left, right))


def conv(inputs: int, outputs: int, size: int = 3, *, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias)


def upsampler(scale: int, channels: int) -> nn.Sequential:
    """Sub-pixel upsampling as EDSR does it: one stage for ×2 and ×3, two for ×4, three for ×8."""
    if scale not in _STAGES:
        raise ArgumentError(f"scale={scale} has no sub-pixel upsampler; choose one of {', '.join(map(str, _STAGES))}")
    factors = _STAGES[scale]
    return nn.Sequential(*(m for f in factors for m in (conv(channels, channels * f * f), nn.PixelShuffle(f))))


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """:func:`pad_to_size` up to the next multiples.

    Args:
        images: ``n c h w``.
        multiple: What the height and width shall be multiples of.
    """
    height, width = images.shape[-2:]
    return pad_to_size(images, height + -height % multiple, width + -width % multiple)


def pad_to_size(images: Tensor, height: int, width: int) -> Tensor:
    """Mirror the lower and right border (edge pixel not repeated), as often as needed; any size from 1 pixel on.

    Args:
        images: ``n c h w``.
        height: Height to reach.
        width: Width to reach.
    """
    if height > images.shape[-2]:
        images = images[..., _mirror(images.shape[-2], height, images.device), :]
    if width > images.shape[-1]:
        images = images[..., _mirror(images.shape[-1], width, images.device)]
    return images


def _mirror(size: int, wanted: int, device: torch.device) -> Tensor:
    period = max(2 * size - 2, 1)
    index = torch.arange(wanted, device=device) % period
    return torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)
