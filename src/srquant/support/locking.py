"""Several processes that change one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, waiting: Callable[[], None] | None = None) -> Generator[None]:
    """Be the only process that works under this lock in a folder; wait for the others.

    The lock ends with the process, however that ends, and leaves no file. Where the system or the disk knows no locks
    of folders (Windows, some network disks) nothing is waited for.

    Args:
        folder: Where the work is done.
        waiting: Called once if another process has the lock, before it is waited for.
    """
    number = None
    try:
        import fcntl

        number = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(number, fcntl.LOCK_EX)
    except (ImportError, OSError):
        pass
    try:
        yield
    finally:
        if number is not None:
            os.close(number)
