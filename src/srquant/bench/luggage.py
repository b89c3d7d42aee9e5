"""A network with its patches and data for machines that do not have the files: the files travel with it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from srquant.bench.cells import DataSet, Subject
from srquant.bench.tasks import pack, unpack
from srquant.images.calibration import Calibration
from srquant.images.pairs import Pair
from srquant.support.errors import ImageError
from srquant.support.files import is_file, replacing

_FOLDER = "srquant-bench"
"""In the folder of temporary files of a machine; each file in one named by its content, so that none is there twice."""


@dataclass(frozen=True)
class Luggage:
    """A packed subject and the contents of its files, by their paths.

    Photographs of methods that learn with ground truth are not among them: they are many gigabytes, and must be at the
    same place on every machine.
    """

    subject: bytes
    files: dict[str, bytes]

    @classmethod
    def of(cls, subject: Subject) -> Luggage:
        """Pack a subject.

        Raises:
            ArgumentError: Its network is of a kind that other processes cannot be given.
            ImageError: A file cannot be read.
        """
        paths = [path for each in subject.data for pair in each.folder for path in (pair.high, pair.low) if path]
        paths += [] if subject.calibration is None else subject.calibration.drawn()
        return cls(pack(subject), {str(path): _content(path) for path in paths})

    def unpack(self) -> Subject:
        """The subject, with its files on this machine."""
        places = {Path(name): _place(Path(name), content) for name, content in self.files.items()}
        subject = unpack(self.subject)

        def here(path: Path) -> Path:
            return places.get(path, path)

        calibration = None if subject.calibration is None else _moved(subject.calibration, here)
        data = tuple(_moved_data(each, here) for each in subject.data)
        return replace(subject, calibration=calibration, data=data)


def _moved(calibration: Calibration, here: Callable[[Path], Path]) -> Calibration:
    return replace(calibration, images=tuple(map(here, calibration.images)))


def _moved_data(data: DataSet, here: Callable[[Path], Path]) -> DataSet:
    def moved(pair: Pair) -> Pair:
        return replace(pair, high=here(pair.high), low=None if pair.low is None else here(pair.low))

    return replace(data, folder=replace(data.folder, pairs=tuple(map(moved, data.folder.pairs))))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error


def _place(path: Path, content: bytes) -> Path:
    """Where a file is on this machine: written if it is not there yet."""
    digest = hashlib.sha256(content).hexdigest()
    place = Path(tempfile.gettempdir()) / _FOLDER / digest[:32] / path.name
    if not is_file(place) or hashlib.sha256(place.read_bytes()).hexdigest() != digest:
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as temporary:
            temporary.write_bytes(content)
    return place
