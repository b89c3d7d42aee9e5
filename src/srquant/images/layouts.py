"""How benchmarks keep HR and LR images: a table of folders, and one of file names.

A new layout is one row. Capitals do not matter in folders, nor in the endings of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class PairLayout:
    """Folders of HR and LR images below that of a set; ``{s}`` is the scale, ``{set}`` a name that both share.

    Args:
        high: Where HR images are.
        low: Where LR images are.
        known_from: Who keeps them so.
    """

    high: str
    low: str
    known_from: str

    def __str__(self) -> str:
        return f"{self.high} + {self.low}"


LAYOUTS = (
    PairLayout("HR", "LR", "many"),
    PairLayout("HR", "LR/X{s}", "many"),
    PairLayout("HR/X{s}", "LR/X{s}", "many"),
    PairLayout("HR", "LR_bicubic", "KAIR"),
    PairLayout("HR", "LR_bicubic/X{s}", "EDSR-PyTorch, KAIR, SwinIR"),
    PairLayout("GTmod12", "LRbicX{s}", "BasicSR"),
    PairLayout("GT", "LQ", "BasicSR, MMagic"),
    PairLayout("{set}_HR", "{set}_LR_bicubic", "DIV2K, one scale"),
    PairLayout("{set}_HR", "{set}_LR_bicubic/X{s}", "DIV2K, Flickr2K"),
)
HIGH_ENDINGS = ("", "_HR")
"""What may follow a picture's name in HR. SelfExSR's ``_SRF_2_HR`` and ``_SRF_2_LR`` are the name ``…_SRF_2``."""
LOW_ENDINGS = ("", "x{s}", "_LR", "_LR{s}", "_bicLRx{s}", "_SRF_{s}_LR")
"""What may follow a picture's name in LR."""
_ALWAYS_LOW = re.compile(r".+(_LR\d*|_bicLRx\d+)", re.IGNORECASE)
"""Names that are of LR images wherever they are."""
_LIKE_LOW = re.compile(r"(^|[\W_])(LR|LQ)|LRbic", re.IGNORECASE)
"""Names of folders in which one expects LR images."""


@dataclass(frozen=True)
class Place:
    """A folder that a layout names.

    Args:
        path: Where it is.
        name: What ``{set}`` stands for; empty where the layout has none.
        scale: What ``{s}`` stands for; None where the layout has none.
    """

    path: Path
    name: str
    scale: int | None


def known_layouts() -> str:
    """All layouts, for a message."""
    rows = ", ".join(map(str, LAYOUTS)).replace("{set}", "*")
    return f"{rows}; *_HR and *_LR{{s}} in one folder; or HR images alone (s is the scale, * any name)"


def high_places(folder: Path) -> list[Place]:
    """The folders in a folder that a layout names for HR images, whether there are any images or not."""
    patterns = dict.fromkeys(layout.high for layout in LAYOUTS)
    return [place for pattern in patterns for place in places(folder, pattern)]


def places(folder: Path, pattern: str) -> Iterator[Place]:
    """The folders below a folder that match a pattern such as ``LR_bicubic/X{s}``, sorted by path."""
    parts = pattern.split("/")

    def below(path: Path, depth: int, told: dict[str, str]) -> Iterator[Place]:
        if depth == len(parts):
            yield Place(path, told.get("set", ""), int(told["s"]) if "s" in told else None)
            return
        for child in subfolders(path):
            match = _regex(parts[depth]).fullmatch(child.name)
            if match:
                yield from below(child, depth + 1, told | match.groupdict())

    return below(folder, 0, {})


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones and those behind closed doors are left out."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError:
        return []


def looks_low(folder: Path) -> bool:
    """Whether a folder's name says that LR images are in it."""
    return _LIKE_LOW.search(folder.name) is not None


def partners(highs: Sequence[Path], lows: Iterable[Path], scale: int) -> dict[Path, list[Path]]:
    """For each HR image the LR images that may be its own, by their names.

    A file that is named like another HR image is that one's.
    """
    by_name: dict[str, list[Path]] = {}
    for low in lows:
        for name in dict.fromkeys(_names(low.stem, LOW_ENDINGS, scale)):
            by_name.setdefault(name, []).append(low)
    stems = {high.stem for high in highs}
    found: dict[Path, list[Path]] = {}
    for high in highs:
        named = [low for name in _names(high.stem, HIGH_ENDINGS, scale) for low in by_name.get(name, ())]
        others = stems - {high.stem}
        found[high] = [low for low in dict.fromkeys(named) if low.stem not in others]
    return found


def split_folder(pictures: Sequence[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """HR images, LR images, and others of a folder that may hold both: RealSR's and SelfExSR's layout.

    ``NAME_LR``, ``NAME_LR4`` and ``NAME_bicLRx4`` are LR, and so is ``NAMEx4`` beside ``NAME``. Where there are LR
    images, ``NAME_HR`` are the HR images if there are any, else all that is not LR.
    """
    stems = {path.stem for path in pictures}

    def is_low(path: Path) -> bool:
        name, cross, scale = path.stem.rpartition("x")
        return _ALWAYS_LOW.fullmatch(path.stem) is not None or (bool(cross) and scale.isdecimal() and name in stems)

    def is_marked(path: Path) -> bool:
        return path.stem.lower().endswith("_hr")

    lows = [path for path in pictures if is_low(path)]
    rest = [path for path in pictures if not is_low(path)]
    if not lows or not any(map(is_marked, rest)):
        return rest, lows, []
    return list(filter(is_marked, rest)), lows, [path for path in rest if not is_marked(path)]


def _names(stem: str, endings: Iterable[str], scale: int) -> Iterator[str]:
    """A stem without each ending that it has."""
    for ending in endings:
        text = ending.format(s=scale)
        if len(stem) > len(text) and stem.lower().endswith(text.lower()):
            yield stem[: len(stem) - len(text)]


@cache
def _regex(part: str) -> re.Pattern[str]:
    escaped = re.escape(part).replace(r"\{set\}", "(?P<set>.+)").replace(r"\{s\}", r"(?P<s>\d+)")
    return re.compile(escaped, re.IGNORECASE)
