"""Reading TIFF and BigTIFF, page by page."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from srquant.images.formats import exif
from srquant.images.formats.opened import PictureFile, require_sensible, upright, upright_size
from srquant.images.formats.tiff_samples import SEPARATED, YCBCR, Meaning, Samples, to_pixels
from srquant.images.metadata import Metadata, sensible_resolution, upright_xmp
from srquant.images.picture import Picture
from srquant.support.errors import ImageError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 274
_PROFILE, _XMP, _INK_SET, _SUBSAMPLING, _COEFFICIENTS, _BLACK_AND_WHITE = 34675, 700, 332, 530, 529, 532
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = 282, 283, 296
_BITS, _SAMPLE_FORMAT, _EXTRAS = 258, 339, 338
_NOT_CARRIED = {"IPTC": (33723,), "Photoshop's data": (34377,), "geographic tags": (33550, 33922, 34264, 34735)}
"""Tags that describe the picture and are not kept."""
_DOTS_AN_INCH = {2: 1.0, 3: 2.54}
_NOT_COMPRESSED, _OLD_JPEG, _JPEG = 1, 6, 7


def open_tiff(path: Path, stack: ExitStack) -> PictureFile:
    """Open a TIFF. Its pages are those of full size; previews and masks of others are not among them.

    Args:
        path: The file.
        stack: Closes what is opened.
    """
    import tifffile

    try:
        file = stack.enter_context(tifffile.TiffFile(path))
    except tifffile.TiffFileError as error:
        raise ImageError(f"{path} cannot be read; it may be damaged or cut short: {error}") from error
    found = [cast(Any, page) for page in file.pages]
    pages = [page for page in found if not (page.is_reduced or page.is_mask)] or found[:1]
    if not pages:
        raise ImageError(f"{path} cannot be read; it may be damaged or cut short: it has no page")
    lost = ("previews and masks",) if len(pages) < len(found) else ()
    for page in pages:
        require_sensible(path, page.imagelength, page.imagewidth)
        if page.is_tiled:
            require_sensible(path, page.tilelength, page.tilewidth)

    def read(number: int) -> Picture:
        page = pages[number]
        meaning = _meaning(page, path)
        pixels, layout, left_out = to_pixels(_samples(page, path, meaning), meaning, path)
        told, unread = _metadata(page, file, meaning)
        return Picture(upright(pixels, _orientation(page)), layout, told, left_out=(*left_out, *unread, *lost))

    size = upright_size(pages[0].imagelength, pages[0].imagewidth, _orientation(pages[0]))
    return PictureFile(path, size, read, len(pages), "page")


def _tag(page: Any, code: int, default: Any) -> Any:
    found = page.tags.get(code)
    return default if found is None else found.value


def _orientation(page: Any) -> int:
    value = _tag(page, _ORIENTATION, 1)
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def _meaning(page: Any, path: Path) -> Meaning:
    bits = set(np.atleast_1d(_tag(page, _BITS, 1)).tolist())
    formats = set(np.atleast_1d(_tag(page, _SAMPLE_FORMAT, 1)).tolist())
    if len(bits) > 1 or len(formats) > 1 or page.imagedepth > 1:
        what = "a volume" if page.imagedepth > 1 else "channels of several depths"
        raise ImageError(f"{path} stores {what}; pictures with one depth of all channels are read: save it as one")
    meaning = Meaning(
        photometric=int(page.photometric),
        bits=bits.pop(),
        sample_format=int(formats.pop()),
        channels=page.samplesperpixel,
        extras=tuple(int(kind) for kind in page.extrasamples) if _EXTRAS in page.tags else None,
        ink_set=int(_tag(page, _INK_SET, 1)),
        palette=page.colormap,
    )
    meaning.require_known(path)
    return meaning if meaning.photometric != YCBCR else _without_ycbcr(page, path, meaning)


def _without_ycbcr(page: Any, path: Path, meaning: Meaning) -> Meaning:
    """JPEG decodes to RGB; what else stores YCbCr is read at full resolution only."""
    if page.compression in (_OLD_JPEG, _JPEG):
        return replace(meaning, photometric=2)
    whole = page.imagewidth * page.imagelength * meaning.channels
    full = page.compression == _NOT_COMPRESSED and meaning.bits == 8 and sum(page.databytecounts) == whole
    if tuple(_tag(page, _SUBSAMPLING, (1, 1) if full else (2, 2))) != (1, 1):
        raise ImageError(f"{path} stores YCbCr with fewer pixels of colour than of light; save it as RGB, or as JPEG")
    page.subsampling = (1, 1)
    return replace(
        meaning,
        coefficients=_ratios(_tag(page, _COEFFICIENTS, None)) or meaning.coefficients,
        black_and_white=_ratios(_tag(page, _BLACK_AND_WHITE, None)) or meaning.black_and_white,
    )


def _samples(page: Any, path: Path, meaning: Meaning) -> Samples:
    """``h w channels``, whatever the planes, strips or tiles."""
    end = page.parent.filehandle.size
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    complete = len(segments) == math.prod(page.chunked)
    if not complete or any(not 0 < start < start + count <= end for start, count in segments):
        raise ImageError(f"{path} cannot be read; it may be damaged or cut short: pixels are missing")
    stored = page.asarray(squeeze=False)
    planes, depth, height, width, channels = page.shaped
    samples = np.asarray(stored).reshape(planes, height, width, channels) if depth == 1 else stored
    assert samples.ndim == 4, samples.shape
    samples = samples.transpose(1, 2, 0, 3).reshape(height, width, planes * channels)
    assert samples.shape == (page.imagelength, page.imagewidth, meaning.channels), samples.shape
    return samples.astype(np.uint8) if samples.dtype == np.bool_ else samples


def _metadata(page: Any, file: Any, meaning: Meaning) -> tuple[Metadata, tuple[str, ...]]:
    if file.is_bigtiff and file.byteorder == ">":  # which Pillow's reader of tags does not know
        block, damaged = None, ("EXIF",) if any(code in page.tags for code in exif.INNER) else ()
    else:
        _, block, _, damaged = exif.of_tiff(file.filehandle, file.byteorder, file.is_bigtiff, page.offset)
    profile = _tag(page, _PROFILE, None)
    inks = meaning.photometric == SEPARATED and profile is not None
    told = Metadata(
        icc_profile=bytes(profile) if profile is not None and not inks else None,
        exif=block,
        xmp=upright_xmp(_tag(page, _XMP, None)),
        resolution=_resolution(page),
    )
    found = [what for what, codes in _NOT_CARRIED.items() if any(code in page.tags for code in codes)]
    return told, (*found, *damaged, *(("the profile of its inks",) if inks else ()))


def _resolution(page: Any) -> tuple[float, float] | None:
    unit = _DOTS_AN_INCH.get(int(_tag(page, _UNIT, 2)))
    across, down = (_ratios(_tag(page, code, None)) for code in (_X_RESOLUTION, _Y_RESOLUTION))
    return sensible_resolution(across[0] * unit, down[0] * unit) if unit and across and down else None


def _ratios(value: Any) -> Any:
    """Of numerators and denominators in a row; None if there are none or one cannot be divided by."""
    if value is None or len(value) % 2 or 0 in value[1::2]:
        return None
    return tuple(above / below for above, below in zip(value[::2], value[1::2], strict=True))
