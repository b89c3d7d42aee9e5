"""PNG files as chunks: what stands in them besides the pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from srquant.images.formats import exif
from srquant.images.metadata import Metadata, sensible_resolution, upright_xmp

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_KNOWN = (b"IHDR", b"acTL", b"eXIf", b"iCCP", b"pHYs", *_TEXTS, *COLOUR)
_XMP, _RAW_EXIF = "XML:com.adobe.xmp", "Raw profile type exif"
_LARGEST_TEXT = 64 << 20
"""Bytes that compressed text or a colour profile may become."""
_INCHES_A_METRE = 1 / 0.0254

Chunk = tuple[bytes, bytes]
"""Type and content."""


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """The chunks that :func:`metadata` and :func:`header` understand; pixels are passed over."""
    file.seek(len(SIGNATURE))
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind in _KNOWN:
            content = file.read(length)
            if len(content) == length:
                yield kind, content
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)
        if kind == b"IEND":
            return


def metadata(found: list[Chunk]) -> tuple[int, Metadata, tuple[str, ...]]:
    """The orientation, what else a file says of itself, and what of that cannot be understood, in words."""
    texts = [text for kind, content in found if (text := _text(kind, content)) is not None]
    named = dict(texts)
    blocks = [content for kind, content in found if kind == b"eXIf"]
    orientation, block, resolution, damaged = exif.of_bytes(blocks[0] if blocks else _raw_profile(named))
    densities = [d for kind, content in found if kind == b"pHYs" and (d := _density(content)) is not None]
    profiles = [p for kind, content in found if kind == b"iCCP" and (p := _profile(content)) is not None]
    unread = {
        "a colour profile that is damaged": not profiles and any(kind == b"iCCP" for kind, _ in found),
        "text that is damaged": len(texts) < sum(kind in _TEXTS for kind, _ in found),
    }
    told = Metadata(
        icc_profile=profiles[0] if profiles else None,
        exif=block,
        xmp=upright_xmp(named.get(_XMP)),
        resolution=densities[0] if densities else resolution,
        texts=tuple(text for text in texts if text[0] not in (_XMP, _RAW_EXIF)),
        colour_chunks=tuple((kind, content) for kind, content in found if kind in COLOUR),
    )
    return orientation, told, (*damaged, *(what for what, there in unread.items() if there))


def of_metadata(told: Metadata) -> list[Chunk]:
    """The chunks that say it; all go before the pixels."""
    made: list[Chunk] = list(told.colour_chunks)
    if told.icc_profile:
        made.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(told.icc_profile)))
    if told.exif:
        made.append((b"eXIf", told.exif.removeprefix(exif.HEAD)))
    if told.resolution:
        made.append((b"pHYs", struct.pack(">IIB", *(round(value * _INCHES_A_METRE) for value in told.resolution), 1)))
    if told.xmp:
        made.append((b"iTXt", _XMP.encode() + bytes(5) + told.xmp))
    made.extend(_text_chunk(key, text) for key, text in told.texts)
    return made


def _text(kind: bytes, content: bytes) -> tuple[str, str] | None:
    """Key and text; None for other chunks and for what is damaged."""
    key, _, rest = content.partition(b"\0")
    try:
        if kind == b"tEXt":
            return key.decode("latin-1"), rest.decode("latin-1")
        if kind == b"zTXt":
            return key.decode("latin-1"), _expanded(rest[1:]).decode("latin-1")
        if kind == b"iTXt":
            text = rest[2:].split(b"\0", 2)[2]
            return key.decode("latin-1"), (_expanded(text) if rest[0] else text).decode()
    except (zlib.error, UnicodeDecodeError, IndexError):
        pass
    return None


def _text_chunk(key: str, text: str) -> Chunk:
    name = key.encode("latin-1", "replace")[:79] or b"Comment"
    try:
        return b"tEXt", name + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        return b"iTXt", name + bytes(5) + text.encode()


def _expanded(content: bytes) -> bytes:
    expander = zlib.decompressobj()
    result = expander.decompress(content, _LARGEST_TEXT)
    if not expander.eof:
        raise zlib.error("incomplete, or too large")
    return result


def _profile(content: bytes) -> bytes | None:
    try:
        return _expanded(content.partition(b"\0")[2][1:])
    except zlib.error:
        return None


def _raw_profile(texts: dict[str, str]) -> bytes | None:
    """EXIF as older programs stored it: as text, in hexadecimal, after a name and a length."""
    try:
        return bytes.fromhex("".join(texts[_RAW_EXIF].split("\n")[3:]))
    except (KeyError, ValueError):
        return None


def _density(content: bytes) -> tuple[float, float] | None:
    """Dots per inch; None where only the shape of a pixel is said."""
    if len(content) != 9 or content[8] != 1:
        return None
    across, down = struct.unpack(">II", content[:8])
    return sensible_resolution(across / _INCHES_A_METRE, down / _INCHES_A_METRE)
