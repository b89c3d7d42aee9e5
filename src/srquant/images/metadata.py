"""What a picture file says besides its pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>))\s*[1-8]")
_LABELS = {
    "icc_profile": "colour profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "resolution": "resolution",
    "texts": "text",
    "colour_chunks": "gamma",
}
"""Fields of :class:`Metadata` as messages call them."""
_BLOCKS = ("exif", "xmp")
_MOST_DOTS = 65_535
"""An inch, in JPEG."""
COMMENT = "Comment"
"""Key of the one text that JPEG and GIF hold."""


@dataclass(frozen=True)
class Metadata:
    """What goes unchanged from a picture file into the one that is made of it.

    Args:
        icc_profile: The colour profile.
        exif: An EXIF block. The orientation and the size in pixels are not in it: the one is applied to the pixels, the
            other would not be true of what is made of them.
        xmp: An XMP packet; its orientation is 1.
        resolution: Dots per inch, across and down.
        texts: Keys and texts, of PNG; the comment of JPEG and GIF under the key ``Comment``.
        colour_chunks: Types and contents of PNG's chunks gAMA, cHRM, sRGB and cICP.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()

    def limited_to(self, kinds: frozenset[str], longest: int | None = None) -> tuple[Metadata, tuple[str, ...]]:
        """What a format can hold, and what it cannot, in words.

        Args:
            kinds: Fields that the format holds; ``comment`` for a single text.
            longest: Bytes of EXIF or XMP that it holds, at most; None for no bound.
        """
        lost: dict[str, str] = {}
        for name, label in _LABELS.items():
            value: Any = getattr(self, name)
            if value and name not in kinds:
                lost[name] = label
            elif longest is not None and isinstance(value, bytes) and name in _BLOCKS and len(value) > longest:
                lost[name] = f"{label} as long as that"
        emptied: dict[str, Any] = {name: getattr(_EMPTY, name) for name in lost}
        if "texts" in lost and "comment" in kinds:
            emptied["texts"] = tuple(text for text in self.texts if text[0] == COMMENT)[:1]
            if len(emptied["texts"]) == len(self.texts):
                del lost["texts"]
        if not self._has_own_colours:
            lost.pop("colour_chunks", None)
        return replace(self, **emptied), tuple(lost.values())

    @property
    def is_of_gray(self) -> bool:
        """Whether the colour profile is one of gray values, which says nothing of colours."""
        return self.icc_profile is not None and self.icc_profile[16:20] == b"GRAY"

    @property
    def _has_own_colours(self) -> bool:
        """Whether the chunks say more than "sRGB", which every program assumes, and than the colour profile."""
        return self.icc_profile is None and not any(kind == b"sRGB" for kind, _ in self.colour_chunks)


_EMPTY = Metadata()


def sensible_resolution(across: float, down: float) -> tuple[float, float] | None:
    """Dots per inch; None where they are not more than 0, or more than any format can say."""
    return (across, down) if 0 < across < _MOST_DOTS and 0 < down < _MOST_DOTS else None


def upright_xmp(packet: bytes | str | None) -> bytes | None:
    """An XMP packet that says that the pixels are stored the right way up."""
    if not packet:
        return None
    content = packet.encode() if isinstance(packet, str) else packet
    return _XMP_ORIENTATION.sub(rb"\g<1>1", content)
