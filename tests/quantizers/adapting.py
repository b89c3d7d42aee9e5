"""Bits that follow the image, as tests need them."""

from __future__ import annotations

import torch

from srquant.quantizers import ImageFactor


def looking(lower: float = 20.0, upper: float = 60.0) -> ImageFactor:
    """What looks at images in [0, 1], with these thresholds."""
    return ImageFactor(torch.tensor(lower), torch.tensor(upper))
