"""Writing by Pillow: JPEG, WebP, BMP, and PNG where the picture is small."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from srquant.images.bands import Banded
from srquant.images.formats import exif, png_chunks
from srquant.images.formats.png_writing import LEVEL
from srquant.images.formats.table import BMP, JPEG, PNG, WEBP, Format
from srquant.images.metadata import COMMENT, Metadata

_OPTIONS: dict[str, dict[str, Any]] = {
    PNG.name: {"compress_level": LEVEL},
    JPEG.name: {"quality": 95, "subsampling": 0},
    WEBP.name: {"lossless": True, "exact": True},
    BMP.name: {},
}


def write_whole(path: Path, form: Format, picture: Banded) -> None:
    """Write a picture that is gathered in memory first.

    Args:
        path: Where to write.
        form: In which format.
        picture: What to write.
    """
    image = _image(picture)
    _save(image, path, form, **_OPTIONS[form.name], **_told(form, picture.metadata))


def write_animation(path: Path, pictures: Iterator[Banded], count: int, loop: int) -> None:
    """Write a WebP of several frames; one frame is in memory at a time, as the encoder keeps what it compressed.

    Args:
        path: Where to write.
        pictures: Frames of one size and layout; the metadata of the first is written.
        count: How many they are.
        loop: How often it is shown; 0 for without end.
    """
    first = next(pictures)
    durations = [first.duration]
    frames = _Frames(_image(first), pictures, durations, count)
    told = _told(WEBP, first.metadata)
    # The list is read as it grows: a duration is known when its frame comes.
    _save(frames, path, WEBP, save_all=True, lossless=True, duration=durations, loop=loop, **told)


def _save(image: Image.Image, path: Path, form: Format, **options: Any) -> None:
    """Encode in memory, then write: on a full disk the library's own writing of a JPEG ends early without an error."""
    content = io.BytesIO()
    image.save(content, form.name, **options)
    path.write_bytes(content.getbuffer())


class _Frames(Image.Image):
    """An animation as Pillow's writers want it, of which a frame is made when it is asked for."""

    def __init__(self, first: Image.Image, others: Iterator[Banded], durations: list[float], count: int) -> None:
        super().__init__()
        self._others, self._durations, self._at, self.n_frames = others, durations, 0, count
        self._show(first)

    def seek(self, frame: int) -> None:
        """Make the next frame; the writer asks for them in order, and at the end for the first again."""
        if frame > self._at:
            following = next(self._others)
            self._durations.append(following.duration)
            self._at = frame
            self._show(_image(following))

    def tell(self) -> int:
        """0, as the writer asks before the first."""
        return 0

    def _show(self, image: Image.Image) -> None:
        self.im, self._mode, self._size = image.im, image.mode, image.size


def _image(picture: Banded) -> Image.Image:
    pixels = picture.whole()
    return Image.fromarray(pixels[..., 0] if picture.layout.channels == 1 else pixels)


def _told(form: Format, told: Metadata) -> dict[str, Any]:
    """Metadata as Pillow's writers are given it."""
    options: dict[str, Any] = {"icc_profile": told.icc_profile, "exif": told.exif, "dpi": told.resolution}
    if form is PNG:
        chunks = PngImagePlugin.PngInfo()
        own = (b"iCCP", b"eXIf", b"pHYs")
        for kind, content in png_chunks.of_metadata(told):
            if kind not in own:
                chunks.add(kind, content)
        options["pnginfo"] = chunks
    else:
        options["xmp"] = told.xmp
    if form is WEBP:
        options["exif"] = exif.with_resolution(told.exif, told.resolution)
    if form is JPEG:
        options["comment"] = dict(told.texts).get(COMMENT)
    return {name: value for name, value in options.items() if value}
