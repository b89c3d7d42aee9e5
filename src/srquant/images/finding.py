"""Finding the benchmark pairs in folders, in any of the layouts that are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from srquant.fetching import resolve
from srquant.images.bicubic import Border
from srquant.images.layouts import (
    LAYOUTS,
    Place,
    high_places,
    known_layouts,
    looks_low,
    places,
    split_folder,
    subfolders,
)
from srquant.images.listing import Listing, holds_pictures
from srquant.images.pair_source import PairSource, some, warn
from srquant.images.pairs import PairFolder
from srquant.support.errors import ImageError
from srquant.support.files import is_folder
from srquant.support.wording import counted

_SCALE_NAMES = ("2", "3", "4", "8", "x2", "x3", "x4", "x8", "image_srf_2", "image_srf_3", "image_srf_4", "image_srf_8")
"""Folders, in lower case, that are named by a scale; their parent's name says which set it is."""


def find_pairs(folder: Path | str, scale: int, border: Border = "replicate") -> list[PairFolder]:
    """The benchmark sets of a scale at or below a folder.

    Known are the layouts in :data:`srquant.images.layouts.LAYOUTS`, HR and LR images in one folder with names such as
    ``NAME_HR`` and ``NAME_LR4``, and HR images alone, from which LR is made. An image has the same name in HR and LR,
    but for endings such as ``x4`` (:data:`srquant.images.layouts.LOW_ENDINGS`). LR images that are there are used, or
    the folder is refused. Where HR images are up to 11 pixels larger than LR times the scale, as cropping to a multiple
    of the scale or of 12 explains, they are cropped.

    Args:
        folder: Of a set, of HR images, or a parent of sets, of which those of other scales are passed over. Or a name
            that ``srquant fetch`` lists, such as ``set5``.
        scale: How many times larger HR is.
        border: How MATLAB's bicubic treats borders where LR images are made.

    Raises:
        ImageError: There is no set of the scale; the layout is not known, or there are two; an LR image is missing, or
            there are two; or a size does not fit.

    Warns:
        FolderWarning: HR images are cropped, or something in a folder is not used.
    """
    folder = resolve(folder, "pairs")
    if not is_folder(folder):
        raise ImageError(f"{folder} is not a folder of images or of pairs (HR and LR), nor a name of srquant fetch")
    if high_places(folder):
        sources = _in_layout(folder, scale)
        if not sources:
            raise ImageError(f"{folder} holds LR images of other scales than {scale}")
    elif holds_pictures(folder):
        sources = [_in_one_folder(folder)]
    else:
        sources = _below(folder, scale)
    names = _different_names([source.folder for source in sources], [source.name for source in sources], folder)
    return [source.open(name, scale, border) for source, name in zip(sources, names, strict=True)]


def read_folders(folder: Path) -> Iterator[Path]:
    """The folders from which :func:`find_pairs` may read pictures."""
    if high_places(folder):
        for child in subfolders(folder):
            yield from _picture_folders(child)
        return
    if holds_pictures(folder):
        yield folder
    for child in subfolders(folder):
        if not child.is_symlink():
            yield from read_folders(child)


def _picture_folders(folder: Path) -> Iterator[Path]:
    if holds_pictures(folder):
        yield folder
    for child in subfolders(folder):
        if not child.is_symlink():
            yield from _picture_folders(child)


def _in_layout(folder: Path, scale: int) -> list[PairSource]:
    """The sets of a scale in a folder that holds folders of HR images.

    Raises:
        ImageError: No layout, or more than one, tells where the LR images are.
    """
    highs = [place for place in high_places(folder) if holds_pictures(place.path)]
    if not highs:
        raise ImageError(f"{high_places(folder)[0].path} holds no images; known layouts: {known_layouts()}")
    lows_beside = split_folder(Listing.of(folder).pictures)[1]
    if lows_beside:
        raise ImageError(
            f"{folder} holds {some(lows_beside)} beside folders of images, which is no known layout; known: "
            f"{known_layouts()}"
        )
    pairings = list(_pairings(folder))
    unknown = _unknown(folder, [place.path for place in highs] + [low.path for _, low in pairings])
    sources: list[PairSource] = []
    for name in dict.fromkeys(place.name for place in highs):
        own = [pairing for pairing in pairings if pairing[0].name == name]
        fitting = [(high, low) for high, low in own if low.scale in (None, scale)]
        alone = [place for place in highs if place.name == name and place.scale in (None, scale)]
        if len(fitting) > 1 or (not own and len(alone) > 1):
            ways = fitting or [(place,) for place in alone]
            texts = (" + ".join(str(place.path.relative_to(folder)) for place in way) for way in ways)
            raise ImageError(f"{folder} may be read in several ways ({'; '.join(texts)}); leave one of them there")
        if fitting:
            high, low = fitting[0]
            sources.append(PairSource(folder, name, high.path, low.path))
            _say_unused(folder, [path for path in unknown if looks_low(path)])
        elif not own and unknown:
            raise ImageError(
                f"{folder} holds {some(unknown)} beside HR images, which is no known layout. Known: {known_layouts()}. "
                f"To make LR from HR, give {alone[0].path if alone else highs[0].path}"
            )
        elif not own and alone:
            sources.append(PairSource(folder, name, alone[0].path, None))
    return sources


