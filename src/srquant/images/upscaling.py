"""Enlarging pictures in files and folders, from disk to disk."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Lock

from srquant.images.bands import Banded
from srquant.images.enlarging import Upscaler, enlarge_bands
from srquant.images.formats.opened import PictureFile
from srquant.images.formats.table import holders, named
from srquant.images.listing import Listing, Reason
from srquant.images.picture import Pixels
from srquant.images.reading import open_picture
from srquant.images.tiling import Tiling
from srquant.images.writing import check_output, several_fit, write_pictures
from srquant.support.errors import ImageError, LossWarning, OutputError, SrquantError, first_line
from srquant.support.files import require_apart, require_writable, same_file
from srquant.support.memory import memory_errors
from srquant.support.progress import Bar, bar

_AT_ONCE = 3
"""Pictures in work: one is read, one enlarged, one written."""
_IN_FLIGHT = 192 << 20
"""Bytes that enlarged pictures in work together may take; a larger one is in work alone."""
_BYTES = 12
"""For a pixel of an enlarged picture: as an array, as the encoder's copy, and encoded."""


@dataclass(frozen=True)
class Done:
    """What :func:`upscale_tree` did.

    Args:
        written: The files that were written.
        skipped: Those left alone because they were there.
        failed: The pictures that failed, and why.
        passed_over: What else was in the folder, and why it was not enlarged.
    """

    written: tuple[Path, ...]
    skipped: tuple[Path, ...]
    failed: tuple[tuple[Path, str], ...]
    passed_over: tuple[tuple[Path, Reason], ...] = ()

    def __repr__(self) -> str:
        return f"Done({len(self.written)} written, {len(self.skipped)} skipped, {len(self.failed)} failed)"


