"""A picture in memory, and what is kept of the file it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srquant.images.metadata import Metadata

Pixels = NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16."""

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in a gray value (ITU-R BT.601)."""


@dataclass(frozen=True)
class Layout:
    """How pixels are stored.

    Args:
        gray: One channel of colour instead of three.
        alpha: Whether a channel of opacity follows.
        depth: 8 or 16 bits a channel.
        associated: Whether the file stores colours multiplied by alpha. In memory they never are.
    """

    gray: bool = False
    alpha: bool = False
    depth: int = 8
    associated: bool = False

    @classmethod
    def of(cls, pixels: Pixels) -> Layout:
        """The layout of pixels ``h w channels``: gray up to two channels, alpha after an even number of them."""
        channels = pixels.shape[-1]
        return cls(gray=channels < 3, alpha=channels % 2 == 0, depth=16 if pixels.dtype == np.uint16 else 8)

    @property
    def peak(self) -> int:
        """Largest pixel value."""
        return (1 << self.depth) - 1

    @property
    def channels(self) -> int:
        """Stored channels: 1 to 4."""
        return self.colours + self.alpha

    @property
    def colours(self) -> int:
        """Channels of colour: 1 or 3."""
        return 1 if self.gray else 3

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """Of the pixels: uint8 or uint16."""
        return np.uint16 if self.depth == 16 else np.uint8


@dataclass(frozen=True)
class Picture:
    """Pixels the right way up (orientation applied), and what their file said of them.

    Args:
        pixels: ``h w channels``, uint8 or uint16, 0 … peak; gray or RGB, then alpha if there is one, by which colours
            are not multiplied.
        layout: How the file stores them.
        metadata: What else the file says.
        duration: Milliseconds, for a frame of an animation.
        left_out: What the file holds and the pixels do not show, in words.
    """

    pixels: Pixels
    layout: Layout
    metadata: Metadata = field(default_factory=Metadata)
    duration: float = 0
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, layout = self.pixels.shape, self.layout
        assert self.pixels.dtype == layout.dtype, f"{self.pixels.dtype} for {layout}"
        assert len(shape) == 3 and shape[2] == layout.channels and 0 not in shape, f"{shape} for {layout}"

    def __repr__(self) -> str:
        colours = ("gray" if self.layout.gray else "RGB") + (" and alpha" if self.layout.alpha else "")
        return f"Picture({self.size[1]} wide, {self.size[0]} high, {colours}, {self.layout.depth} bits)"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def rgb(self) -> Pixels:
        """``h w 3``; gray repeated, alpha left out."""
        colour = self.pixels[..., : self.layout.colours]
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
    return np.rint(values.clip(0, 1) * layout.peak).astype(layout.dtype)
