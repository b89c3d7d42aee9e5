"""Archives, unpacked without trust; and whether a file is what its name says."""

from __future__ import annotations

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from srquant.support.errors import FetchError, OutputError

PART = ".part-"
"""Before the name of a file that is not known to be whole and right."""
MOST_FILES = 100_000
MOST_TIMES = 20
"""How many times as large as the archive its content may be; pictures hardly shrink in archives."""
_SMALL = 64 << 20
"""Bytes that an archive may hold however small it is."""
_CHUNK = 1 << 20
_HEAD = 512
_PAGE = re.compile(rb"\s*<")
_JUNK = re.compile(r"(^|/)(__MACOSX|\._[^/]*|\.DS_Store|Thumbs\.db|desktop\.ini)(/|$)", re.IGNORECASE)
"""What systems leave in archives."""
_COMPRESSION = (zlib.error, lzma.LZMAError, EOFError)
_DAMAGED = (*_COMPRESSION, tarfile.TarError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class _Member:
    """One file of an archive."""

    name: str
    size: int
    file: IO[bytes]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a ``.zip`` or a ``.tar``, compressed or not, into a new folder.

    Only plain files and folders are taken, none outside of the folder; nobody's ownership, rights or times.

    Args:
        archive: The file.
        folder: Which does not exist.

    Raises:
        FetchError: It is damaged, encrypted, or holds a path that leads out of the folder, a link, a device, a name
            twice, more than 100,000 files, or far more bytes than an archive of pictures of its size.
        OutputError: The disk is full, or cannot be written.
    """
    limit = MOST_TIMES * archive.stat().st_size + _SMALL
    _make(folder)
    count = written = 0
    try:
        for member in _members(archive):
            count += 1
            if count > MOST_FILES:
                raise FetchError(f"{_name(archive)} holds more than {MOST_FILES:,} files")
            target = folder / _inside(archive, member.name)
            _make(target.parent)
            with _new(archive, target) as file:
                while chunk := member.file.read(_CHUNK):
                    written += len(chunk)
                    if written > limit:
                        raise FetchError(f"{_name(archive)} unpacks to more than {limit:,} bytes; it is not trusted")
                    file.write(chunk)
                if file.tell() != member.size:
                    raise FetchError(f"{_name(archive)} is damaged: {member.name} is cut short")
    except _DAMAGED as error:
        raise FetchError(f"{_name(archive)} is damaged or no archive that can be read: {error}") from error
    except OSError as error:  # also what the archive readers raise for damaged compression
        raise FetchError(f"{_name(archive)} cannot be unpacked: {error.strerror or error}") from error
    if count == 0:
        raise FetchError(f"{_name(archive)} holds no files")


def check_content(path: Path, *, archive: bool, whole: bool) -> None:
    """Refuse a file that cannot be what it should be, by its bytes.

    Args:
        path: The file.
        archive: Whether it should be an archive; else weights of a network.
        whole: Whether it is known to be whole. If not, its end must be there; weights in PyTorch's old format, which
            have none, are believed.

    Raises:
        FetchError: It is empty, a web page, of another format, or cut short.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise FetchError(f"{_name(path)} is empty")
    if _PAGE.match(head):
        raise FetchError(f"{_name(path)} is a web page, not the file")
    zipped, tarred = head.startswith(b"PK\3\4"), _is_tar(path)
    if archive and not (zipped or tarred):
        raise FetchError(f"{_name(path)} is no archive: neither .zip nor .tar, or it is cut short")
    if not archive and not (zipped or head.startswith(b"\x80") or head[4:9] == b"\0\0\0\0{"):
        raise FetchError(f"{_name(path)} holds no weights: it is neither PyTorch's nor a safetensors file")
    if not whole and zipped and not zipfile.is_zipfile(path):
        raise FetchError(f"{_name(path)} is cut short")


def _name(path: Path) -> str:
    return path.name.removeprefix(PART)


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, *_COMPRESSION):
        return False


def _members(archive: Path) -> Iterator[_Member]:
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if info.is_dir() or _JUNK.search(info.filename):
                    continue
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG):
                    raise _refused(archive, info.filename, "no plain file (a link or a device)")
                if info.flag_bits & 1:
                    raise _refused(archive, info.filename, "encrypted")
                with opened.open(info) as file:
                    yield _Member(info.filename, info.file_size, file)
        return
    with tarfile.open(archive) as opened:
        for info in opened:
            if info.isdir() or _JUNK.search(info.name):
                continue
            file = opened.extractfile(info) if info.isreg() else None
            if file is None or info.issparse():
                raise _refused(archive, info.name, "no plain file (a link or a device)")
            with file:
                yield _Member(info.name, info.size, file)
        _require_end(archive, opened)


def _require_end(archive: Path, opened: tarfile.TarFile) -> None:
    """A tar ends with blocks of zeros; one that was cut between two files does not."""
    stream = opened.fileobj
    assert stream is not None
    stream.seek(opened.offset)
    if stream.read(tarfile.BLOCKSIZE) != b"\0" * tarfile.BLOCKSIZE:
        raise FetchError(f"{_name(archive)} is cut short")


def _inside(archive: Path, name: str) -> PurePosixPath:
    """The path of a member, if it stays in the folder on every system."""
    path = PurePosixPath(name)
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or not parts or ".." in parts or any(set(part) & set('\\:\0<>|"?*') for part in parts):
        raise _refused(archive, name, "a path that leads elsewhere, or not to a file on every system")
    return PurePosixPath(*parts)


def _refused(archive: Path, name: str, what: str) -> FetchError:
    return FetchError(f"{_name(archive)} is not unpacked: it holds {name!r}, {what}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error


@contextmanager
def _new(archive: Path, target: Path) -> Generator[IO[bytes]]:
    """A file that is not there yet."""
    try:
        with target.open("xb") as file:
            yield file
    except FileExistsError as error:
        raise _refused(archive, target.name, "twice") from error
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}; make room on the disk") from error
