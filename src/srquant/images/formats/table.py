"""What each format that is written can hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from srquant.support.errors import ImageError, UnknownNameError

Target = Literal["same", "png", "webp", "jpeg", "tiff"]
"""A format to write: that of the input (PNG where it is one that is only read, such as GIF), or one of these."""
Kind = Literal["picture", "frame", "page"]
"""What a file holds one or several of; frames are those of an animation."""

_EVERYTHING = frozenset({"icc_profile", "exif", "xmp", "resolution", "texts", "colour_chunks"})


@dataclass(frozen=True)
class Format:
    """A format, by what it can hold.

    Args:
        name: As in :data:`Target`.
        suffixes: Endings of file names, the usual one first.
        depth: Bits a channel, at most.
        alpha: Whether it stores transparency.
        several: Kinds of which it holds more than one.
        metadata: Fields of :class:`~srquant.images.metadata.Metadata` that it holds.
        largest: Height and width, at most; None for no bound that matters.
        longest_block: Bytes of a block of EXIF or XMP, at most; None for no bound that matters.
        timed: Whether frames keep their durations.
        gray: Whether gray is stored as one channel.
    """

    name: str
    suffixes: tuple[str, ...]
    depth: int
    alpha: bool
    several: frozenset[Kind]
    metadata: frozenset[str]
    largest: int | None = None
    longest_block: int | None = None
    timed: bool = False
    gray: bool = True


PNG = Format("png", (".png", ".apng"), 16, True, frozenset({"frame"}), _EVERYTHING, timed=True)
TIFF = Format(
    "tiff", (".tif", ".tiff"), 16, True, frozenset({"frame", "page"}), _EVERYTHING - {"texts", "colour_chunks"}
)
WEBP = Format(
    "webp",
    (".webp",),
    8,
    True,
    frozenset({"frame"}),
    frozenset({"icc_profile", "exif", "xmp", "resolution"}),
    16_383,
    timed=True,
    gray=False,
)
JPEG = Format(
    "jpeg",
    (".jpg", ".jpeg", ".jpe", ".jfif"),
    8,
    False,
    frozenset(),
    frozenset({"icc_profile", "exif", "xmp", "resolution", "comment"}),
    65_500,
    65_000,
)
BMP = Format("bmp", (".bmp",), 8, False, frozenset(), frozenset({"resolution"}))
FORMATS = (PNG, TIFF, WEBP, JPEG, BMP)


def format_of(path: Path) -> Format:
    """The format that a file name's ending says.

    Raises:
        ImageError: It says none that can be written.
    """
    suffix = path.suffix.lower()
    for known in FORMATS:
        if suffix in known.suffixes:
            return known
    raise ImageError(
        f"cannot write {path}: unknown file type {suffix!r}; use .png, .jpg, .webp, .tif or .bmp (for a whole folder, "
        f"--format png, webp, jpeg or tiff)"
    )


def named(path: Path, target: str) -> Path:
    """The name of what is made of a picture.

    Args:
        path: Named like the picture.
        target: A :data:`Target`; ``same`` keeps the name of a picture whose format is written.

    Raises:
        UnknownNameError: There is no such format.
    """
    formats = {known.name: known for known in FORMATS if known is not BMP}
    if target == "same":
        written = any(path.suffix.lower() in known.suffixes for known in FORMATS)
        return path if written else path.with_suffix(PNG.suffixes[0])
    if target not in formats:
        raise UnknownNameError("format", target, ("same", *formats))
    kept = path.suffix.lower() in formats[target].suffixes
    return path if kept else path.with_suffix(formats[target].suffixes[0])


def holders(*, height: int, width: int, alpha: bool, count: int = 1, kind: Kind = "picture") -> str:
    """Endings of the formats that hold such a picture, for a message."""
    fitting = [
        known.suffixes[0]
        for known in FORMATS
        if (known.largest is None or max(height, width) <= known.largest)
        and (known.alpha or not alpha)
        and (count == 1 or kind in known.several)
    ]
    return " or ".join(fitting)