def upscale_file(upscaler: Upscaler, source: Path, target: Path, scale: int, tiling: Tiling) -> None:
    """Enlarge a picture, every page of a TIFF, or every frame of an animation.

    Gray stays gray, 16 bits stay 16 bits, transparency is enlarged by bicubic interpolation, and metadata is kept. What
    the format written cannot hold is said by a warning.

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
    losses = _Losses()
    with open_picture(source) as file:
        total = file.count * tiling.count(*file.size)
        with bar(f"Enlarging {source.name}", total) as shown:
            _enlarge_to(upscaler, file, target, scale, tiling, losses, shown=shown)
    losses.warn()


def upscale_tree(
    upscaler: Upscaler,
    source: Path,
    target: Path,
    scale: int,
    tiling: Tiling,
    *,
    skip_existing: bool = False,
    form: str = "same",
) -> Done:
    """Enlarge all pictures of a folder and the folders in it; the hierarchy is kept. A bad picture stops no other.

    What is no picture, hidden, or a link to a folder is passed over, and so is the target where it lies in the source.

    While one picture is enlarged the next is read and the one before is written: decoding and encoding take as long as
    a fast network does. All that is computed is computed by one thread, and pictures are in work together only as far
    as they are small: so a folder needs little more memory than its largest picture.

    Args:
        upscaler: ``1 3 h w`` in [0, 1] to ``1 3 scale·h scale·w``.
        source: A folder.
        target: Another folder; the files in it are named like the pictures.
        scale: How many times larger the output is.
        tiling: How to cut.
        skip_existing: Leave pictures alone that are there already.
        form: The format to write: ``png``, ``webp``, ``jpeg``, ``tiff``, or ``same`` as each picture has (PNG for what
            is only read, such as GIF).

    Raises:
        ImageError: There are no pictures.
        OutputError: The output folder is the input folder.
        UnknownNameError: There is no such format.
        Exception: What the upscaler raised, where not one picture came out for such a reason.

    Warns:
        FolderWarning: Something is passed over; the message counts it by reason.
        LossWarning: A format cannot hold all that a picture has.
    """
    if same_file(target, source):
        raise OutputError(f"cannot write into {target}: it is the input folder itself; choose another folder")
    listing = Listing.of(source, recursive=True, without=target)
    listing.warn()
    paths = list(listing.pictures)
    if not paths:
        raise ImageError(f"{source} holds no images")
    outputs = _outputs(paths, source, target, form)
    owners: dict[Path, Path] = {}  # several pictures may get one name
    sources: dict[str, list[Path]] = {}  # an output above the input may still meet one of its pictures
    for path in paths:
        owners.setdefault(outputs[path], path)
        sources.setdefault(path.name, []).append(path)
    written: list[Path] = []
    skipped: list[Path] = []
    failed: list[tuple[Path, str]] = []
    faults: list[Exception] = []  # of the program or of a library, not of a picture
    losses, room, computing = _Losses(), _Room(_IN_FLIGHT), ThreadPoolExecutor(1)

    def one(path: Path) -> None:
        output = outputs[path]
        try:
            if owners[output] != path:
                raise ImageError(f"{path} would become {output}, as {owners[output].name} does; rename one of them")
            if skip_existing and output.exists():
                skipped.append(output)
                return
            require_apart(output, *sources.get(output.name, ()))
            require_writable(output)
            if form == "same" and output.suffix != path.suffix:
                losses.add(path, f"{path.suffix} is only read; what is made of it is {output.suffix}")
            with open_picture(path) as file, room.taken(_BYTES * scale**2 * math.prod(file.size)):
                _enlarge_to(upscaler, file, output, scale, tiling, losses, computing=computing)
            written.append(output)
        except SrquantError as error:
            failed.append((path, str(error)))
        except Exception as error:
            faults.append(error)
            failed.append((path, f"{path}: {type(error).__name__}: {first_line(error)}"))

    with bar("Enlarging", len(paths)) as shown:
        workers = ThreadPoolExecutor(_AT_ONCE)
        try:
            for path, _ in zip(paths, workers.map(one, paths), strict=True):
                shown.advance(1, path.name)
        finally:
            workers.shutdown(cancel_futures=True)
            computing.shutdown()
    if len(faults) == len(paths):
        raise faults[0]
    losses.warn()
    return Done(tuple(sorted(written)), tuple(sorted(skipped)), tuple(sorted(failed)), listing.passed_over)


def _outputs(paths: list[Path], source: Path, target: Path, form: str) -> dict[Path, Path]:
    """What each picture becomes; of two that would become one, ``a.jpg.png`` tells which it was."""
    plain = {path: named(target / path.relative_to(source), form) for path in paths}
    counts = Counter(plain.values())
    return {
        path: output if counts[output] == 1 or output.name == path.name else output.with_name(path.name + output.suffix)
        for path, output in plain.items()
    }


def _made_by(computing: Executor, bands: Iterator[Pixels], height: int) -> Iterator[Pixels]:
    """The same bands, of so many rows together, each computed by one executor: what it takes is then in memory once."""
    while height > 0:
        band = computing.submit(next, bands).result()
        height -= len(band)
        yield band


class _Room:
    """What several threads may take together; who wants more than there is waits until all of it is free.

    Args:
        size: In bytes.
    """

    def __init__(self, size: int) -> None:
        self._size, self._used, self._changed = size, 0, Condition()

    @contextmanager
    def taken(self, wanted: int) -> Generator[None]:
        wanted = min(wanted, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._used + wanted <= self._size)
            self._used += wanted
        try:
            yield
        finally:
            with self._changed:
                self._used -= wanted
                self._changed.notify_all()


@dataclass
class _Losses:
    """What is not in the pictures that were written, collected by several threads, to be said once."""

    found: dict[str, list[Path]] = field(default_factory=dict[str, "list[Path]"])
    changing: Lock = field(default_factory=Lock)

    def add(self, path: Path, lost: str) -> None:
        with self.changing:
            self.found.setdefault(lost, []).append(path)

    def warn(self) -> None:
        for lost, paths in sorted(self.found.items()):
            others = len(paths) - 1
            more = f" and {others} other picture{'s' if others > 1 else ''}" if others else ""
            warnings.warn(f"{min(paths)}{more}: {lost}", LossWarning, stacklevel=3)


def _enlarge_to(
    upscaler: Upscaler,
    file: PictureFile,
    target: Path,
    scale: int,
    tiling: Tiling,
    losses: _Losses,
    *,
    shown: Bar | None = None,
    computing: Executor | None = None,
) -> None:
    count = file.count if several_fit(target, file.kind) else 1
    if count < file.count:
        ways = holders(height=1, width=1, alpha=False, count=file.count, kind=file.kind)
        losses.add(file.path, f"only the first of several {file.kind}s is enlarged; {ways} holds them all")
    left_out: dict[str, None] = {}

    def enlarged() -> Iterator[Banded]:
        for picture in file if count > 1 else [file.first()]:
            left_out.update(dict.fromkeys(picture.left_out))
            height, width = (scale * length for length in picture.size)
            layout = check_output(target, height, width, picture.layout)
            if layout.depth < picture.layout.depth:
                losses.add(file.path, f"{target.suffix} holds {layout.depth} bits a channel of {picture.layout.depth}")
            bands = enlarge_bands(upscaler, picture, layout, scale, tiling, shown)
            made = bands if computing is None else _made_by(computing, bands, height)
            yield Banded(height, width, layout, made, picture.metadata, picture.duration)

    with memory_errors(f"give a smaller tile than {tiling.tile}"):
        lost = write_pictures(target, enlarged(), count, file.loop)
    if left_out:
        losses.add(file.path, f"left out: {', '.join(left_out)}")
    if lost:
        losses.add(file.path, f"{target.suffix} holds no {', '.join(lost)}; left out")
