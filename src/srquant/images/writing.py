"""Writing image files, whole or in bands, so that a picture of any size needs little memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from srquant.images.bands import Banded
from srquant.images.formats.pillow_writing import write_animation, write_whole
from srquant.images.formats.png_writing import write_png
from srquant.images.formats.table import PNG, TIFF, WEBP, Format, Kind, format_of, holders
from srquant.images.formats.tiff_writing import write_tiff
from srquant.images.metadata import Metadata
from srquant.images.picture import Layout, Picture
from srquant.support.errors import ImageError, LossWarning
from srquant.support.files import replacing

_STREAMED_FROM = 48_000_000
"""Pixels from which a PNG is written in bands. Below, Pillow's smaller files are worth the memory."""


def check_output(path: Path, height: int, width: int, layout: Layout) -> Layout:
    """Check before the work that a picture can be stored under this name.

    Returns:
        The layout it will have: 8 bits in formats that have no more, colour for 16-bit gray with transparency in
        TIFF (which few programs read), associated alpha in TIFF alone.

    Raises:
        ImageError: The file type is unknown, too small for the picture, or cannot store transparency.
    """
    form = format_of(path)
    ways = f"use {holders(height=height, width=width, alpha=layout.alpha)} (for a whole folder, --format)"
    if form.largest is not None and max(height, width) > form.largest:
        raise ImageError(
            f"cannot write {path}: {path.suffix} holds at most {form.largest} pixels a side, the picture has "
            f"{width}x{height}; {ways}"
        )
    if layout.alpha and not form.alpha:
        raise ImageError(f"cannot write {path}: {path.suffix} cannot store transparency; {ways}")
    depth = min(form.depth, layout.depth)
    rare = form is TIFF and layout.gray and layout.alpha and depth == 16
    return replace(layout, depth=depth, gray=layout.gray and not rare, associated=layout.associated and form is TIFF)


def several_fit(path: Path, kind: Kind) -> bool:
    """Whether the format holds more than one picture of a kind.

    Raises:
        ImageError: The file type is unknown.
    """
    return kind in format_of(path).several


def write_picture(path: Path | str, picture: Picture) -> None:
    """Write a picture; the name's ending says the format. The file appears only when it is complete.

    What the format cannot hold of the metadata is said by a warning.

    Raises:
        ImageError: See :func:`check_output`; also if the picture has 16 bits and the format only 8.
        OutputError: The file cannot be written.
    """
    path = Path(path)
    layout = check_output(path, *picture.size, picture.layout)
    if layout.depth < picture.layout.depth:
        raise ImageError(
            f"cannot write {path}: {path.suffix} stores {layout.depth} bits a channel, the picture has "
            f"{picture.layout.depth}"
        )
    pixels = picture.pixels if layout.gray == picture.layout.gray else picture.pixels[..., [0, 0, 0, 1]]
    lost = write_pictures(path, [Banded(*picture.size, layout, [pixels], picture.metadata)])
    if lost:
        warnings.warn(f"{path}: {path.suffix} holds no {', '.join(lost)}", LossWarning, stacklevel=2)


def write_pictures(path: Path, pictures: Iterable[Banded], count: int = 1, loop: int = 0) -> tuple[str, ...]:
    """Write pictures that come as bands of rows: one, pages of a TIFF, or frames of an animation.

    TIFF, PNG from 48 million pixels on, of 16-bit colour, or animated, and each frame of a WebP are written while they
    come; other formats need the whole picture in memory.

    Args:
        path: Where to write; the name's ending says the format.
        pictures: What to write. The layout of each must equal what :func:`check_output` returned.
        count: How many they are; more than one only where :func:`several_fit`.
        loop: How often an animation is shown; 0 for without end.

    Returns:
        What the format cannot hold of the metadata, in words.

    Raises:
        ImageError: See :func:`check_output`.
        OutputError: The file cannot be written.
        ValueError: The bands or their layout are not what they should be.
    """
    form = format_of(path)
    if count > 1 and not form.several:
        raise ValueError(f"{count} pictures for {path.suffix}, which holds one")
    lost: dict[str, None] = {}

    def fitting() -> Iterator[Banded]:
        number = 0
        for picture in pictures:
            stored = check_output(path, picture.height, picture.width, picture.layout)
            if stored != picture.layout:
                raise ValueError(f"{path.suffix} stores {stored}, and the picture is {picture.layout}")
            number += 1
            kept, without = _held(form, picture, count)
            lost.update(dict.fromkeys(without))
            yield replace(picture, metadata=kept)
        if number != count:
            raise ValueError(f"{number} pictures, and {count} were announced")

    stream = fitting()
    first = next(stream)
    both = chain([first], stream)
    large = first.height * first.width >= _STREAMED_FROM or (first.layout.depth == 16 and first.layout.channels > 1)
    with replacing(path) as temporary:
        if form is TIFF:
            write_tiff(temporary, both, count)
        elif form is PNG and (count > 1 or large):
            write_png(temporary, both, count, loop)
        elif form is WEBP and count > 1:
            write_animation(temporary, both, count, loop)
        else:
            write_whole(temporary, form, first)
    return tuple(lost)


def _held(form: Format, picture: Banded, count: int) -> tuple[Metadata, list[str]]:
    """The metadata that a format holds of a picture, and what it does not hold, in words."""
    kept, lost = picture.metadata.limited_to(form.metadata, form.longest_block)
    said = list(lost)
    if kept.is_of_gray and not (picture.layout.gray and form.gray):
        kept = replace(kept, icc_profile=None)
        said.append("colour profile of gray")
    if count > 1 and picture.duration and not form.timed:
        said.append("durations of frames")
    return kept, said
