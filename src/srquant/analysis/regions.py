"""Where results differ most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from srquant.support.errors import ArgumentError
from srquant.support.tensors import as_tensor


def most_different(pictures: Sequence[NDArray[np.uint8]], size: int) -> tuple[int, int]:
    """Top and left of the window in which pictures of one scene differ most, by the mean spread of their pixels.

    Args:
        pictures: Two or more, uint8 ``h w 3``, of one shape.
        size: Height and width of the window.

    Raises:
        ArgumentError: The window is larger than the pictures.
    """
    height, width = pictures[0].shape[:2]
    if not 0 < size <= min(height, width):
        raise ArgumentError(f"size={size}: the crop must fit into the picture of {width}x{height} pixels")
    values = torch.stack([as_tensor(picture).float() for picture in pictures])
    spread = values.std(dim=0, correction=0).mean(dim=-1)
    means = F.avg_pool2d(spread[None, None], size, stride=1)[0, 0]
    index = int(means.argmax())
    return index // means.shape[1], index % means.shape[1]
