"""From a name to a file in the cache that is whole, right, and stays what it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.fetching.conftest import Knows, sha256, tarred, zipped
from tests.fetching.serving import Server

from srquant.fetching import fetching
from srquant.fetching.cache import cache_folder, read_receipt
from srquant.fetching.fetching import fetch
from srquant.support.errors import FetchError, OutputError, UnknownNameError

ROOT = Path(__file__).parents[2]


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_weights_with_a_published_checksum(
    server: Server, cache: Path, knows: Knows, weights: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    address = server.add("net-1234.pt", weights)
    knows(net={"address": address, "sha256": sha256(weights)[:8], "checksum_from": "release", "bytes": len(weights)})
    path = fetch("net")
    assert path == cache / "net/net-1234.pt"
    assert path.read_bytes() == weights
    assert everything(cache) == {"net/net-1234.pt", "net/receipt.json"}
    receipt = read_receipt(cache / "net")
    assert receipt is not None
    assert (receipt.address, receipt.sha256, receipt.bytes) == (address, sha256(weights), len(weights))
    assert receipt.describe() == "verified (release)"
    said = capsys.readouterr().err
    assert f"fetching net (MIT) from {address}" in said
    assert "verified (release)" in said
    assert fetch("net") == path
    assert len(server.requests) == 1
    assert capsys.readouterr().err == ""


def test_without_a_published_checksum_it_is_written_down_and_called_unverified(
    server: Server, cache: Path, knows: Knows, weights: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    knows(net={"address": server.add("net.pt", weights)})
    fetch("net")
    assert json.loads((cache / "net/receipt.json").read_text())["sha256"] == sha256(weights)
    assert "unverified, as first fetched" in capsys.readouterr().err


def test_a_wrong_checksum(server: Server, cache: Path, knows: Knows, weights: bytes) -> None:
    address = server.add("net.pt", weights)
    knows(net={"address": address, "sha256": "00112233", "checksum_from": "release"})
    with pytest.raises(FetchError, match=rf"its checksum is {sha256(weights)[:8]} and should be 00112233 \(release\)"):
        fetch("net")
    assert everything(cache) == set(), "what is wrong is not kept, nor used by the next run"


def test_nothing_else_is_taken_for_weights(server: Server, cache: Path, knows: Knows) -> None:
    knows(net={"address": server.add("net.pt", b"quota exceeded")})
    with pytest.raises(FetchError, match="holds no weights"):
        fetch("net")
    assert everything(cache) == set()


def test_what_cannot_be_fetched_can_be_put_there_by_hand(
    server: Server, cache: Path, knows: Knows, weights: bytes
) -> None:
    knows(net={"address": f"{server.address}/net.pt"})
    with pytest.raises(FetchError) as failed:
        fetch("net")
    said = str(failed.value)
    assert "404" in said
    assert f"download {server.address}/net.pt (MIT), put it there as {cache / 'net/net.pt'}" in said
    assert "SRQUANT_CACHE" in said
    (cache / "net").mkdir(exist_ok=True)
    (cache / "net/net.pt").write_bytes(weights)
    assert fetch("net").read_bytes() == weights
    receipt = read_receipt(cache / "net")
    assert receipt is not None
    assert receipt.by_hand


def test_what_was_put_there_by_hand_is_looked_at(server: Server, cache: Path, knows: Knows, weights: bytes) -> None:
    knows(
        net={"address": f"{server.address}/net.pt"},
        sure={"address": f"{server.address}/net.pt", "sha256": sha256(weights), "checksum_from": "x"},
    )
    for name in ("net", "sure"):
        (cache / name).mkdir(parents=True)
        (cache / name / "net.pt").write_bytes(weights[:-100])
    with pytest.raises(FetchError, match=r"net cannot be used from .*net.pt is cut short"):
        fetch("net")
    with pytest.raises(FetchError, match="its checksum is"):
        fetch("sure")
    assert (cache / "sure/net.pt").exists(), "what a person put there is the person's"


def test_an_archive(server: Server, cache: Path, knows: Knows, benchmark: Path) -> None:
    knows(
        sets={"kind": "sets", "address": server.add("benchmark.tar", tarred(benchmark))},
        five={"kind": "pairs", "part_of": "sets", "folder": "Set5", "high": "HR"},
        hundred={"kind": "pairs", "part_of": "sets", "folder": "B100", "high": "HR"},
        none={"kind": "pairs", "part_of": "sets", "folder": "Set14", "high": "HR"},
    )
    assert fetch("five") == cache / "sets/content/benchmark/Set5"
    assert fetch("hundred") == cache / "sets/content/benchmark/B100"
    assert fetch("sets") == cache / "sets/content/benchmark"
    assert len(server.requests) == 1, "one archive serves all its parts"
    assert not (cache / "sets/benchmark.tar").exists(), "the archive is not kept beside its content"
    with pytest.raises(FetchError, match="holds 0 folders Set14; it holds B100, Set5"):
        fetch("none")


def test_an_archive_put_there_by_hand_stays(server: Server, cache: Path, knows: Knows, benchmark: Path) -> None:
    knows(sets={"kind": "sets", "address": f"{server.address}/benchmark.tar.gz"})
    (cache / "sets").mkdir(parents=True)
    (cache / "sets/benchmark.tar.gz").write_bytes(tarred(benchmark, "gz"))
    assert (fetch("sets") / "Set5/HR/0.png").is_file()
    assert (cache / "sets/benchmark.tar.gz").is_file()
    assert server.requests == []


def test_a_damaged_archive_leaves_nothing(server: Server, cache: Path, knows: Knows, benchmark: Path) -> None:
    knows(sets={"kind": "sets", "address": server.add("benchmark.tar", tarred(benchmark)[:20_000], length=False)})
    with pytest.raises(FetchError, match=r"benchmark.tar is (damaged|cut short)"):
        fetch("sets")
    assert everything(cache) == set()
    server.add("benchmark.tar", tarred(benchmark))
    assert (fetch("sets") / "Set5").is_dir()


def test_what_only_a_person_may_get(cache: Path, knows: Knows, benchmark: Path) -> None:
    knows(manga={"kind": "pairs", "by_hand": "ask at the page", "folder": "Manga", "high": "HR"})
    with pytest.raises(
        FetchError, match=rf"ask at the page \(https://example.org; MIT\); put it into {cache}/manga/Manga"
    ):
        fetch("manga")
    (benchmark / "Set5").rename(cache / "manga/Manga")
    try:
        assert fetch("manga") == cache / "manga/Manga"
        assert fetch("manga", check=True) == cache / "manga/Manga"
    finally:
        (cache / "manga/Manga").rename(benchmark / "Set5")


class TestChangedSince:
    """A silently changed file is refused."""

    @pytest.fixture
    def net(self, server: Server, cache: Path, knows: Knows, weights: bytes) -> Path:
        knows(net={"address": server.add("net.pt", weights)})
        return fetch("net")

    @pytest.fixture
    def sets(self, server: Server, cache: Path, knows: Knows, benchmark: Path) -> Path:
        knows(sets={"kind": "sets", "address": server.add("benchmark.tar", tarred(benchmark))})
        return fetch("sets")

    def test_weights_are_read_each_time(self, net: Path, weights: bytes) -> None:
        status = net.stat()
        net.write_bytes(weights[:-1] + b"x")
        os.utime(net, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(
            FetchError, match=r"net.pt has another content; fetch it anew with: srquant fetch net --again"
        ):
            fetch("net")

    def test_weights_that_are_gone(self, net: Path) -> None:
        net.unlink()
        with pytest.raises(FetchError, match=r"net.pt is missing"):
            fetch("net")

    def test_it_can_be_fetched_again(self, net: Path, weights: bytes) -> None:
        net.write_bytes(b"x")
        assert fetch("net", again=True).read_bytes() == weights
        assert fetch("net") == net

    def test_it_must_be_the_same_file_again(
        self, net: Path, server: Server, old_weights: bytes, weights: bytes
    ) -> None:
        server.add("net.pt", old_weights, etag='"2"')
        with pytest.raises(FetchError, match="it is another file now"):
            fetch("net", again=True)
        assert fetch("net").read_bytes() == weights, "the good one is still there"

    def test_pictures(self, sets: Path) -> None:
        picture = sets / "Set5/HR/0.png"
        content = picture.read_bytes()
        picture.write_bytes(content[:-1])
        with pytest.raises(FetchError, match=r"Set5/HR/0.png has .* bytes and had"):
            fetch("sets")
        picture.write_bytes(content[:-1] + b"x")
        with pytest.raises(FetchError, match=r"Set5/HR/0.png has another content"):
            fetch("sets")
        picture.write_bytes(content)
        assert fetch("sets") == sets, "another time of change alone is no change"

    def test_a_picture_more_or_less(self, sets: Path) -> None:
        (sets / "Set5/HR/2.png").write_bytes((sets / "Set5/HR/0.png").read_bytes())
        with pytest.raises(FetchError, match=r"Set5/HR/2.png was not there"):
            fetch("sets")
        (sets / "Set5/HR/2.png").unlink()
        (sets / "Set5/HR/1.png").rename(sets.parents[2] / "1.png")
        with pytest.raises(FetchError, match=r"Set5/HR/1.png is missing"):
            fetch("sets")

    def test_everything_is_read_if_asked(self, sets: Path) -> None:
        picture = sets / "B100/HR/0.png"
        status = picture.stat()
        picture.write_bytes(bytes(status.st_size))
        os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert fetch("sets") == sets
        with pytest.raises(FetchError, match="another content"):
            fetch("sets", check=True)


class TestCaches:
    """Caches that are elsewhere, read-only, full, or damaged."""

    def test_where_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SRQUANT_CACHE", "~/here")
        assert cache_folder() == Path.home() / "here"
        monkeypatch.setenv("SRQUANT_CACHE", "here")
        assert cache_folder() == Path.cwd() / "here"
        monkeypatch.delenv("SRQUANT_CACHE")
        assert cache_folder().name == "srquant"
        assert cache_folder().is_absolute()

    def test_a_read_only_one_serves_what_is_in_it(
        self, server: Server, cache: Path, knows: Knows, weights: bytes
    ) -> None:
        knows(net={"address": server.add("net.pt", weights)}, other={"address": server.add("other.pt", weights)})
        fetch("net")
        (cache / "other").mkdir()
        for path in (*cache.rglob("*"), cache):
            path.chmod(path.stat().st_mode & ~0o222)
        try:
            assert fetch("net").read_bytes() == weights
            with pytest.raises(OutputError, match=r"cannot write .*read-only.*set SRQUANT_CACHE"):
                fetch("other")
        finally:
            for path in (cache, *cache.rglob("*")):
                path.chmod(path.stat().st_mode | 0o200)

    def test_a_read_only_one_filled_by_hand(self, server: Server, cache: Path, knows: Knows, weights: bytes) -> None:
        """What can be verified each time needs no receipt; what cannot be is not believed each time anew."""
        knows(
            sure={"address": f"{server.address}/net.pt", "sha256": sha256(weights), "checksum_from": "release"},
            unsure={"address": f"{server.address}/net.pt"},
        )
        for name in ("sure", "unsure"):
            (cache / name).mkdir(parents=True)
            (cache / name / "net.pt").write_bytes(weights)
            (cache / name).chmod(0o555)
        try:
            assert fetch("sure").read_bytes() == weights
            with pytest.raises(OutputError, match="read-only"):
                fetch("unsure")
        finally:
            for name in ("sure", "unsure"):
                (cache / name).chmod(0o755)

    def test_one_that_is_a_file(self, server: Server, cache: Path, knows: Knows, weights: bytes) -> None:
        knows(net={"address": server.add("net.pt", weights)})
        cache.write_text("")
        with pytest.raises(OutputError, match="set SRQUANT_CACHE"):
            fetch("net")

    def test_a_damaged_receipt_is_none(self, server: Server, cache: Path, knows: Knows, weights: bytes) -> None:
        knows(net={"address": server.add("net.pt", weights)})
        path = fetch("net")
        (cache / "net/receipt.json").write_text("{")
        assert fetch("net") == path
        assert read_receipt(cache / "net") is not None

    def test_a_disk_that_fills_up_while_unpacking(
        self, server: Server, cache: Path, knows: Knows, benchmark: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        knows(sets={"kind": "sets", "address": server.add("benchmark.tar", tarred(benchmark))})

        def full(archive: Path, folder: Path) -> None:
            folder.mkdir()
            (folder / "half").write_text("")
            raise OutputError("No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(fetching, "unpack", full)
            with pytest.raises(OutputError, match="No space"):
                fetch("sets")
        assert not (cache / "sets/content").exists()
        assert not (cache / "sets/.unpacking").exists()
        assert (fetch("sets") / "Set5").is_dir()
        assert len(server.requests) == 1, "what was downloaded is still there"


def test_two_at_a_time_fetch_once(
    server: Server, cache: Path, knows: Knows, weights: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    knows(net={"address": server.add("net.pt", weights, pause=0.2)})
    found: list[Path] = []
    runs = [threading.Thread(target=lambda: found.append(fetch("net"))) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert found == [cache / "net/net.pt"] * 3
    assert len(server.requests) == 1
    assert "waiting for another process that fetches net" in capsys.readouterr().err


PROGRAM = """
import sys
from srquant.fetching import catalogue, fetching
known = catalogue.read_entries(sys.argv[1])
fetching.entries = lambda: known
print(fetching.fetch("net"))
"""


@pytest.mark.parametrize("kind", ["network", "sets"])
def test_a_killed_process_leaves_nothing_that_is_used(
    server: Server, cache: Path, knows: Knows, weights: bytes, benchmark: Path, kind: str
) -> None:
    """Killed at any moment, it is gone on with, and ends with the same bytes."""
    content = weights if kind == "network" else tarred(benchmark)
    name = "net.pt" if kind == "network" else "net.tar"
    address = server.add(name, content, pause=0.15)
    from tests.fetching.conftest import table

    text = table("net", kind=kind, address=address)
    running = subprocess.Popen([sys.executable, "-c", PROGRAM, text], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    part = cache / f"net/.part-{name}"
    for _ in range(2000):
        if part.exists() and part.stat().st_size:
            break
        time.sleep(0.01)
    running.kill()
    running.communicate()
    done = part.stat().st_size
    assert 0 < done < len(content), "killed in the middle"
    server.files[f"/{name}"].pause = 0
    knows(net={"kind": kind, "address": address})
    path = fetch("net")
    assert server.requests[-1] == (f"/{name}", f"bytes={done}-")
    assert path.is_dir() if kind == "sets" else path.read_bytes() == weights
    assert not [file for file in everything(cache) if "part" in file]


def test_an_unknown_name(knows: Knows) -> None:
    knows(net={"address": "http://127.0.0.1/net.pt"})
    with pytest.raises(UnknownNameError, match=r"unknown name 'nett'; did you mean 'net'\?"):
        fetch("nett")


def test_a_small_zip(server: Server, cache: Path, knows: Knows, benchmark: Path) -> None:
    """Photographs lie in one folder of the archive, which is what is given."""
    picture = (benchmark / "Set5/HR/0.png").read_bytes()
    content = zipped({"DIV2K_valid_HR/0801.png": picture, "DIV2K_valid_HR/0802.png": picture})
    knows(photos={"kind": "photographs", "address": server.add("DIV2K_valid_HR.zip", content)})
    assert fetch("photos") == cache / "photos/content/DIV2K_valid_HR"
