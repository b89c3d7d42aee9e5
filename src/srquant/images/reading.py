"""Reading image files: PNG, JPEG, WebP, TIFF and BMP, gray, colour, palette, with or without alpha, 8 or 16 bits."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from srquant.images.picture import Layout, Picture, Pixels
from srquant.support.errors import ImageError, SrquantError
from srquant.support.files import PICTURES, is_file, is_folder

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_EXIF_FORMATS = ("JPEG", "PNG", "WEBP")
"""Formats in which EXIF is a block of its own; in TIFF its entries describe the file itself."""
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p.swapaxes(0, 1)[::-1],
}
"""What to do to the stored pixels for each EXIF orientation."""


def read_picture(path: Path) -> Picture:
    """Read an image file; of an animation, the first frame.

    Raises:
        ImageError: The file is missing, empty, truncated, no image, of a kind that is not supported, or larger than
            any sensible picture.
    """
    with _opened(path) as image:
        deep = _is_deep(image) and not image.mode.startswith("I")
        exif = image.getexif()
        turn = _TURNS.get(exif.pop(_ORIENTATION, 1))
        pixels = _read_deep(path, image.format) if deep else _pixels(image, path)
        layout = Layout(
            gray=pixels.shape[-1] < 3,
            alpha=pixels.shape[-1] % 2 == 0,
            depth=16 if pixels.dtype == np.uint16 else 8,
            icc_profile=None if image.mode == "CMYK" else image.info.get("icc_profile"),
            exif=exif.tobytes() if len(exif) and image.format in _EXIF_FORMATS else None,
        )
    return Picture(np.ascontiguousarray(turn(pixels) if turn else pixels), layout)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width the right way up, from the header alone."""
    with _opened(path) as image:
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def list_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """The image files in a folder, sorted by path; hidden files are passed over.

    Raises:
        ImageError: The folder does not exist.
    """
    if not is_folder(folder):
        raise ImageError(f"{folder} is not a folder")
    try:
        paths = [p for p in (folder.rglob("*") if recursive else folder.iterdir()) if p.suffix.lower() in PICTURES]
    except OSError as error:
        raise ImageError(f"{folder} cannot be read: {error.strerror or error}") from error
    return sorted(p for p in paths if not p.name.startswith(".") and is_file(p))


@contextlib.contextmanager
def _opened(path: Path) -> Generator[Image.Image]:
    if not is_file(path):
        raise ImageError(f"{path} is {'a folder, not an image' if is_folder(path) else 'not there'}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; neither is the user's
            with Image.open(path) as image:
                yield image
    except UnidentifiedImageError as error:
        kind = "empty" if path.stat().st_size == 0 else f"not an image ({', '.join(PICTURES)} are read)"
        raise ImageError(f"{path} is {kind}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path} claims more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; cut it first"
        ) from error
    except (SrquantError, MemoryError):
        raise
    except Exception as error:
        # The libraries raise whatever Python raises on damaged files.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ImageError(f"{path} cannot be read; it may be damaged or cut short: {reason}") from error


def _is_deep(image: Image.Image) -> bool:
    """Whether it has 16 bits a channel; to be asked before the pixels are loaded, which forgets how they are stored."""
    if image.format == "TIFF":
        bits = cast(Any, image).tag_v2.get(_BITS_PER_SAMPLE, ())
        return 16 in (bits if isinstance(bits, tuple) else (bits,))
    return "16" in str([tile[3] for tile in getattr(image, "tile", ())])


def _pixels(image: Image.Image, path: Path) -> Pixels:
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ImageError(f"{path} has gray values from {wide.min()} to {wide.max()}; 0 to 65535 can be read")
        return wide.astype(np.uint16)[..., None]
    if image.mode == "F":
        raise ImageError(f"{path} stores floating-point pixels; save it with 8 or 16 bits a channel")
    transparent = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    gray = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if transparent else "L") if gray else ("RGBA" if transparent else "RGB")
    pixels = np.asarray(image.convert(mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _read_deep(path: Path, kind: str | None) -> Pixels:
    """16 bits a channel in several channels, which Pillow would cut to 8."""
    if kind == "PNG":
        import png

        try:
            width, height, rows, info = cast(Any, png.Reader(filename=str(path))).asDirect()
            return np.vstack([np.asarray(row, np.uint16) for row in rows]).reshape(height, width, info["planes"])
        except png.Error as error:
            raise ImageError(f"{path} cannot be read; it may be damaged or cut short: {error}") from error
    if kind == "TIFF":
        import tifffile

        try:
            with tifffile.TiffFile(path) as file:
                page = cast(Any, file.pages[0])
                pixels, axes = page.asarray(), page.axes
        except (tifffile.TiffFileError, ValueError, KeyError) as error:
            raise ImageError(f"{path} is a 16-bit TIFF in a compression that cannot be read: {error}") from error
        if axes == "SYX":  # a plane for each channel
            pixels, axes = np.moveaxis(pixels, 0, -1), "YXS"
        elif axes == "YX":
            pixels, axes = pixels[..., None], "YXS"
        if pixels.dtype != np.uint16 or axes != "YXS" or not 1 <= pixels.shape[-1] <= 4:
            raise ImageError(
                f"{path} stores {pixels.dtype} of shape {'x'.join(map(str, pixels.shape))}; of TIFFs with 16 bits a "
                f"channel, unsigned ones with 1 to 4 channels can be read"
            )
        return pixels
    raise ImageError(f"{path} has 16 bits a channel; that is read from PNG and TIFF only")
