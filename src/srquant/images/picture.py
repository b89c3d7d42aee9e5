"""A picture in memory, and what is kept of the file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16."""

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in a gray value (ITU-R BT.601)."""


@dataclass(frozen=True)
class Layout:
    """How a picture is stored, apart from its pixels and size.

    ``depth`` is 8 or 16 bits a channel; ``icc_profile`` and ``exif`` (without the orientation) go unchanged into what
    is written.
    """

    gray: bool = False
    alpha: bool = False
    depth: int = 8
    icc_profile: bytes | None = None
    exif: bytes | None = None

    @property
    def peak(self) -> int:
        """Largest pixel value."""
        return (1 << self.depth) - 1

    @property
    def channels(self) -> int:
        """Stored channels: 1 to 4."""
        return (1 if self.gray else 3) + self.alpha


@dataclass(frozen=True)
class Picture:
    """Pixels the right way up (EXIF orientation applied) and the layout of their file.

    ``pixels``: ``h w channels``, uint8 or uint16; gray or RGB, then alpha if there is one.
    """

    pixels: Pixels
    layout: Layout

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def rgb(self) -> Pixels:
        """``h w 3``; gray repeated, alpha left out."""
        colour = self.pixels[..., : 1 if self.layout.gray else 3]
        return np.ascontiguousarray(np.broadcast_to(colour, (*self.size, 3)))

    def rgb8(self) -> NDArray[np.uint8]:
        """:meth:`rgb` in 8 bits."""
        rgb = self.rgb()
        return (
            ((rgb.astype(np.uint32) + 128) // 257).astype(np.uint8) if rgb.dtype == np.uint16 else rgb.astype(np.uint8)
        )


def to_layout(rgb: NDArray[np.float32], alpha: NDArray[np.float32] | None, layout: Layout) -> Pixels:
    """Clamp and round an image in [0, 1] to the pixels of a layout.

    Args:
        rgb: ``h w 3``.
        alpha: ``h w``, or None where the layout has no alpha.
        layout: What to make.

    Returns:
        ``h w channels``.
    """
    colour = rgb @ LUMA[:, None] if layout.gray else rgb
    values = colour if alpha is None else np.concatenate((colour, alpha[..., None]), axis=-1)
    rounded = np.rint(values.clip(0, 1) * layout.peak)
    return rounded.astype(np.uint16 if layout.depth == 16 else np.uint8)
