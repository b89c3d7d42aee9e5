"""Downloading a file over HTTP so that a broken-off download goes on where it stopped."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from srquant.support.errors import ArgumentError, FetchError, OutputError, first_line
from srquant.support.files import replacing
from srquant.support.progress import Bar, bar
from srquant.support.settings import Checked, from_json, to_json
from srquant.support.versions import __version__
from srquant.support.wording import counted

if TYPE_CHECKING:
    from requests import Response

LARGEST = 32 << 30
"""Bytes of one file; the largest of the catalogue has 3.5 GB."""
_CHUNK = 1 << 17
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<\?xml|<head|<body)", re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which trying again helps."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Args:
        connect: Seconds until it answers at all.
        read: Seconds without a byte; a slow download may take as long as it takes.
        tries: In a row that bring nothing new.
        pause: Seconds before the second try; doubled before each further one.
    """

    connect: float = 15
    read: float = 60
    tries: int = 4
    pause: float = 1


PATIENCE = Patience()


@dataclass(frozen=True)
class _State(Checked):
    """Of which file a part is, beside the part.

    Args:
        address: Where it is from.
        etag: What the server calls this version of the file; empty if it says nothing.
        modified: When the server's file was changed; empty if it does not say.
        total: Bytes of the whole file; None if the server does not say.
    """

    address: str
    etag: str = ""
    modified: str = ""
    total: int | None = None

    @property
    def validator(self) -> str:
        """By what the server tells whether its file is still the same; weak tags do not tell it of bytes."""
        return self.modified if not self.etag or self.etag.startswith("W/") else self.etag


class _BrokenOffError(Exception):
    """The connection ended, or never began; another try may help."""


def download(address: str, part: Path, size: int | None, title: str, patience: Patience | None = None) -> bool:
    """Download a file, going on with a part of it that is there already.

    The part is used only if the server says that it is of the file it still has (``If-Range``); a server that knows no
    ranges, or has another file by now, sends all of it.

    Args:
        address: ``http`` or ``https``; redirections are followed, but not from ``https`` to ``http``.
        part: Where to write. It stays there after an interruption, with a small file beside it.
        size: Bytes that the file must have; None if that is unknown.
        title: For the progress bar.
        patience: How long to wait; the usual if None.

    Returns:
        Whether the server said how long the file is, and it is; no, where the end of the connection was the only sign.

    Raises:
        FetchError: There is no such file, the server cannot be reached or breaks off again and again, or it is not
            the file: a web page, of another size, empty, or larger than any file may be.
        OutputError: The disk is full, or cannot be written.
    """
    import requests

    patience = patience or PATIENCE
    failures = 0
    while True:
        before = _size(part)
        try:
            with requests.Session() as session:
                return _attempt(session, address, part, size, title, patience)
        except _BrokenOffError as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= patience.tries:
                kept = f"; {_size(part):,} bytes are kept, and the next try goes on from there" if _size(part) else ""
                raise FetchError(f"{error}, {counted(failures, 'time')} in a row{kept}") from error
            time.sleep(patience.pause * 2 ** (failures - 1))


def discard(part: Path) -> None:
    """Remove a part and what is written beside it."""
    part.unlink(missing_ok=True)
    _state_path(part).unlink(missing_ok=True)


def _attempt(session: object, address: str, part: Path, size: int | None, title: str, patience: Patience) -> bool:
    import requests

    assert isinstance(session, requests.Session)
    state = _read_state(part, address)
    have = _size(part) if state is not None else 0
    if state is not None and have and have == state.total:  # stopped just before it was looked at
        return True
    headers = {"Accept-Encoding": "identity", "User-Agent": f"srquant/{__version__}"}
    if state is not None and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": state.validator}
    try:
        response = session.get(address, headers=headers, stream=True, timeout=(patience.connect, patience.read))
    except requests.exceptions.InvalidURL as error:
        raise FetchError(f"{address} is no address") from error
    except requests.exceptions.TooManyRedirects as error:
        raise FetchError("the server sends from one address to the next without end") from error
    except requests.exceptions.SSLError as error:
        raise FetchError(f"the connection is not safe: {_short(error)}") from error
    except requests.exceptions.RequestException as error:
        raise _BrokenOffError(f"the server cannot be reached ({_short(error)})") from error
    with response:
        _check_answer(response, address)
        if response.status_code == 416:
            discard(part)
            raise _BrokenOffError("the server has no more bytes than were fetched already")
        start, total = _extent(response, have, state)
        if start is None:
            discard(part)
            raise _BrokenOffError("the server sent another part than was asked for")
        _check_size(total, size)
        _check_room(part, total, start)
        with bar(title, total, start, in_bytes=True) as shown, _opened(part, start) as file:
            # What the part is of is written when nothing of another file is in it any more.
            _write_state(part, _state_of(response, address, total))
            _copy(response, file, start == 0, start, shown)
    got = _size(part)
    if total is not None and got != total:
        raise _BrokenOffError(f"the connection broke off after {got:,} of {total:,} bytes")
    if got == 0:
        discard(part)
        raise FetchError("the file is empty")
    _check_size(got, size)
    return total is not None or size is not None


