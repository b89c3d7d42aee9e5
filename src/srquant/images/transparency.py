"""The colour of transparent pixels.

A network sees neighbours. What stands under alpha 0, black in most files, would reach into the visible edge as a dark
halo. Transparent pixels therefore get the colour of what is visible around them: colours are averaged, weighted by
alpha, over squares of 2, 4, 8 … pixels, and each transparent pixel takes the average of the smallest square that shows
anything.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from srquant.images.picture import Picture, Pixels

_ROWS = 256
"""Rows that are computed at once; even, for whole squares."""

Means = NDArray[np.float32]
"""``h w c+1``: the mean colour of a square, and how visible it is, 0 … 1; the colour of what is invisible is 0."""


def filled(picture: Picture) -> Picture:
    """A picture whose transparent pixels have the colour of what is visible near them.

    Visible pixels and alpha stay as they are, and so does a picture without transparent ones, or with no others. Needs
    about as much memory again as the picture has.
    """
    if not picture.layout.alpha:
        return picture
    hidden = picture.pixels[..., -1] == 0
    if not hidden.any() or hidden.all():
        return picture
    pixels = picture.pixels.copy()
    around = _filled_means(_halved_pixels(picture.pixels))
    for start in range(0, len(pixels), _ROWS):
        rows = slice(start, start + _ROWS)
        squares = around[start // 2 : (start + _ROWS) // 2, :, :-1].repeat(2, 0).repeat(2, 1)
        height, width = pixels[rows].shape[:2]
        pixels[rows][hidden[rows], :-1] = np.rint(squares[:height, :width][hidden[rows]]).astype(pixels.dtype)
    return replace(picture, pixels=pixels)


def _halved_pixels(pixels: Pixels) -> Means:
    """Means of squares of 2×2 pixels."""
    peak = np.float32(np.iinfo(pixels.dtype).max)
    parts: list[Means] = []
    for start in range(0, len(pixels), _ROWS):
        means = pixels[start : start + _ROWS].astype(np.float32)
        means[..., -1] /= peak
        parts.append(_halved(means))
    return np.concatenate(parts)


def _halved(means: Means) -> Means:
    """Means of squares of 2×2; a row or column that is alone counts as one of two, the other invisible."""
    height, width, channels = means.shape
    even = np.zeros((height + height % 2, width + width % 2, channels), np.float32)
    even[:height, :width] = means
    even[..., :-1] *= even[..., -1:]
    sums = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, channels).sum((1, 3))
    sums[..., :-1] /= np.where(sums[..., -1:] > 0, sums[..., -1:], 1)
    sums[..., -1] /= 4
    return sums


def _filled_means(means: Means) -> Means:
    """The same, with the colour of what is visible near it where nothing is visible."""
    hidden = means[..., -1] == 0
    if not hidden.any():
        return means
    around = _filled_means(_halved(means)).repeat(2, 0).repeat(2, 1)[: means.shape[0], : means.shape[1]]
    means[hidden, :-1] = around[hidden, :-1]
    return means
