"""Bringing what has a name into the cache, once, and seeing that it stays what it was."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from srquant.fetching.cache import (
    CONTENT,
    RECEIPT,
    VARIABLE,
    FileRecord,
    Receipt,
    cache_folder,
    changes,
    files_below,
    read_receipt,
    write_receipt,
)
from srquant.fetching.catalogue import Entry, entries
from srquant.fetching.downloading import discard, download
from srquant.fetching.unpacking import PART, check_content, unpack
from srquant.support.errors import FetchError, OutputError, UnknownNameError
from srquant.support.files import is_file, is_folder, require_writable
from srquant.support.locking import locked

_UNPACKING = ".unpacking"
_NAMED = 3
"""Changed files that a message names; the others are counted."""


def fetch(name: str, *, again: bool = False, check: bool = False) -> Path:
    """Bring a network or data set of the catalogue into the cache, unless it is there, and give its path.

    A file whose checksum is published must have it. Of others the checksum is written down when they are first fetched,
    and they are called unverified. What is in the cache must stay what it was: if it was changed since, it is refused.
    An interrupted download goes on where it stopped. Of several processes one fetches, and the others wait.

    Args:
        name: As ``srquant fetch`` lists it.
        again: Fetch it once more, though it is there; it must be the same file.
        check: Read all of it, to see that it is unchanged. Otherwise only weights are read, and of data those files
            whose size or time of change is another.

    Returns:
        The file of weights, or the folder of the pictures.

    Raises:
        UnknownNameError: There is no such name.
        FetchError: It cannot be fetched, or is not what it should be; the message says how to put it there by hand.
        OutputError: The cache cannot be written.
    """
    known = entries()
    if name not in known:
        raise UnknownNameError("name", name, known)
    return place_of(known[name]).fetch(again=again, check=check)


def place_of(entry: Entry) -> Place:
    """Where an entry is kept, or will be."""
    origin = entries()[entry.part_of] if entry.part_of else entry
    return Place(entry, origin, cache_folder() / origin.name)


@dataclass(frozen=True)
class Place:
    """Where an entry is kept.

    Args:
        entry: What was asked for.
        origin: The entry whose file it is in: itself, unless it is part of another's archive.
        folder: Of the origin in the cache.
    """

    entry: Entry
    origin: Entry
    folder: Path

    @property
    def file(self) -> Path:
        """The file that is fetched, or that a person puts there; for what is by hand, the folder."""
        return self.folder / (self.origin.file or self.origin.folder)

    @property
    def start(self) -> Path:
        """The file or folder that is used."""
        return self.folder / CONTENT if self.origin.is_archive else self.file

    @property
    def receipt(self) -> Receipt | None:
        """What is written down; None if it was not fetched."""
        return read_receipt(self.folder)

    def fetch(self, *, again: bool = False, check: bool = False) -> Path:
        """Bring it into the cache unless it is there; see :func:`fetch`."""
        receipt = self.receipt
        if receipt is None or again:
            receipt = self._brought(receipt)
        found = changes(self.folder, receipt, self.start, thorough=check or self.entry.is_weights)
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            raise FetchError(
                f"{self.entry.name} in {self.folder} was changed since it was fetched, and is not used: "
                f"{', '.join(found[:_NAMED])}{more}; fetch it anew with: srquant fetch {self.entry.name} --again"
            )
        return self._wanted()

    def _brought(self, before: Receipt | None) -> Receipt:
        """Bring it there, being the only process that does.

        Args:
            before: What is written down, if it is fetched again.
        """
        if not is_folder(self.folder):
            require_writable_cache(self.folder)
        with locked(self.folder, lambda: _say(f"waiting for another process that fetches {self.origin.name}")):
            there = self.receipt
            if there is not None and there != before:  # the other process has brought it
                return there
            by_hand = before is None and (is_folder(self.file) if self.origin.by_hand else is_file(self.file))
            if self.origin.by_hand and not by_hand:
                raise FetchError(f"{self.entry.name} is not fetched by programs. {self._by_hand()}")
            try:
                return self._kept_by_hand() if by_hand else self._downloaded(before)
            except FetchError as error:
                source = self.file if by_hand else self.origin.address
                raise FetchError(
                    f"{self.entry.name} cannot be {'used' if by_hand else 'fetched'} from {source}: {error}. "
                    f"{self._by_hand()}"
                ) from error

    def _downloaded(self, before: Receipt | None) -> Receipt:
        require_writable_cache(self.folder)
        part = self.folder / f"{PART}{self.origin.file}"
        _say(f"fetching {self.origin.name} ({self.origin.license}) from {self.origin.address}")
        try:
            whole = download(self.origin.address, part, self.origin.bytes, self.origin.name)
        except KeyboardInterrupt:
            _say(f"what was fetched of {self.origin.name} is kept; the next try goes on from there")
            raise
        try:
            found = self._checked(part, whole, before)
            if self.origin.is_archive:
                self._unpack(part)
            else:
                part.replace(self.file)
        except FetchError:
            discard(part)
            raise
        receipt = self._written_down(found, by_hand=False)
        discard(part)
        _say(f"{self.origin.name}: {receipt.bytes:,} bytes, {receipt.describe()}, in {self.folder}")
        return receipt

    def _kept_by_hand(self) -> Receipt:
        """Take what a person put there, and leave it where it is."""
        if self.origin.by_hand:
            return self._written_down(None, by_hand=True)
        found = self._checked(self.file, False, None)
        if self.origin.is_archive:
            require_writable_cache(self.folder)
            self._unpack(self.file)
        return self._written_down(found, by_hand=True)

    def _checked(self, file: Path, whole: bool, before: Receipt | None) -> FileRecord:
        """Look at a file's bytes.

        Raises:
            FetchError: It is not the file that is published, or that was fetched before, or cannot be one of its kind.
        """
        origin, found = self.origin, FileRecord.of(file)
        if origin.sha256:
            if not found.sha256.startswith(origin.sha256):
                raise FetchError(
                    f"its checksum is {found.sha256[: len(origin.sha256)]} and should be {origin.sha256} "
                    f"({origin.checksum_from}): it was changed there, or on the way"
                )
        else:
            check_content(file, archive=origin.is_archive, whole=whole)
        if before is not None and before.sha256 not in ("", found.sha256):
            raise FetchError(
                f"it is another file now: its checksum is {found.sha256}, and was {before.sha256} when it was first "
                f"fetched ({before.fetched}). To take the new one, remove {self.folder}"
            )
        return found

    def _unpack(self, archive: Path) -> None:
        fresh = self.folder / _UNPACKING
        _remove(fresh)  # of a process that was killed
        try:
            unpack(archive, fresh)
            _remove(self.start)
            fresh.replace(self.start)
        finally:
            _remove(fresh)

    def _written_down(self, found: FileRecord | None, *, by_hand: bool) -> Receipt:
        origin = self.origin
        receipt = Receipt(
            address=origin.address,
            bytes=found.bytes if found else 0,
            sha256=found.sha256 if found else "",
            verified=origin.checksum_from,
            by_hand=by_hand,
            fetched=datetime.now(UTC).isoformat(timespec="seconds"),
            files={name: FileRecord.of(path) for name, path in files_below(self.folder, self.start).items()},
        )
        try:
            write_receipt(self.folder, receipt)
        except OutputError:
            if not receipt.verified or origin.is_archive:  # else it can be verified anew each time
                raise
        return receipt

    def _wanted(self) -> Path:
        """The file, or the folder that the entry names in what was unpacked.

        Raises:
            FetchError: There is no such folder, or there are several.
        """
        if not self.origin.is_archive:
            return self.start
        if not self.entry.folder:
            return _innermost(self.start)
        named = [path for path in _folders(self.start) if path.name == self.entry.folder]
        if len(named) != 1:
            there = ", ".join(sorted(path.name for path in _innermost(self.start).iterdir()))
            raise FetchError(f"{self.origin.file} holds {len(named)} folders {self.entry.folder}; it holds {there}")
        return named[0]

    def _by_hand(self) -> str:
        """What a person can do."""
        again = f"and give the same command again. The cache is another folder if {VARIABLE} says so"
        if self.origin.by_hand:
            return (
                f"Get it by hand: {self.origin.by_hand} ({self.origin.page}; {self.origin.license}); put it into "
                f"{self.file}, {again}"
            )
        return f"By hand: download {self.origin.address} ({self.origin.license}), put it there as {self.file}, {again}"


def require_writable_cache(folder: Path) -> None:
    """Make a folder in the cache.

    Raises:
        OutputError: It cannot be made or written.
    """
    try:
        require_writable(folder / RECEIPT)
    except OutputError as error:
        raise OutputError(f"{error}; set {VARIABLE} to one, for instance {VARIABLE}=~/srquant-cache") from error


def _innermost(folder: Path) -> Path:
    """Down through folders that hold one folder and nothing else."""
    while len(inside := list(folder.iterdir())) == 1 and is_folder(inside[0]):
        folder = inside[0]
    return folder


def _folders(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if is_folder(path):
            yield path
            yield from _folders(path)


def _remove(path: Path) -> None:
    if is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
