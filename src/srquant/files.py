"""Writing files so that an interruption loses nothing."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from srquant.errors import OutputError


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Give a temporary path in the folder of ``path``; rename it to ``path`` on success.

    If the body raises (Ctrl-C included) the temporary file is removed and whatever stood at
    ``path`` before stays untouched.

    Raises:
        OutputError: The folder or the file cannot be written.
    """
    require_writable(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user's umask has it; some writers make files private
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) != temporary:
            raise  # the body failed on a file of its own
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Check, before long work starts, that ``path`` can be written; create its folder.

    Raises:
        OutputError: ``path`` is a folder, or its folder cannot be created or written.
    """
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give a file name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _writable_mode(path.parent):
            raise PermissionError(13, "the folder is read-only")
        probe = path.parent / f".{secrets.token_hex(8)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that can be written"
        ) from error
    if path.exists() and not _writable_mode(path):
        raise OutputError(f"cannot write {path}: the file is read-only; remove it or choose another name")


def _writable_mode(path: Path) -> bool:
    """Whether anybody may write ``path``. The mode counts for the superuser too, who asked for protection by it."""
    return bool(path.stat().st_mode & 0o222)
