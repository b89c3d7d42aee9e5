"""Writing TIFF, strip by strip and page by page."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from srquant.images.bands import Banded
from srquant.images.formats import exif
from srquant.images.formats.tiff_samples import multiplied_by_alpha
from srquant.images.metadata import Metadata

_STRIP = 1 << 20
"""Bytes of a strip before compression, about."""
_LARGEST = 3_900_000_000
"""Bytes from which the file is a BigTIFF: offsets in a TIFF have 32 bits."""
_SOFTWARE, _XMP, _INTEROPERABILITY = 305, 700, 0xA005
_BYTES, _TEXT = 1, 2


def write_tiff(path: Path, pictures: Iterator[Banded], count: int) -> None:
    """Write one picture or more, each a page.

    Args:
        path: Where to write.
        pictures: What to write, of any sizes and layouts.
        count: How many they are; of the size of the first, to choose TIFF or BigTIFF.
    """
    import tifffile

    first = next(pictures)
    big = count * first.height * first.width * first.layout.channels * first.layout.depth // 8 > _LARGEST
    blocks = [first.metadata.exif]
    with tifffile.TiffWriter(path, bigtiff=big, byteorder="<") as file:
        _write_page(file, first, big)
        for picture in pictures:
            _write_page(file, picture, big)
            blocks.append(picture.metadata.exif)
    if any(blocks):
        _append_exif(path, blocks, big)


def _write_page(file: Any, picture: Banded, big: bool) -> None:
    layout = picture.layout
    rows = min(picture.height, max(1, _STRIP // (picture.width * layout.channels * layout.depth // 8)))
    several = layout.channels > 1
    alpha = "assocalpha" if layout.associated else "unassalpha"
    file.write(
        _strips(picture, rows),
        shape=(picture.height, picture.width, layout.channels) if several else (picture.height, picture.width),
        dtype=layout.dtype,
        photometric="minisblack" if layout.gray else "rgb",
        planarconfig="contig" if several else None,
        extrasamples=(alpha,) if layout.alpha else (),
        rowsperstrip=rows,
        compression="zlib",
        iccprofile=picture.metadata.icc_profile,
        resolution=picture.metadata.resolution,
        resolutionunit="INCH" if picture.metadata.resolution else None,
        extratags=_tags(picture.metadata, big),
        software=_describing(picture.metadata).get(_SOFTWARE, b""),
        metadata=None,
        contiguous=False,
    )


def _strips(picture: Banded, rows: int) -> Iterator[bytes]:
    for band in picture.cut(rows):
        yield zlib.compress((multiplied_by_alpha(band) if picture.layout.associated else band).tobytes())


def _tags(told: Metadata, big: bool) -> list[tuple[int, int | str, int, Any, bool]]:
    """XMP, what describes the picture, and a place for each pointer to a block of EXIF.

    The library writes no such pointers. Their places have the number before, which nothing else uses, and
    :func:`_append_exif` fills them.
    """
    tags: list[tuple[int, int | str, int, Any, bool]] = []
    if told.xmp:
        tags.append((_XMP, _BYTES, len(told.xmp), told.xmp, True))
    if told.exif:
        block = exif.parsed(told.exif)
        for tag, text in _describing(told).items():
            if tag != _SOFTWARE:  # which the library writes itself
                tags.append((tag, _TEXT, len(text) + 1, text + b"\0", True))
        tags.extend((tag - 1, "Q" if big else "I", 1, 0, True) for tag in exif.INNER if block.get_ifd(tag))
    return tags


def _describing(told: Metadata) -> dict[int, bytes]:
    """Texts of the tags that describe the picture."""
    if not told.exif:
        return {}
    block = exif.parsed(told.exif)
    return {tag: text.encode() for tag in exif.DESCRIBING if isinstance(text := block.get(tag), str) and text}


def _append_exif(path: Path, blocks: list[bytes | None], big: bool) -> None:
    """Write the blocks after the pages, and where they are into the pages."""
    import tifffile

    with tifffile.TiffFile(path) as written:
        pages: list[Any] = list(written.pages)
        places = [
            (n, tag, page.tags[tag - 1]) for n, page in enumerate(pages) for tag in exif.INNER if tag - 1 in page.tags
        ]
        found = [(blocks[n], tag, place.offset, place.valueoffset) for n, tag, place in places]
    header = b"II\x2b\0\x08\0\0\0" + struct.pack("<Q", 8) if big else b"II*\0" + struct.pack("<I", 8)
    with path.open("r+b") as file:
        for block, tag, entry, value in found:
            directory = ImageFileDirectory_v2(header, group=tag)
            for inner, content in exif.parsed(block or b"").get_ifd(tag).items():
                if inner != _INTEROPERABILITY:
                    directory[inner] = content
            end = file.seek(0, 2)
            start = end + end % 2
            file.seek(start)
            file.write(directory.tobytes(start))
            file.seek(entry)
            file.write(struct.pack("<H", tag))
            file.seek(value)
            file.write(struct.pack("<Q" if big else "<I", start))
