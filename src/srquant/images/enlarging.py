"""Enlarging a picture in memory, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from srquant.images.bicubic import resize
from srquant.images.picture import Layout, Picture, Pixels, to_layout
from srquant.images.tiling import Tiling
from srquant.images.transparency import filled
from srquant.support.progress import Bar
from srquant.support.tensors import as_tensor, planes

Upscaler = Callable[[Tensor], Tensor]
"""Anything that turns ``n 3 h w`` in [0, 1] into ``n 3 scale·h scale·w``: a model, an engine, a function."""


def enlarge_bands(
    upscaler: Upscaler, picture: Picture, layout: Layout, scale: int, tiling: Tiling, shown: Bar | None = None
) -> Iterator[Pixels]:
    """Enlarge a picture in memory, tile by tile; transparent pixels get the colour of visible ones beside them first.

    Args:
        upscaler: ``1 3 h w`` in [0, 1] to ``1 3 scale·h scale·w``.
        picture: What to enlarge.
        layout: What to make of it: clamped and rounded to its depth, gray or colour, alpha as the picture has.
        scale: How many times larger the output is.
        tiling: How to cut.
        shown: Moves on by one for each tile.

    Returns:
        Bands of rows, ``rows scale·w channels``, top to bottom; their heights are those of the tiles.
    """
    image = filled(picture).pixels.transpose(2, 0, 1)
    for row in tiling.rows(*picture.size):
        parts: list[Pixels] = []
        for tile in row:
            colour, alpha = _enlarge(upscaler, tile.cut(image), picture.layout, scale)
            kept = tile.keep(colour, scale).transpose(1, 2, 0)
            parts.append(to_layout(kept, None if alpha is None else tile.keep(alpha, scale), layout))
            if shown is not None:
                shown.advance()
        yield np.concatenate(parts, axis=1)


def enlarge_bicubic(low: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """An 8-bit RGB image, ``h w 3``, enlarged by MATLAB's bicubic, clamped and rounded."""
    values = resize(planes(low).float(), scale)
    return values.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _enlarge(
    upscaler: Upscaler, pixels: Pixels, layout: Layout, scale: int
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """RGB, ``3 h w``, and alpha, ``h w``, in about [0, 1]."""
    values = as_tensor(pixels.astype(np.float32) / layout.peak)
    colour = values[:1].expand(3, -1, -1) if layout.gray else values[:3]
    output = upscaler(colour[None])[0].float().cpu().numpy()
    return output, resize(values[-1], scale).numpy() if layout.alpha else None
