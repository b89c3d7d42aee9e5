"""Writing files so that an interruption loses nothing.

A process that is killed cannot remove its temporary file. The name of that file therefore says who writes it, and the
next one who writes into the same folder removes what nobody writes any more.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from srquant.support.errors import OutputError

_ABANDONED = 24 * 3600
"""Seconds without a change after which a temporary file is taken for abandoned, whoever wrote it."""
_NAME = re.compile(r"\.srquant-(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-(?P<run>[0-9a-f]{8})-[0-9a-f]{8}(\.[^.]*)?")
_RUN = secrets.token_hex(4)
"""Tells this process from an earlier one of the same number."""
PICTURES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".avif"),
    *(".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi"),
)
"""Endings of file names that are taken for pictures, in lower case."""
_LONGEST_SUFFIX = 16
"""Characters of an ending that a temporary name keeps: writers may read the format off it; other endings are none."""
is_file, is_folder = os.path.isfile, os.path.isdir
"""Whether there is one; no, where the path can be none, being too long or behind a closed folder."""


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Give a temporary path in the folder of ``path``; rename it to ``path`` on success.

    If the body raises (Ctrl-C included) the temporary file is removed and whatever stood at
    ``path`` before stays untouched. Temporary files in this folder whose process was killed are removed.
    The new file has the permissions of the one that it replaces. Where ``path`` is a link, the file that it leads to is
    replaced, and the link stays. The content is on the disk before the name is given to it, so that a loss of power
    leaves the old file or the new one.

    Raises:
        OutputError: The folder or the file cannot be written, or the disk is full.
    """
    require_writable(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    _remove_abandoned(target.parent)
    temporary = _temporary(target)
    try:
        temporary.touch()
        # As the user's umask has it, or the file before; some writers make files of other permissions.
        mode = stat.S_IMODE((target if target.exists() else temporary).stat().st_mode)
        temporary.chmod(mode | 0o600)
        yield temporary
        _keep(temporary)
        temporary.chmod(mode)
        temporary.replace(target)
        with suppress(OSError):  # not every file system knows this of a folder
            _keep(target.parent)
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) != temporary:
            raise  # the body failed on a file of its own
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _keep(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY if path.is_dir() or os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def require_writable(path: Path) -> None:
    """Check, before long work starts, that ``path``, or the file that it links to, can be written; create its folder.

    Raises:
        OutputError: ``path`` is a folder, or its folder cannot be created or written.
    """
    try:
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give a file name")
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not _writable_mode(target.parent):
            raise PermissionError(13, "the folder is read-only")
        probe = _temporary(target)
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise OutputError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; choose a folder that can be written"
        ) from error
    if path.exists() and not _writable_mode(path):
        raise OutputError(f"cannot write {path}: the file is read-only; remove it or choose another name")


def _temporary(path: Path) -> Path:
    """A new name beside ``path``, hidden, that says who writes there."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    return path.with_name(f".srquant-{_machine()}-{os.getpid()}-{_RUN}-{secrets.token_hex(4)}{suffix}")


def is_temporary(path: Path) -> bool:
    """Whether a file has the name of one that :func:`replacing` writes."""
    return _NAME.fullmatch(path.name) is not None


def _remove_abandoned(folder: Path) -> None:
    with suppress(OSError):  # a folder that can be written and not listed
        for file in os.scandir(folder):
            name = _NAME.fullmatch(file.name)
            if name is not None:
                with suppress(OSError):  # another process has just removed or renamed it
                    if _is_abandoned(name, file.stat().st_mtime):
                        Path(file).unlink()


def _is_abandoned(name: re.Match[str], changed: float) -> bool:
    """Whether a temporary file of this name, last changed at this time, is written by nobody any more."""
    if time.time() - changed > _ABANDONED:
        return True
    if name["machine"] != _machine():
        return False  # on a shared disk; who runs on the other machine is unknown here
    process = int(name["process"])
    return name["run"] != _RUN if process == os.getpid() else not _runs(process)


def _runs(process: int) -> bool:
    """Whether there is a process of this number; assumed where asking would end it."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _machine() -> str:
    """Where process numbers have one meaning: the machine, and inside it the container."""
    container = Path("/proc/self/ns/pid")
    inside = container.readlink() if container.is_symlink() else ""
    return hashlib.sha256(f"{socket.gethostname()} {inside}".encode()).hexdigest()[:8]


def require_apart(output: Path, *inputs: Path | None, below: bool = False) -> None:
    """Check, before long work starts, that what is read is not overwritten.

    An input file is known by whatever path or link leads to it. A picture is not written among the pictures of an input
    folder either: the next run would take it for one of them.

    Args:
        output: The file to write.
        inputs: Files and folders that are read; None for those that were not given.
        below: Whether folders are read with all folders in them.

    Raises:
        OutputError: It is an input, or would become one.
    """
    for source in inputs:
        if source is None:
            continue
        if same_file(output, source):
            raise OutputError(f"cannot write {output}: it is {source}, which is read; choose another name")
        target = output.resolve()
        folders = target.parents if below else (target.parent,)
        if target.suffix.lower() in PICTURES and is_folder(source) and source.resolve() in folders:
            raise OutputError(
                f"cannot write {output}: pictures are read from {source}, and it would be one of them in the next "
                f"run; choose another folder"
            )


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file or folder, or would."""
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()


def _writable_mode(path: Path) -> bool:
    """Whether anybody may write ``path``. The mode counts for the superuser too, who asked for protection by it."""
    return bool(path.stat().st_mode & 0o222)
