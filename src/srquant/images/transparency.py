"""The colour of transparent pixels.

A network sees neighbours. What stands under alpha 0, black in most files, would reach into the visible edge as a dark
halo. Transparent pixels therefore get the colour of what is visible around them: colours are averaged, weighted by
alpha, over squares of 2, 4, 8 … pixels, and each transparent pixel takes the average of the smallest square that shows
anything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srquant.images.picture import Picture

_ROWS = 256
"""Rows that are computed at once; even, for whole squares."""

Means = NDArray[np.float32]
"""``h w c+1``: the mean colour of a square, and how visible it is, 0 … 1; the colour of what is invisible is 0."""


def filled(picture: Picture) -> Picture:
    """A picture whose transparent pixels have the colour of what is visible near them.

    Visible pixels and alpha stay as they are, and so does a picture without transparent ones, or with no others. Needs
    two to three times the memory of the picture besides it.
    """
    if not picture.layout.alpha or picture.pixels[..., -1].all() or not picture.pixels[..., -1].any():
        return picture
    pixels = picture.pixels.copy()
    _fill(pixels, _filled_means(_halved(pixels, picture.layout.peak)))
    return replace(picture, pixels=pixels)


def _filled_means(means: Means) -> Means:
    """The same array; where nothing is visible, it now has the colour of what is visible near there."""
    if not means[..., -1].all():
        _fill(means, _filled_means(_halved(means, 1)))
    return means


def _fill(values: NDArray[Any], around: Means) -> None:
    """Give what is invisible among ``h w c+1`` the colour of the squares of 2×2 it lies in, in place."""
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS]
        rows, columns = np.nonzero(part[..., -1] == 0)
        colours = around[(rows + start) // 2, columns // 2, :-1]
        part[rows, columns, :-1] = np.rint(colours) if values.dtype.kind == "u" else colours


def _halved(values: NDArray[Any], peak: int) -> Means:
    """Means of squares of 2×2, of colours weighted by alpha; beyond an odd edge nothing is visible.

    Args:
        values: ``h w c+1``.
        peak: Alpha of what is wholly visible.
    """
    height, width, channels = values.shape
    means = np.empty((-(-height // 2), -(-width // 2), channels), np.float32)
    for start in range(0, height, _ROWS):
        part = values[start : start + _ROWS]
        even = np.zeros((len(part) + len(part) % 2, 2 * means.shape[1], channels), np.float32)
        even[: len(part), :width] = part
        even[..., -1] /= peak
        even[..., :-1] *= even[..., -1:]
        sums = even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2]
        sums[..., :-1] /= np.where(sums[..., -1:] > 0, sums[..., -1:], 1)
        sums[..., -1] /= 4
        means[start // 2 : (start + _ROWS) // 2] = sums
    return means
