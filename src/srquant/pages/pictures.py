"""Pictures of one scene as WebP files, small enough for a page, never at another size."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srquant.analysis import most_different
from srquant.images.metrics import psnr
from srquant.pages.contents import Scene, Shown
from srquant.support.errors import ArgumentError

BUDGET = 6_600_000
"""Bytes of all pictures of a page: written as text they take a third more, and the page stays below 10 MB."""
_REGION = 96
"""Pixels a side that are shown first."""
_QUALITIES = (96, 90)
"""Of lossy WebP, one after the other until the pictures fit; below the last the picture is cropped instead."""
_SMALLEST = 64
"""Pixels a side that are not cropped further."""
_HOPELESS = 3
"""Budgets that all pictures would take if they were as large as the first; the others are not tried then."""
_METHOD = 4
"""How hard the encoder tries, 0 to 6."""

Pixels = NDArray[np.uint8]
"""``h w 3``."""


@dataclass(frozen=True)
class Labelled:
    """A picture and the line beside its title."""

    pixels: Pixels
    note: str = ""


def make_scene(
    name: str, pictures: Mapping[str, Labelled], *, budget: int = BUDGET, start: tuple[str, str] | None = None
) -> Scene:
    """Encode pictures of one scene, all of them in the same way.

    They are kept without loss if that fits; else with a loss that is not seen, which the scene's ``storage`` states in
    dB; else what is shown is cropped around the place where they differ most. They are never resampled.

    Args:
        name: Of the scene.
        pictures: By title, of one size. Where models differ most is what is shown first.
        budget: Bytes that they may take together.
        start: Titles of the two that are shown first; the first and the last if None.

    Raises:
        ArgumentError: There are none, or they differ in size.
    """
    shapes = {labelled.pixels.shape for labelled in pictures.values()}
    if len(shapes) != 1:
        sizes = ", ".join(f"{title} {p.pixels.shape[1]}x{p.pixels.shape[0]}" for title, p in pictures.items())
        raise ArgumentError(f"the pictures of {name} must have one size; got {sizes or 'none'}")
    pixels = {title: labelled.pixels for title, labelled in pictures.items()}
    region = _region(pixels)
    cropped, files, storage = next(_attempts(pixels, region, budget))
    top, left, height, width = cropped
    titles = list(pictures)
    first, second = start or (titles[0], titles[-1])
    return Scene(
        name=name,
        width=width,
        height=height,
        region=(region[1] - left, region[0] - top, region[2]),
        pictures=tuple(Shown(title, pictures[title].note, file) for title, file in zip(titles, files, strict=True)),
        storage=storage,
        left=titles.index(first),
        right=titles.index(second),
    )


def _region(pixels: Mapping[str, Pixels]) -> tuple[int, int, int]:
    """Top, left and size of what is shown first."""
    height, width = next(iter(pixels.values())).shape[:2]
    size = min(_REGION, height, width)
    if len(pixels) < 2:
        return (height - size) // 2, (width - size) // 2, size
    return (*most_different([*pixels.values()], size), size)


def _attempts(
    pixels: Mapping[str, Pixels], region: tuple[int, int, int], budget: int
) -> Iterator[tuple[tuple[int, int, int, int], list[bytes], str]]:
    """Ways to store pictures that fit: top, left, height and width of what is kept; the files; and the way in words."""
    whole_height, whole_width = next(iter(pixels.values())).shape[:2]
    part = 1.0
    while True:
        height, width = (max(min(_SMALLEST, whole), int(whole * part)) for whole in (whole_height, whole_width))
        top = _around(region[0] + region[2] // 2, height, whole_height)
        left = _around(region[1] + region[2] // 2, width, whole_width)
        kept = [array[top : top + height, left : left + width] for array in pixels.values()]
        last = height <= _SMALLEST and width <= _SMALLEST
        cut = f"; {width}×{height} of {whole_width}×{whole_height} pixels, where results differ most"
        for quality in (None, *_QUALITIES) if part == 1 else _QUALITIES[:1]:
            files = _encode_all(kept, quality, math.inf if last else budget)
            if files is not None:
                words = "without loss" if quality is None else _describe(kept, files, quality)
                yield (top, left, height, width), files, words + (cut if part < 1 else "")
        part *= 0.8


def _around(centre: int, length: int, whole: int) -> int:
    return min(max(centre - length // 2, 0), whole - length)


def _encode_all(pictures: list[Pixels], quality: int | None, budget: float) -> list[bytes] | None:
    """WebP files; None if they are larger than the budget."""
    files: list[bytes] = []
    for picture in pictures:
        files.append(encode(picture, quality))
        if sum(map(len, files)) > budget or len(files[0]) * len(pictures) > _HOPELESS * budget:
            return None
    return files


def encode(pixels: Pixels, quality: int | None = None) -> bytes:
    """A WebP file.

    Args:
        pixels: uint8, ``h w 3``.
        quality: 0 to 100; None for one without loss.
    """
    file = io.BytesIO()
    kept = {"lossless": True, "exact": True} if quality is None else {"quality": quality}
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "WEBP", method=_METHOD, **kept)
    return file.getvalue()


def _describe(pictures: list[Pixels], files: list[bytes], quality: int) -> str:
    least = min(psnr(decode(file), picture) for file, picture in zip(files, pictures, strict=True))
    return f"WebP of quality {quality}, {least:.1f} dB from the pixels that were scored"


def decode(file: bytes) -> Pixels:
    """The pixels of a WebP file, uint8, ``h w 3``."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
