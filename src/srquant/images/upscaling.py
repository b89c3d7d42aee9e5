"""Enlarging pictures in files and folders, tile by tile, from disk to disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from srquant.images.bicubic import resize
from srquant.images.picture import Layout, Picture, Pixels, to_layout
from srquant.images.reading import list_images, read_picture
from srquant.images.tiling import Tiling
from srquant.images.writing import check_output, write_bands
from srquant.support.errors import ImageError, SrquantError
from srquant.support.files import require_apart, require_outside, require_writable
from srquant.support.memory import memory_errors
from srquant.support.progress import Bar, bar
from srquant.support.tensors import as_tensor

Upscaler = Callable[[Tensor], Tensor]
"""Anything that turns ``n 3 h w`` in [0, 1] into ``n 3 scale·h scale·w``: a model, an engine, a function."""
_AT_ONCE = 3
"""Pictures in work: one is read, one enlarged, one written."""


@dataclass(frozen=True)
class Done:
    """What :func:`upscale_tree` did: the files written, left alone because they were there, and failed, with why."""

    written: tuple[Path, ...]
    skipped: tuple[Path, ...]
    failed: tuple[tuple[Path, str], ...]


def upscale_file(upscaler: Upscaler, source: Path, target: Path, scale: int, tiling: Tiling) -> None:
    """Enlarge one picture. Gray stays gray, 16 bits stay 16 bits, transparency is enlarged by bicubic interpolation.

    Args:
        upscaler: ``1 3 h w`` in [0, 1] to ``1 3 scale·h scale·w``.
        source: A picture.
        target: Where to write; the name's ending says the format.
        scale: How many times larger the output is.
        tiling: How to cut.

    Raises:
        ImageError: The picture cannot be read, or not be stored under that name.
        OutputError: The file cannot be written, or is the picture itself.
        MemoryLimitError: A tile does not fit into memory.
    """
    require_apart(target, source)
    require_writable(target)
    picture = read_picture(source)
    with bar(f"Enlarging {source.name}", tiling.count(*picture.size)) as shown:
        _enlarge_to(upscaler, picture, target, scale, tiling, shown)


def upscale_tree(
    upscaler: Upscaler, source: Path, target: Path, scale: int, tiling: Tiling, *, skip_existing: bool = False
) -> Done:
    """Enlarge all pictures of a folder and the folders in it; the hierarchy is kept. A bad picture stops no other.

    While one picture is enlarged the next is read and the one before is written: decoding and encoding take as long as
    a fast network does. The upscaler itself is called by one thread at a time.

    Raises:
        ImageError: There are no pictures.
        OutputError: The output folder is the input folder, or lies in it.
    """
    require_outside(target, source)
    paths = list_images(source, recursive=True)
    if not paths:
        raise ImageError(f"{source} holds no images")
    sources: dict[str, list[Path]] = {}  # an output above the input may still meet one of its pictures
    for path in paths:
        sources.setdefault(path.name, []).append(path)
    written: list[Path] = []
    skipped: list[Path] = []
    failed: list[tuple[Path, str]] = []
    reading, computing = Lock(), Lock()

    def alone(images: Tensor) -> Tensor:
        with computing:
            return upscaler(images)

    def one(path: Path) -> None:
        output = target / path.relative_to(source)
        if skip_existing and output.exists():
            skipped.append(output)
            return
        try:
            require_apart(output, *sources.get(output.name, ()))
            require_writable(output)
            with reading:
                picture = read_picture(path)
            _enlarge_to(alone, picture, output, scale, tiling, None)
            written.append(output)
        except SrquantError as error:
            failed.append((path, str(error)))

    with bar("Enlarging", len(paths)) as shown:
        workers = ThreadPoolExecutor(_AT_ONCE)
        try:
            for path, _ in zip(paths, workers.map(one, paths), strict=True):
                shown.advance(1, path.name)
        finally:
            workers.shutdown(cancel_futures=True)
    return Done(tuple(sorted(written)), tuple(sorted(skipped)), tuple(sorted(failed)))


def enlarge_bands(
    upscaler: Upscaler, picture: Picture, layout: Layout, scale: int, tiling: Tiling, shown: Bar | None = None
) -> Iterator[Pixels]:
    """Enlarge a picture in memory, tile by tile.

    Args:
        upscaler: ``1 3 h w`` in [0, 1] to ``1 3 scale·h scale·w``.
        picture: What to enlarge.
        layout: What to make of it: clamped and rounded to its depth, gray or colour, alpha as the picture has.
        scale: How many times larger the output is.
        tiling: How to cut.
        shown: Moves on by one for each tile.

    Returns:
        Bands of rows, ``rows scale·w channels``, top to bottom, all of one height but the last.
    """
    image = picture.pixels.transpose(2, 0, 1)
    for row in tiling.rows(*picture.size):
        parts: list[Pixels] = []
        for tile in row:
            colour, alpha = _enlarge(upscaler, tile.cut(image), picture.layout, scale)
            kept = tile.keep(colour, scale).transpose(1, 2, 0)
            parts.append(to_layout(kept, None if alpha is None else tile.keep(alpha, scale), layout))
            if shown is not None:
                shown.advance()
        yield np.concatenate(parts, axis=1)


def _enlarge_to(
    upscaler: Upscaler, picture: Picture, target: Path, scale: int, tiling: Tiling, shown: Bar | None
) -> None:
    height, width = (scale * length for length in picture.size)
    layout = check_output(target, height, width, picture.layout)
    with memory_errors(f"give a smaller tile than {tiling.tile}"):
        write_bands(target, height, width, layout, enlarge_bands(upscaler, picture, layout, scale, tiling, shown))


def _enlarge(
    upscaler: Upscaler, pixels: Pixels, layout: Layout, scale: int
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """RGB, ``3 h w``, and alpha, ``h w``, in about [0, 1]."""
    values = as_tensor(pixels.astype(np.float32) / layout.peak)
    colour = values[:1].expand(3, -1, -1) if layout.gray else values[:3]
    output = upscaler(colour[None])[0].float().cpu().numpy()
    return output, resize(values[-1], scale).numpy() if layout.alpha else None
