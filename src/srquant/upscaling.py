"""Enlarging pictures in files and folders, tile by tile, from disk to disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from srquant.bridges import as_tensor
from srquant.errors import ImageError, SrquantError
from srquant.files import require_writable
from srquant.images.bicubic import resize
from srquant.images.picture import Layout, Picture, Pixels, to_layout
from srquant.images.reading import list_images, read_picture
from srquant.images.tiling import Tiling
from srquant.images.writing import check_output, write_bands
from srquant.memory import memory_errors
from srquant.progress import Bar, bar

Upscaler = Callable[[Tensor], Tensor]


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
        OutputError: The file cannot be written.
        MemoryLimitError: A tile does not fit into memory.
    """
    require_writable(target)
    picture = read_picture(source)
    with bar(f"Enlarging {source.name}", tiling.count(*picture.size)) as shown:
        _enlarge_to(upscaler, picture, target, scale, tiling, shown)


def upscale_tree(
    upscaler: Upscaler, source: Path, target: Path, scale: int, tiling: Tiling, *, skip_existing: bool = False
) -> Done:
    """Enlarge all pictures of a folder and the folders in it; the hierarchy is kept. A bad picture stops no other.

    Raises:
        ImageError: There are no pictures.
    """
    if target.resolve() == source.resolve():
        raise ImageError(f"{target} is the input folder itself; choose another one for the output")
    paths = list_images(source, recursive=True)
    if not paths:
        raise ImageError(f"{source} holds no images")
    written: list[Path] = []
    skipped: list[Path] = []
    failed: list[tuple[Path, str]] = []
    with bar("Enlarging", len(paths)) as shown:
        for path in paths:
            output = target / path.relative_to(source)
            if skip_existing and output.exists():
                skipped.append(output)
            else:
                try:
                    require_writable(output)
                    _enlarge_to(upscaler, read_picture(path), output, scale, tiling, None)
                    written.append(output)
                except SrquantError as error:
                    failed.append((path, str(error)))
            shown.advance(1, path.name)
    return Done(tuple(written), tuple(skipped), tuple(failed))


def _enlarge_to(
    upscaler: Upscaler, picture: Picture, target: Path, scale: int, tiling: Tiling, shown: Bar | None
) -> None:
    height, width = (scale * side for side in picture.size)
    layout = check_output(target, height, width, picture.layout)
    with memory_errors(f"give a smaller tile than {tiling.tile}"):
        write_bands(target, height, width, layout, _bands(upscaler, picture, layout, scale, tiling, shown))


def _bands(
    upscaler: Upscaler, picture: Picture, layout: Layout, scale: int, tiling: Tiling, shown: Bar | None
) -> Iterator[Pixels]:
    """The enlarged picture as bands of rows."""
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


def _enlarge(
    upscaler: Upscaler, pixels: Pixels, layout: Layout, scale: int
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """RGB, ``3 h w``, and alpha, ``h w``, in about [0, 1]."""
    values = as_tensor(pixels.astype(np.float32) / layout.peak)
    colour = values[:1].expand(3, -1, -1) if layout.gray else values[:3]
    output = upscaler(colour[None])[0].float().cpu().numpy()
    return output, resize(values[-1], scale).numpy() if layout.alpha else None
