"""The folder in which fetched files are kept, and what is written down about each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from srquant.support.errors import ArgumentError, FetchError
from srquant.support.files import is_folder, replacing
from srquant.support.settings import Checked, from_json, to_json

VARIABLE = "SRQUANT_CACHE"
RECEIPT = "receipt.json"
CONTENT = "content"
"""Folder of what an archive held."""


def cache_folder() -> Path:
    """Where fetched files are kept: ``SRQUANT_CACHE``, or where the system keeps such files."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("srquant", appauthor=False)


@dataclass(frozen=True)
class FileRecord(Checked):
    """A file as it was when it was fetched.

    Args:
        bytes: Its size.
        changed: Time of its last change, nanoseconds.
        sha256: Of its content.
    """

    bytes: Annotated[int, Field(ge=0)]
    changed: int
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Look at a file.

        Raises:
            FetchError: It cannot be read.
        """
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            status = path.stat()
        except OSError as error:
            raise FetchError(f"{path} cannot be read: {error.strerror or error}") from error
        return cls(status.st_size, status.st_mtime_ns, digest)


@dataclass(frozen=True)
class Receipt(Checked):
    """What was fetched, and how it can be told from everything else.

    Args:
        address: Where it was fetched from.
        bytes: Size of the file that was fetched.
        sha256: Its checksum.
        verified: Who published the checksum that it was compared with; empty if nobody did, and it was only written
            down.
        by_hand: Whether a person put it here.
        fetched: When, UTC.
        files: What is here: the file, or what the archive held; by path from this folder.
    """

    address: str
    bytes: int
    sha256: str
    verified: str
    by_hand: bool
    fetched: str
    files: dict[str, FileRecord] = field(default_factory=dict[str, FileRecord])

    def describe(self) -> str:
        """How sure one may be, in a few words."""
        return f"verified ({self.verified})" if self.verified else "unverified, as first fetched"


def read_receipt(folder: Path) -> Receipt | None:
    """What is written down in a folder; None if nothing is, or nothing that can be read."""
    try:
        return from_json(Receipt, (folder / RECEIPT).read_bytes())
    except (OSError, ArgumentError):
        return None


def write_receipt(folder: Path, receipt: Receipt) -> None:
    """Write it down.

    Raises:
        OutputError: The folder cannot be written.
    """
    with replacing(folder / RECEIPT) as temporary:
        temporary.write_text(json.dumps(to_json(receipt), indent=1) + "\n", encoding="utf-8")


def files_below(folder: Path, start: Path) -> dict[str, Path]:
    """All files at or below a path, by their paths from a folder."""

    def walk(path: Path) -> Iterator[Path]:
        if not path.is_symlink() and is_folder(path):
            for child in sorted(path.iterdir()):
                yield from walk(child)
        elif path.is_symlink() or path.exists():
            yield path

    return {path.relative_to(folder).as_posix(): path for path in walk(start)}


def changes(folder: Path, receipt: Receipt, start: Path, *, thorough: bool) -> list[str]:
    """What is not as it was written down, in words.

    Args:
        folder: Of the receipt.
        receipt: What was written down.
        start: The file or folder that is looked at, in the folder.
        thorough: Read every file; else only those whose size or time of change is another.

    Raises:
        FetchError: A file cannot be read.
    """
    there = files_below(folder, start)
    found = [f"{name} is missing" for name in receipt.files if name not in there]
    for name, path in there.items():
        was = receipt.files.get(name)
        if was is None or path.is_symlink():
            found.append(f"{name} was not there")
            continue
        status = path.stat()
        if status.st_size != was.bytes:
            found.append(f"{name} has {status.st_size:,} bytes and had {was.bytes:,}")
        elif (thorough or status.st_mtime_ns != was.changed) and FileRecord.of(path).sha256 != was.sha256:
            found.append(f"{name} has another content")
    return found
