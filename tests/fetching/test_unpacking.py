"""Archives that were made to harm, were cut short, or are none."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fetching.conftest import zipped

from srquant.fetching import unpacking
from srquant.fetching.unpacking import check_content, unpack
from srquant.support.errors import FetchError, OutputError

FILES = {"Set/HR/a.png": b"a" * 3000, "Set/HR/b.png": b"b", "Set/LR/a.png": b"c"}


def tar_of(*members: tuple[str, bytes], compression: str = "", **fields: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[[str, bytes], dict[str, bytes]]:
    def run(name: str, content: bytes) -> dict[str, bytes]:
        (tmp_path / name).write_bytes(content)
        unpack(tmp_path / name, tmp_path / "out")
        return tree(tmp_path / "out")

    return run


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_tar(unpacked: Callable[[str, bytes], dict[str, bytes]], compression: str) -> None:
    assert unpacked("set.tar", tar_of(*FILES.items(), compression=compression)) == FILES


def test_zip(unpacked: Callable[[str, bytes], dict[str, bytes]]) -> None:
    assert unpacked("set.zip", zipped(FILES)) == FILES


def test_what_systems_leave_is_left_out(unpacked: Callable[[str, bytes], dict[str, bytes]]) -> None:
    junk = {"__MACOSX/Set/HR/._a.png": b"x", "Set/HR/._a.png": b"x", "Set/.DS_Store": b"x", "Set/Thumbs.db": b"x"}
    assert unpacked("set.zip", zipped(FILES | junk)) == FILES


def test_rights_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(("run", b"x"), mode=0o4777))
    unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out/run").stat().st_mode & (stat.S_ISUID | 0o111)


WRONG = ["../out.png", "/etc/out.png", "a/../../out.png", "C:\\out.png", "a\\..\\out.png", "a:b.png", ".."]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_lead_elsewhere(tmp_path: Path, kind: str, name: str) -> None:
    content = zipped({"good.png": b"x", name: b"x"}) if kind == "zip" else tar_of(("good.png", b"x"), (name, b"x"))
    archive = tmp_path / "in" / f"a.{kind}"
    archive.parent.mkdir()
    archive.write_bytes(content)
    with pytest.raises(FetchError, match="leads elsewhere"):
        unpack(archive, tmp_path / "in/out")
    assert {path.name for path in tmp_path.rglob("*.png")} <= {"good.png"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar(unpacked: Callable[[str, bytes], dict[str, bytes]], kind: bytes) -> None:
    with pytest.raises(FetchError, match="a link or a device"):
        unpacked("a.tar", tar_of(("a.png", b""), type=kind, linkname="/etc/passwd"))


def test_links_in_zip(unpacked: Callable[[str, bytes], dict[str, bytes]]) -> None:
    info = zipfile.ZipInfo("a.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(FetchError, match="a link or a device"):
        unpacked("a.zip", file.getvalue())


def test_a_locked_zip(unpacked: Callable[[str, bytes], dict[str, bytes]]) -> None:
    content = bytearray(zipped({"a.png": b"x"}))
    content[content.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(FetchError, match="encrypted"):
        unpacked("a.zip", bytes(content))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(unpacked: Callable[[str, bytes], dict[str, bytes]]) -> None:
    with pytest.raises(FetchError, match="twice"):
        unpacked("a.tar", tar_of(("a.png", b"x"), ("./a.png", b"y")))


def test_a_file_in_the_place_of_a_folder(unpacked: Callable[[str, bytes], dict[str, bytes]]) -> None:
    with pytest.raises((FetchError, OutputError), match=r"a\.png"):
        unpacked("a.tar", tar_of(("a.png", b"x"), ("a.png/b.png", b"y")))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_far_more_than_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(unpacking, "_SMALL", 1000)
    zeros = bytes(10_000_000)
    content = zipped({"a.png": zeros}) if kind == "zip" else tar_of(("a.png", zeros), compression="gz")
    (tmp_path / f"a.{kind}").write_bytes(content)
    with pytest.raises(FetchError, match="not trusted"):
        unpack(tmp_path / f"a.{kind}", tmp_path / "out")
    assert (tmp_path / "out/a.png").stat().st_size < 1_000_000


def test_too_many_files(unpacked: Callable[[str, bytes], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_FILES", 2)
    with pytest.raises(FetchError, match="more than 2 files"):
        unpacked("a.zip", zipped(FILES))


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_every_cut_of_a_tar_is_noticed(tmp_path: Path, compression: str) -> None:
    """Between two files as well, where nothing but the missing end tells it."""
    members = [(f"{number}.png", bytes([number]) * 512) for number in range(4)]
    content = tar_of(*members, compression=compression)
    cuts = range(1, len(content), 16) if compression else range(512, 4 * 1024 + 1, 512)
    for number, cut in enumerate(cuts):
        (tmp_path / f"{number}.tar").write_bytes(content[:cut])
        try:
            unpack(tmp_path / f"{number}.tar", tmp_path / f"out{number}")
        except FetchError:
            continue
        assert tree(tmp_path / f"out{number}") == dict(members), "only what follows the files was cut off"
        assert cut > len(content) - 80


def test_every_cut_of_a_zip_is_noticed(tmp_path: Path) -> None:
    content = zipped(FILES)
    for cut in range(1, len(content), 7):
        (tmp_path / f"{cut}.zip").write_bytes(content[:cut])
        with pytest.raises(FetchError):
            unpack(tmp_path / f"{cut}.zip", tmp_path / f"out{cut}")


def test_changed_bytes_in_a_zip(unpacked: Callable[[str, bytes], dict[str, bytes]]) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"here")
    with pytest.raises(FetchError, match="CRC"):
        unpacked("a.zip", file.getvalue().replace(b"here", b"hers", 1))


@pytest.mark.parametrize("content", [b"", b"nothing", zipped({})], ids=["empty", "text", "no files"])
def test_no_archive(unpacked: Callable[[str, bytes], dict[str, bytes]], content: bytes) -> None:
    with pytest.raises(FetchError):
        unpacked("a.zip", content)


@pytest.mark.parametrize(
    ("content", "archive", "said"),
    [
        (b"", True, "is empty"),
        (b"  <html>", True, "web page"),
        (b"<!DOCTYPE html>", False, "web page"),
        (b"version https://git-lfs.github.com/spec/v1", False, "no weights"),
        (b"Rar!\x1a\x07", True, "no archive"),
        (zipped({"a": bytes(1000)})[:-30], True, "cut short"),
        (gzip.compress(b"no tar"), True, "no archive"),
    ],
    ids=["empty", "tag", "page", "pointer", "rar", "cut short", "gzip"],  # contents hold the time, and names must not
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, archive: bool, said: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FetchError, match=said):
        check_content(tmp_path / "file", archive=archive, whole=False)


def test_files_that_are_right(tmp_path: Path, weights: bytes, old_weights: bytes) -> None:
    for archive, content in (
        (False, weights),
        (False, old_weights),
        (True, zipped(FILES)),
        (True, tar_of(*FILES.items())),
    ):
        (tmp_path / "file").write_bytes(content)
        check_content(tmp_path / "file", archive=archive, whole=False)
