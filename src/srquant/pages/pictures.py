"""Pictures of one scene as WebP files, small enough for a page, never at another size."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srquant.analysis import most_different
from srquant.pages.contents import Scene, Shown
from srquant.support.errors import ArgumentError

Way = Literal["exact", "even"] | int
"""How pixels are stored: as they are; rounded to even values, which need less; or by lossy WebP of a quality, which
halves the resolution of colours. A scene's ``storage`` says which in words."""
BUDGET = 6_600_000
"""Bytes of all pictures of a page: written as text they take a third more, and the page stays below 10 MB."""
_PEAK = 255
_REGION = 96
"""Pixels a side that are shown first."""
_WAYS: tuple[Way, ...] = ("exact", "even", 96, 90)
"""One after the other until the pictures fit; below the last they are cropped instead, and stored in the third."""
_SMALLEST = 64
"""Pixels a side that are not cropped further."""
_HOPELESS = 3
"""Budgets that all pictures would take if they were as large as the first; the others are not tried then."""
_LEAST_BYTES = 0.02
"""Of a pixel, below which hardly any picture comes; larger budgets are not tried in vain."""
_LONGEST = 16_383
"""Pixels a side of the largest WebP."""
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

    They are kept without loss if that fits; else with a loss that is not seen, which the scene's ``storage`` states;
    else what is shown is cropped around the place where they differ most. They are never resampled.

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
    part = min(1.0, _LONGEST / max(whole_height, whole_width))
    while True:
        height, width = (max(min(_SMALLEST, whole), int(whole * part)) for whole in (whole_height, whole_width))
        top = _around(region[0] + region[2] // 2, height, whole_height)
        left = _around(region[1] + region[2] // 2, width, whole_width)
        kept = [array[top : top + height, left : left + width] for array in pixels.values()]
        last = height <= _SMALLEST and width <= _SMALLEST
        cut = f"; {width}×{height} of {whole_width}×{whole_height} pixels, where results differ most"
        hopeless = not last and _LEAST_BYTES * height * width * len(pixels) > budget
        for way in () if hopeless else _WAYS if part == 1 else _WAYS[2:3]:
            files = _encode_all(kept, way, math.inf if last else budget)
            if files is not None:
                words = _describe(kept, files, way)
                yield (top, left, height, width), files, words + (cut if part < 1 else "")
        part *= 0.8


def _around(centre: int, length: int, whole: int) -> int:
    return min(max(centre - length // 2, 0), whole - length)


def _encode_all(pictures: list[Pixels], way: Way, budget: float) -> list[bytes] | None:
    """WebP files; None if they are larger than the budget."""
    files: list[bytes] = []
    for picture in pictures:
        files.append(encode(picture, way))
        if sum(map(len, files)) > budget or len(files[0]) * len(pictures) > _HOPELESS * budget:
            return None
    return files


def encode(pixels: Pixels, way: Way = "exact") -> bytes:
    """A WebP file of uint8 pixels, ``h w 3``."""
    file = io.BytesIO()
    kept: dict[str, Any] = {"quality": way} if isinstance(way, int) else {"lossless": True, "exact": True}
    stored = np.where(pixels == _PEAK, pixels, pixels + pixels % 2) if way == "even" else pixels
    Image.fromarray(np.ascontiguousarray(stored)).save(file, "WEBP", method=_METHOD, **kept)
    return file.getvalue()


def _describe(pictures: list[Pixels], files: list[bytes], way: Way) -> str:
    if way == "exact":
        return "without loss"
    if way == "even":
        return "without loss, red, green and blue rounded to even numbers of 255"
    both = zip(files, pictures, strict=True)
    error = max(float(np.square(decode(file).astype(np.float32) - picture).mean()) for file, picture in both)
    if error == 0:
        return "without loss"
    return f"WebP of quality {way}, {10 * math.log10(_PEAK**2 / error):.1f} dB from the pixels that were scored"


def decode(file: bytes) -> Pixels:
    """The pixels of a WebP file, uint8, ``h w 3``."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
