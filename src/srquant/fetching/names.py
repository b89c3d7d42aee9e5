"""Names in the place of paths: the one file where they are resolved."""

from __future__ import annotations

import difflib
import os
import re
import warnings
from pathlib import Path
from typing import Literal

from srquant.fetching.catalogue import KINDS, Entry, entries
from srquant.fetching.fetching import place_of
from srquant.support.errors import ArgumentError, FetchError, NameWarning
from srquant.support.files import is_folder

Wanted = Literal["network", "pairs", "photographs", "low", "pictures"]
_NEEDED: dict[Wanted, str] = {
    "network": "is a network",
    "pairs": "are images to score on",
    "photographs": "are photographs",
    "low": "are LR images",
    "pictures": "are pictures to enlarge",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""What may be meant as a name; nothing with a folder or an ending."""


def resolve(path: Path | str, wanted: Wanted, scale: int | None = None) -> Path:
    """The path that is meant: itself if something is there, else where the thing of this name is, fetched if need be.

    Args:
        path: A path, or a name that ``srquant fetch`` lists.
        wanted: What for: a ``network``; ``pairs`` to score on; ``photographs`` to train on or to make LR images of;
            ``low``, LR images; ``pictures`` to enlarge.
        scale: Of the network, where LR images are of one scale.

    Returns:
        The path unchanged where it is no name; whoever opens it says what is wrong.

    Raises:
        ArgumentError: The name is of something else, or there is none, but one that is nearly the same.
        FetchError: See :func:`~srquant.fetching.fetching.fetch`.
        OutputError: See there.

    Warns:
        NameWarning: A file or folder here has the name of something that can be fetched, and is used.
    """
    text = os.fspath(path)
    if not _NAME.fullmatch(text):
        return Path(path)
    known = entries()
    if os.path.lexists(text):
        if text in known:
            what = "folder" if is_folder(Path(text)) else "file"
            warnings.warn(
                f"{text} is the {what} of this name here, not what srquant fetch knows by it; rename it to use that",
                NameWarning,
                stacklevel=3,
            )
        return Path(path)
    if text not in known:
        near = difflib.get_close_matches(text.lower().replace("_", "-"), known, n=4, cutoff=0.75)
        if near:
            raise ArgumentError(
                f"there is no file or folder {text!r} here, and no network or data of that name; nearest: "
                f"{', '.join(near)} (srquant fetch lists all)"
            )
        return Path(path)
    return _place(known[text], text, wanted, scale)


def _place(entry: Entry, name: str, wanted: Wanted, scale: int | None) -> Path:
    """Where an entry is, or the part of it that is wanted."""
    part = _part(entry, name, wanted, scale)
    place = place_of(entry).fetch()
    if not is_folder(place / part) and entry.kind != "network":
        there = ", ".join(sorted(path.name for path in place.iterdir() if is_folder(path))) or "no folders"
        raise FetchError(f"{name} has no folder {part} in {place}; there are {there}")
    return place / part


def _part(entry: Entry, name: str, wanted: Wanted, scale: int | None) -> str:
    """The folder in an entry that holds what is wanted; empty if it is all of it.

    Raises:
        ArgumentError: There is none.
    """
    match wanted, entry.kind:
        case ("network", "network") | ("pairs", "pairs" | "sets" | "photographs"):
            return ""
        case ("photographs", "photographs") | ("low", "low") | ("pictures", "photographs" | "low"):
            return ""
        case ("photographs", "pairs"):
            return entry.high
        case ("low" | "pictures", "pairs") if scale is not None:
            return entry.low.format(s=scale)
        case _:
            raise ArgumentError(f"{name} is {KINDS[entry.kind]}; needed {_NEEDED[wanted]}{_way_out(entry)}")


def _way_out(entry: Entry) -> str:
    ways = {
        "network": "; srquant fetch lists data too",
        "features": "; srquant evaluate --score uses it",
        "low": "; LR images are given to --calibration",
        "photographs": "; photographs are given to --calibration-hr, which makes LR images of them",
        "pairs": "; --calibration-hr takes its HR images",
        "sets": "; give one of the sets in it",
    }
    return ways[entry.kind]