def _pairings(folder: Path) -> Iterator[tuple[Place, Place]]:
    """The layouts that a folder has, of all scales: folders of HR and LR images that hold some."""
    for layout in LAYOUTS:
        lows = [low for low in places(folder, layout.low) if holds_pictures(low.path)]
        for high in places(folder, layout.high):
            for low in lows:
                if high.name == low.name and high.scale in (None, low.scale) and holds_pictures(high.path):
                    yield high, low


def _unknown(folder: Path, known: list[Path]) -> list[Path]:
    """Folders in a folder that are in no layout and hold pictures, also deeper in them, or by their names LR images."""
    return [
        child
        for child in subfolders(folder)
        if not any(path == child or child in path.parents for path in known)
        and (holds_pictures(child, recursive=True) or (looks_low(child) and any(child.iterdir())))
    ]


def _in_one_folder(folder: Path) -> PairSource:
    """The set of a folder that holds images itself.

    Raises:
        ImageError: LR images are beside them, or LR images alone are in it.
    """
    below = [path for path in subfolders(folder) if looks_low(path) and holds_pictures(path, recursive=True)]
    if below:
        raise ImageError(
            f"{folder} holds images and {below[0].name}, which is no known layout; put the HR images into a folder HR. "
            f"Known: {known_layouts()}"
        )
    highs, lows, _ = split_folder(Listing.of(folder).pictures)
    if not highs:
        raise ImageError(f"{folder} holds LR images alone ({some(lows)}); known layouts: {known_layouts()}")
    return PairSource(folder, "", folder, folder if lows else None)


def _below(root: Path, scale: int) -> list[PairSource]:
    """The sets of a scale below a folder.

    Raises:
        ImageError: There are none.
    """
    sources: list[PairSource] = []
    others = 0  # of another scale
    loose: list[Path] = []

    def look(folder: Path) -> None:
        nonlocal others
        for child in subfolders(folder):
            if high_places(child):
                if not any(holds_pictures(place.path) for place in high_places(child)):
                    if holds_pictures(child, recursive=True):
                        loose.append(child)
                    continue
                found = _in_layout(child, scale)
            elif holds_pictures(child):
                found = [_in_one_folder(child)] if split_folder(Listing.of(child).pictures)[1] else []
                if not found:
                    loose.append(child)
                    continue
            else:
                if not child.is_symlink():
                    look(child)
                continue
            fitting = [source for source in found if not source.is_of_another_scale(scale)]
            sources.extend(fitting)
            others += not fitting

    look(root)
    if not sources and others:
        raise ImageError(f"none of the {others} pair folders below {root} has scale {scale}")
    if not sources:
        there = f"; there are images in {some(loose)}, which may be given" if loose else ""
        raise ImageError(f"{root} holds neither HR and LR folders nor images{there}. Known layouts: {known_layouts()}")
    if loose:
        warn(root, f"{counted(len(loose), 'folder')} of images in no known layout, not used: {some(loose)}")
    return sources


def _different_names(folders: list[Path], names: list[str], root: Path) -> list[str]:
    """``Set5`` for ``Set5/x4``; the path below the root where several sets are opened together."""
    short = [name or _name(folder, root) for folder, name in zip(folders, names, strict=True)]
    long = [(folder / name).relative_to(root).as_posix() for folder, name in zip(folders, names, strict=True)]
    return [name if short.count(name) == 1 else path for name, path in zip(short, long, strict=True)]


def _name(folder: Path, root: Path) -> str:
    if folder == root:
        whole = folder.absolute()
        return whole.parent.name if whole.name.lower() in _SCALE_NAMES else whole.name
    named = [part for part in folder.relative_to(root).parts if part.lower() not in _SCALE_NAMES]
    return "/".join(named) or root.absolute().name


def _say_unused(folder: Path, unused: list[Path]) -> None:
    if unused:
        warn(folder, f"{some(unused)} may hold LR images too and is not used")
