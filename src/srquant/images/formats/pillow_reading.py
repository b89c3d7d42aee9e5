"""Reading what Pillow reads: JPEG, WebP, GIF, BMP and others of 8 bits a channel, and every kind of animation."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from srquant.images.formats import exif
from srquant.images.formats.opened import PictureFile, require_sensible, upright, upright_size
from srquant.images.metadata import COMMENT, Metadata, sensible_resolution, upright_xmp
from srquant.images.picture import Layout, Picture, Pixels
from srquant.support.errors import ImageError

_GRAY = ("1", "L", "LA", "La")
_READ = "PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, PPM, TGA and QOI"
_IPTC = 0x0404
"""Number of that block among those of Photoshop."""
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")


def open_pillow(path: Path, stack: ExitStack, told: Metadata | None = None) -> PictureFile:
    """Open a file by Pillow.

    Args:
        path: The file.
        stack: Closes what is opened.
        told: What the file says besides pixels, where the caller knows better.
    """
    try:
        image = stack.enter_context(Image.open(path))
    except UnidentifiedImageError as error:
        kind = "empty" if path.stat().st_size == 0 else f"not an image ({_READ} are read)"
        raise ImageError(f"{path} is {kind}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path} claims more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; cut it first"
        ) from error
    require_sensible(path, image.height, image.width)
    _refuse_deep(image, path)
    orientation, own, damaged = _metadata(image)
    told = told or own
    start = int(getattr(image, "default_image", False))  # which an animated PNG shows where animations are not known
    count = getattr(image, "n_frames", 1) - start
    if image.format == "MPO" or count < 2:
        return _still(image, path, orientation, told, (*damaged, *(("further pictures",) if count > 1 else ())))
    return _animation(image, path, range(start, start + count), orientation, told, damaged)


def _still(image: Image.Image, path: Path, orientation: int, told: Metadata, lost: tuple[str, ...]) -> PictureFile:
    def read(_: int) -> Picture:
        pixels = _pixels(image, path)
        return Picture(upright(pixels, orientation), Layout.of(pixels), told, left_out=lost)

    return PictureFile(path, upright_size(image.height, image.width, orientation), read)


def _animation(
    image: Image.Image, path: Path, numbers: range, orientation: int, told: Metadata, lost: tuple[str, ...]
) -> PictureFile:
    """All frames have one layout, colour with alpha where any has alpha."""
    transparent = image.mode in _TRANSPARENT or (image.format == "GIF" and _is_transparent(image, numbers))
    mode, layout = "RGBA" if transparent else "RGB", Layout(alpha=transparent)

    def read(number: int) -> Picture:
        image.seek(numbers[number])
        pixels = upright(np.array(image.convert(mode)), orientation)
        return Picture(pixels, layout, told, float(image.info.get("duration", 0)), lost)

    size, loop = upright_size(image.height, image.width, orientation), int(image.info.get("loop", 1))
    return PictureFile(path, size, read, len(numbers), "frame", loop)


def _is_transparent(image: Image.Image, numbers: range) -> bool:
    """Whether any frame of a GIF has a transparent pixel."""
    for number in numbers:
        image.seek(number)
        if np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            return True
    return False


def _refuse_deep(image: Image.Image, path: Path) -> None:
    """Refuse what Pillow would cut to 8 bits."""
    if image.mode == "F":
        raise ImageError(f"{path} stores floating-point pixels; save it with 8 or 16 bits a channel")
    if not image.mode.startswith("I") and _is_deep(image, path):
        raise ImageError(f"{path} has more than 8 bits a channel; that is read from PNG and TIFF only")


def _is_deep(image: Image.Image, path: Path) -> bool:
    if image.format == "PPM":
        tiles = cast(Any, image).tile
        arguments: Any = tiles[0].args if tiles else ()  # the mode, or the mode and the largest value
        return isinstance(arguments, tuple) and cast(Any, arguments)[-1] > 255
    if image.format in ("JPEG2000", "AVIF"):
        import imagecodecs

        decode = imagecodecs.jpeg2k_decode if image.format == "JPEG2000" else imagecodecs.avif_decode
        return decode(path.read_bytes()).dtype != np.uint8
    return False


def _pixels(image: Image.Image, path: Path) -> Pixels:
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ImageError(f"{path} has gray values from {wide.min()} to {wide.max()}; 0 to 65535 can be read")
        return wide.astype(np.uint16)[..., None]
    transparent = "transparency" in image.info or image.mode in _TRANSPARENT
    gray = image.mode in _GRAY
    pixels = np.array(image.convert(("LA" if transparent else "L") if gray else ("RGBA" if transparent else "RGB")))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _metadata(image: Image.Image) -> tuple[int, Metadata, tuple[str, ...]]:
    info = image.info
    orientation, block, inner, damaged = exif.of_bytes(info.get("exif"))
    # Where a JPEG does not say its density, Pillow says 72.
    density = info.get("dpi") if image.format not in ("JPEG", "MPO") or info.get("jfif_unit") else None
    comment: Any = info.get("comment")
    text = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else comment
    told = Metadata(
        icc_profile=None if image.mode == "CMYK" else info.get("icc_profile") or None,
        exif=block,
        xmp=upright_xmp(info.get("xmp")),
        resolution=(sensible_resolution(float(density[0]), float(density[1])) if density else None) or inner,
        texts=((COMMENT, text.replace("\0", "")),) if text else (),
    )
    lost = {
        "the profile of its inks": image.mode == "CMYK" and info.get("icc_profile"),
        "IPTC": _IPTC in (info.get("photoshop") or {}),
    }
    return orientation, told, (*damaged, *(what for what, there in lost.items() if there))
