"""What the samples of a TIFF page mean: from the numbers that are stored to gray or RGB, and alpha, of 8 or 16 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srquant.images.picture import Layout, Pixels
from srquant.support.errors import ImageError

Samples = NDArray[Any]
"""``h w channels``, as they are stored."""

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, SEPARATED, YCBCR = range(7)
_REFUSED = {
    MASK: "a transparency mask",
    8: "CIE L*a*b* colours",
    9: "ICC L*a*b* colours",
    10: "ITU L*a*b* colours",
    32803: "the raw values of a camera's sensor",
    32844: "logarithmic luminance",
    32845: "logarithmic luminance and chroma",
    34892: "the raw values of a camera's sensor",
    51177: "a depth map",
}
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3}
"""Samples of a pixel before the extra ones."""
_ASSOCIATED, _UNASSOCIATED = 1, 2
_UNSIGNED, _FLOAT, _UNDEFINED = 1, 3, 4
_FORMATS = {2: "signed integers", 5: "complex integers", 6: "complex numbers"}

_WIDE = np.uint32
"""Holds a product of two samples of 16 bits, and the half of one that is added for rounding."""


@dataclass(frozen=True)
class Meaning:
    """What the tags of a page say of its samples.

    Args:
        photometric: Number of the photometric interpretation.
        bits: Of a sample.
        sample_format: Number of the kind of number.
        channels: Samples of a pixel.
        extras: Kinds of the samples after the colours; None where the file does not say.
        ink_set: 1 for CMYK.
        palette: ``3 2^bits``, uint16.
        coefficients: Of red, green and blue in Y.
        black_and_white: Values of black and white of Y, Cb and Cr.
    """

    photometric: int
    bits: int
    sample_format: int
    channels: int
    extras: tuple[int, ...] | None
    ink_set: int = 1
    palette: NDArray[np.uint16] | None = None
    coefficients: tuple[float, float, float] = (0.299, 0.587, 0.114)
    black_and_white: tuple[float, ...] = (0, 255, 128, 255, 128, 255)

    def require_known(self, path: object) -> None:
        """Check that :func:`to_pixels` knows what to do.

        Raises:
            ImageError: It does not; the message says what the file stores.
        """
        stored = self._unknown()
        if stored is not None:
            raise ImageError(
                f"{path} stores {stored}; gray, RGB, palette, CMYK and YCbCr are read from TIFF, with samples of 1 to "
                f"16 bits or floating-point numbers from 0 to 1: save it as one of these"
            )

    def _unknown(self) -> str | None:
        colours = _COLOURS.get(self.photometric)
        if colours is None:
            return _REFUSED.get(self.photometric, f"colours of kind {self.photometric}")
        if self.photometric == SEPARATED and self.ink_set != 1:
            return "inks other than cyan, magenta, yellow and black"
        if self.channels < colours:
            return f"{self.channels} samples a pixel where its colours need {colours}"
        if self.sample_format in _FORMATS:
            return _FORMATS[self.sample_format]
        if self.sample_format == _FLOAT:
            return "a palette of floating-point numbers" if self.photometric == PALETTE else None
        if self.sample_format not in (_UNSIGNED, _UNDEFINED):
            return f"numbers of kind {self.sample_format}"
        if not 1 <= self.bits <= 16:
            return f"integers of {self.bits} bits"
        if self.photometric == PALETTE and (self.palette is None or self.palette.shape != (3, 1 << self.bits)):
            return "a palette that does not fit its samples"
        return None


def to_pixels(samples: Samples, meaning: Meaning, path: object) -> tuple[Pixels, Layout, tuple[str, ...]]:
    """Pixels, their layout, and what they do not show, in words.

    Args:
        samples: As they are stored, without a palette applied.
        meaning: What they mean.
        path: For messages.

    Raises:
        ImageError: Floating-point samples lie outside [0, 1].
    """
    colours = _COLOURS[meaning.photometric]
    extras = meaning.extras
    if extras is None:  # nobody says what a fourth sample is; every program takes it for alpha
        extras = (_UNASSOCIATED,) if samples.shape[-1] == colours + 1 else ()
    kinds = [kind for kind in extras[: samples.shape[-1] - colours] if kind in (_ASSOCIATED, _UNASSOCIATED)]
    alpha_at = colours + extras.index(kinds[0]) if kinds else None
    further = samples.shape[-1] - colours - (alpha_at is not None)
    left_out = (f"{further} further channel{'s' if further > 1 else ''}",) if further else ()
    if meaning.photometric == PALETTE:
        colour = _looked_up(samples[..., 0], meaning.palette)
        alpha = None if alpha_at is None else _scaled(samples[..., alpha_at], meaning, path)
        alpha = None if alpha is None else _as_deep(alpha, colour.dtype)
    else:
        colour = _scaled(samples[..., :colours], meaning, path)
        alpha = None if alpha_at is None else _scaled(samples[..., alpha_at], meaning, path)
    associated = alpha is not None and kinds[0] == _ASSOCIATED
    if associated and alpha is not None:
        colour = divided_by_alpha(colour, alpha)
    colour = _to_rgb(colour, meaning)
    pixels = colour if alpha is None else np.concatenate((colour, alpha[..., None]), axis=-1)
    depth = 16 if pixels.dtype == np.uint16 else 8
    return pixels, Layout(colour.shape[-1] == 1, alpha is not None, depth, associated), left_out


def divided_by_alpha(colour: Pixels, alpha: Pixels) -> Pixels:
    """Colours that were multiplied by alpha, without it; black where alpha is 0.

    Args:
        colour: ``h w c``.
        alpha: ``h w``.
    """
    peak = np.iinfo(colour.dtype).max
    divisor = np.maximum(alpha, 1).astype(_WIDE)
    result = np.empty_like(colour)
    for channel in range(colour.shape[-1]):  # one at a time, for memory
        wide = colour[..., channel].astype(_WIDE) * peak + divisor // 2
        result[..., channel] = np.minimum(wide // divisor, peak) * (alpha > 0)
    return result


def multiplied_by_alpha(pixels: Pixels) -> Pixels:
    """Colours multiplied by the alpha that follows them, as files with associated alpha store them: ``h w c``."""
    peak = np.iinfo(pixels.dtype).max
    result, alpha = pixels.copy(), pixels[..., -1].astype(_WIDE)
    for channel in range(pixels.shape[-1] - 1):
        result[..., channel] = (pixels[..., channel] * alpha + peak // 2) // peak
    return result


def _scaled(values: Samples, meaning: Meaning, path: object) -> Pixels:
    """Samples on the whole range of 8 bits, or of 16 where they have more than 8."""
    if meaning.sample_format == _FLOAT:
        lowest, highest = float(values.min()), float(values.max())
        if not (lowest >= 0 and highest <= 1):
            raise ImageError(
                f"{path} has floating-point values from {lowest:.4g} to {highest:.4g}; 0 (black) to 1 (white) can be "
                f"read: scale them, or save it with 16 bits a channel"
            )
        return np.rint(values.astype(np.float64) * 65535).astype(np.uint16)
    peak, wanted = (1 << meaning.bits) - 1, np.uint8 if meaning.bits <= 8 else np.uint16
    if peak == np.iinfo(wanted).max:
        return values.astype(wanted, copy=False)
    return ((values.astype(np.uint32) * np.iinfo(wanted).max + peak // 2) // peak).astype(wanted)


def _as_deep(alpha: Pixels, dtype: Any) -> Pixels:
    if alpha.dtype == dtype:
        return alpha
    return alpha.astype(np.uint16) * np.uint16(257) if dtype == np.uint16 else (alpha >> 8).astype(np.uint8)


def _looked_up(indices: Samples, palette: NDArray[np.uint16] | None) -> Pixels:
    """Colours of a palette; 8 bits where its 16 say no more than that."""
    assert palette is not None
    table = palette.T
    shallow = bool(((table & 255 == 0) | (table >> 8 == table & 255)).all())
    return ((table >> 8).astype(np.uint8) if shallow else table)[indices]


def _to_rgb(colour: Pixels, meaning: Meaning) -> Pixels:
    peak = np.iinfo(colour.dtype).max
    if meaning.photometric == WHITE_IS_ZERO:
        return peak - colour
    if meaning.photometric == SEPARATED:
        light, rgb = (peak - colour[..., 3]).astype(_WIDE), np.empty_like(colour[..., :3])
        for channel in range(3):
            rgb[..., channel] = light - (colour[..., channel] * light + peak // 2) // peak
        return rgb
    return _from_ycbcr(colour, meaning) if meaning.photometric == YCBCR else colour


def _from_ycbcr(colour: Pixels, meaning: Meaning) -> Pixels:
    """By the formulas of TIFF 6.0, section 21."""
    peak = np.iinfo(colour.dtype).max
    edges = np.array(meaning.black_and_white, np.float32).reshape(3, 2) * (peak / 255)
    y, blue, red = (
        (colour[..., i] - edges[i, 0]) * ((peak if i == 0 else peak * 127 / 255) / (edges[i, 1] - edges[i, 0]))
        for i in range(3)
    )
    of_red, of_green, of_blue = meaning.coefficients
    r = y + red * (2 - 2 * of_red)
    b = y + blue * (2 - 2 * of_blue)
    g = (y - of_red * r - of_blue * b) / of_green
    return np.rint(np.stack((r, g, b), -1).clip(0, peak)).astype(colour.dtype)