def _check_answer(response: Response, address: str) -> None:
    """Refuse an answer that is not the file, nor a part of it."""
    for step in (*response.history, response):
        if address.startswith("https://") and not step.url.startswith("https://"):
            raise FetchError(f"the server leads to {step.url}, where anybody on the way may change the file")
    status = response.status_code
    if status in (200, 206, 416):
        kind = response.headers.get("Content-Type", "").lower()
        if status != 416 and kind.startswith(("text/html", "application/xhtml")):
            raise FetchError("the server sent a web page, not the file; it may have moved")
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding not in ("", "identity"):
            raise FetchError(f"the server sent the file in a coding that was not asked for ({coding})")
        return
    said = f"the server answered {status} ({response.reason})"
    if status in _BUSY:
        raise _BrokenOffError(said)
    meaning = {404: "; the file is not there any more", 410: "; the file is gone", 403: "; it may not be fetched"}
    raise FetchError(said + meaning.get(status, ""))


def _extent(response: Response, have: int, state: _State | None) -> tuple[int | None, int | None]:
    """Where what is sent begins (None: not where it should) and how long the whole file is (None: nobody says)."""
    length = response.headers.get("Content-Length", "")
    sent = int(length) if length.isdecimal() else None
    if response.status_code == 200:
        return 0, sent
    said = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if said is None or int(said[1]) != have or state is None:
        return None, None
    total = int(said[2]) if said[2] != "*" else (None if sent is None else have + sent)
    return (None, None) if state.total not in (None, total) else (have, total)


def _check_size(found: int | None, size: int | None) -> None:
    if found is not None and size is not None and found != size:
        raise FetchError(f"the file has {found:,} bytes and should have {size:,}: it is another one")
    if found is not None and found > LARGEST:
        raise FetchError(f"the file has {found:,} bytes; at most {LARGEST:,} are fetched")


def _check_room(part: Path, total: int | None, start: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise OutputError(
            f"cannot write {part.parent}: {total - start:,} bytes are still to come and {free:,} are free; make room, "
            f"or set SRQUANT_CACHE to a folder on another disk"
        )


def _copy(response: Response, file: IO[bytes], first: bool, written: int, shown: Bar) -> None:
    """Write what comes; what came is kept if the connection ends."""
    from urllib3.exceptions import HTTPError

    while True:
        try:
            chunk: bytes = response.raw.read1(_CHUNK, decode_content=False)
        except (HTTPError, ConnectionError, TimeoutError) as error:
            raise _BrokenOffError(f"the connection broke off ({_short(error)})") from error
        if not chunk:
            return
        if first and _PAGE.match(chunk):
            raise FetchError("the server sent a web page, not the file; it may have moved")
        first = False
        written += len(chunk)
        if written > LARGEST:
            raise FetchError(f"the file has more than {LARGEST:,} bytes, the most that are fetched")
        file.write(chunk)
        shown.advance(len(chunk))


@contextmanager
def _opened(part: Path, start: int) -> Generator[IO[bytes]]:
    """The part, to be written on from there."""
    try:
        with part.open("r+b" if start else "wb") as file:
            if start:
                file.truncate(start)
                file.seek(start)
            yield file
    except OSError as error:
        raise OutputError(
            f"cannot write {part}: {error.strerror or error}; make room, or set SRQUANT_CACHE to another folder"
        ) from error


def _state_of(response: Response, address: str, total: int | None) -> _State:
    headers: Mapping[str, str] = response.headers
    return _State(address, headers.get("ETag", ""), headers.get("Last-Modified", ""), total)


def _state_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path, address: str) -> _State | None:
    """What is known of a part; None if it is of another address, or if nobody could tell whether the file changed."""
    try:
        state = from_json(_State, _state_path(part).read_bytes())
    except (OSError, ArgumentError):
        return None
    return state if state.address == address and state.validator else None


def _write_state(part: Path, state: _State) -> None:
    with replacing(_state_path(part)) as temporary:
        temporary.write_text(json.dumps(to_json(state)) + "\n")


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except OSError:
        return 0


def _short(error: BaseException) -> str:
    """What went wrong in a library of many layers: the innermost words."""
    inner: object = error
    while isinstance(inner, BaseException):
        error = inner
        among = (getattr(error, "reason", None), *error.args)
        inner = next((one for one in among if isinstance(one, BaseException)), None)
    text = first_line(error)
    return text.rpartition("): ")[2] if text.startswith("HTTP") else text
