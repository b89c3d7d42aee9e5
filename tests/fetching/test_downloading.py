"""Downloads against a server that is slow, breaks off, has moved, is gone, or sends something else."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from requests import Response
from tests.fetching.serving import Server

from srquant.fetching import downloading
from srquant.fetching.downloading import Patience, discard, download
from srquant.support.errors import FetchError, OutputError

CONTENT = random.Random(0).randbytes(300_000)
LIMIT = 3


@pytest.fixture
def part(tmp_path: Path, cache: Path) -> Path:
    return tmp_path / ".part-file"


def test_a_file_is_fetched_once(server: Server, part: Path) -> None:
    assert download(server.add("file", CONTENT), part, len(CONTENT), "file")
    assert part.read_bytes() == CONTENT
    assert server.requests == [("/file", "")]


@pytest.mark.parametrize("modified", [False, True], ids=["etag", "modified"])
def test_a_broken_download_goes_on_where_it_broke(server: Server, part: Path, modified: bool) -> None:
    tags = {"etag": "", "modified": "Tue, 01 Dec 2026 00:00:00 GMT"} if modified else {}
    address = server.add("file", CONTENT, break_after=[100_000, 50_000], **tags)
    assert download(address, part, None, "file")
    assert part.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "bytes=100000-", "bytes=150000-"]


def test_a_later_run_goes_on_too(server: Server, part: Path) -> None:
    address = server.add("file", CONTENT, break_after=[1000, 0, 0, 0])
    with pytest.raises(FetchError, match=r"3 times in a row; 1,000 bytes are kept"):
        download(address, part, None, "file")
    server.files["/file"].break_after.clear()
    assert download(address, part, None, "file")
    assert part.read_bytes() == CONTENT
    assert server.requests[-1] == ("/file", "bytes=1000-")


@pytest.mark.parametrize("how", [{"ranges": False}, {"etag": ""}, {"etag": 'W/"1"'}], ids=["none", "no tag", "weak"])
def test_a_server_without_ranges_or_tags_sends_it_anew(server: Server, part: Path, how: dict[str, object]) -> None:
    """Bytes of two versions of a file are never put together."""
    address = server.add("file", CONTENT, break_after=[100_000], **how)
    assert download(address, part, None, "file")
    assert part.read_bytes() == CONTENT


def test_a_file_that_changed_while_it_was_away_is_fetched_anew(server: Server, part: Path) -> None:
    address = server.add("file", CONTENT, break_after=[100_000, 0, 0, 0])
    with pytest.raises(FetchError):
        download(address, part, None, "file")
    other = CONTENT[::-1]
    server.add("file", other, etag='"2"')
    assert download(address, part, None, "file")
    assert part.read_bytes() == other


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_between_two_versions_of_a_file(
    server: Server, part: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whenever a run ends that has begun anew, the next one takes nothing of the old file for the new one's."""
    address = server.add("file", CONTENT, break_after=[100_000, 0, 0, 0])
    with pytest.raises(FetchError):
        download(address, part, None, "file")
    other = CONTENT[::-1]
    server.add("file", other, etag='"2"')
    write = downloading._write_state

    def killed(*given: Any) -> None:
        if moment == "after":
            write(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(downloading, "_write_state", killed)
        download(address, part, None, "file")
    assert download(address, part, None, "file")
    assert part.read_bytes() == other


@pytest.mark.parametrize("seed", range(5))
def test_however_often_it_breaks(server: Server, part: Path, seed: int) -> None:
    drawn = random.Random(seed)
    breaks = [drawn.randrange(1, 60_000) for _ in range(20)]
    ways = {"ranges": drawn.random() < 0.7, "chunked": drawn.random() < 0.5}
    address = server.add("file", CONTENT, break_after=breaks, **ways)
    download(address, part, None, "file", Patience(pause=0, tries=30))
    assert part.read_bytes() == CONTENT


def test_a_part_of_another_address_is_not_used(server: Server, part: Path) -> None:
    with pytest.raises(FetchError):
        download(server.add("one", CONTENT, break_after=[100_000, 0, 0, 0]), part, None, "one")
    assert download(server.add("other", CONTENT[::-1]), part, None, "other")
    assert part.read_bytes() == CONTENT[::-1]


def test_a_server_that_sends_another_part_than_asked_for(server: Server, part: Path) -> None:
    address = server.add("file", CONTENT, break_after=[100_000], wrong_start=True)
    assert download(address, part, None, "file")
    assert part.read_bytes() == CONTENT


def test_what_is_there_whole_is_not_asked_for_again(server: Server, part: Path) -> None:
    address = server.add("file", CONTENT)
    download(address, part, None, "file")
    assert download(address, part, None, "file")
    assert len(server.requests) == 1


def test_a_slow_server_takes_as_long_as_it_takes(server: Server, part: Path) -> None:
    address = server.add("file", CONTENT[: 6 << 14], pause=0.1)
    assert download(address, part, None, "file", Patience(read=0.4, tries=1))
    assert part.read_bytes() == CONTENT[: 6 << 14]


def test_a_silent_server_is_given_up(server: Server, part: Path) -> None:
    address = server.add("file", CONTENT, pause=3)
    with pytest.raises(FetchError, match="broke off"):
        download(address, part, None, "file", Patience(read=0.2, tries=1))


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut"])
def test_chunks_without_a_length(server: Server, part: Path, whole: bool) -> None:
    """Their end is marked, and a missing mark noticed."""
    address = server.add("file", CONTENT, chunked=True, length=False, break_after=[] if whole else [1000] * LIMIT)
    if whole:
        assert not download(address, part, None, "file")
        assert download(address, part, len(CONTENT), "file")
        assert part.read_bytes() == CONTENT
    else:
        with pytest.raises(FetchError, match="broke off"):
            download(address, part, None, "file", Patience(tries=1))


def test_without_any_length_the_size_is_the_only_witness(server: Server, part: Path) -> None:
    address = server.add("file", CONTENT, length=False, break_after=[1000])
    assert not download(address, part, None, "file")
    discard(part)
    server.files["/file"].break_after.append(1000)
    with pytest.raises(FetchError, match="has 1,000 bytes and should have 300,000"):
        download(address, part, len(CONTENT), "file")


def test_redirections_are_followed(server: Server, part: Path) -> None:
    server.add("file", CONTENT)
    assert download(server.add("moved", b"", redirect="/file"), part, None, "file")
    assert part.read_bytes() == CONTENT


def test_an_endless_redirection(server: Server, part: Path) -> None:
    with pytest.raises(FetchError, match="without end"):
        download(server.add("round", b"", redirect="/round"), part, None, "file")


@pytest.mark.parametrize("last", ["http://example.org/file", "https://example.org/file"])
def test_nobody_is_led_from_a_safe_to_an_open_address(last: str) -> None:
    """Not on the way either."""
    step, answer = Response(), Response()
    step.url, answer.url, answer.status_code = "http://example.org/step", last, 200
    answer.history = [step]
    with pytest.raises(FetchError, match="anybody on the way may change"):
        downloading._check_answer(answer, "https://example.org/file")
    answer.history = []
    downloading._check_answer(answer, last)


@pytest.mark.parametrize(
    ("status", "said"), [(404, "not there any more"), (410, "gone"), (403, "may not"), (400, "400")]
)
def test_a_file_that_is_gone_is_not_asked_for_twice(server: Server, part: Path, status: int, said: str) -> None:
    address = server.add("file", CONTENT, answers=[status] * LIMIT)
    with pytest.raises(FetchError, match=said):
        download(address, part, None, "file")
    assert len(server.requests) == 1
    assert not part.exists()


def test_a_busy_server_is_asked_again(server: Server, part: Path) -> None:
    assert download(server.add("file", CONTENT, answers=[503, 429]), part, None, "file")
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"], ids=["said", "hidden"])
def test_a_page_in_the_place_of_the_file(server: Server, part: Path, kind: str) -> None:
    address = server.add("file", b"\n <!DOCTYPE html><title>Sign in</title>", kind=kind)
    with pytest.raises(FetchError, match="web page"):
        download(address, part, None, "file")
    assert not part.exists() or part.stat().st_size == 0


def test_an_empty_file(server: Server, part: Path) -> None:
    with pytest.raises(FetchError, match="empty"):
        download(server.add("file", b""), part, None, "file")
    assert not part.exists()


def test_a_file_of_another_size_is_not_even_begun(server: Server, part: Path) -> None:
    with pytest.raises(FetchError, match="has 300,000 bytes and should have 299,999"):
        download(server.add("file", CONTENT), part, len(CONTENT) - 1, "file")
    assert not part.exists()


def test_a_file_without_end(server: Server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "LARGEST", 100_000)
    with pytest.raises(FetchError, match="at most 100,000"):
        download(server.add("file", CONTENT), part, None, "file")
    with pytest.raises(FetchError, match="more than 100,000"):
        download(server.add("chunks", CONTENT, chunked=True, length=False), part, None, "file")


def test_a_coding_nobody_asked_for(server: Server, part: Path) -> None:
    with pytest.raises(FetchError, match="coding"):
        download(server.add("file", CONTENT, coding="gzip"), part, None, "file")


def test_a_full_disk(server: Server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(part.parent)._replace(free=1000)
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="300,000 bytes are still to come and 1,000 are free"):
        download(server.add("file", CONTENT), part, None, "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_fills_up(server: Server, part: Path) -> None:
    part.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        download(server.add("file", CONTENT), part, None, "file")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/file", "http://nowhere.invalid/file"])
def test_without_a_connection(part: Path, address: str) -> None:
    with pytest.raises(FetchError, match="cannot be reached"):
        download(address, part, None, "file", Patience(connect=1, tries=2, pause=0))
