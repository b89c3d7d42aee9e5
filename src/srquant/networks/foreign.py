"""Naming what a file is that holds no weights to open: by its content, never by running any of it."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile, ZipFile

HEAD = 4096
"""Bytes at the front of a file that are looked at."""
_SHOWN = 3
_WAY_OUT = "give the PyTorch or safetensors weights that it was made from"

_STARTS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself: fetch it with git lfs pull, or download the file",
    ),
    (b"GGUF", f"a GGUF file: {_WAY_OUT}"),
    (b"7767517\n", f"the description of an ncnn network: {_WAY_OUT}"),
    (b"7767517\r", f"the description of an ncnn network: {_WAY_OUT}"),
    (b"\x89HDF\r\n", f"an HDF5 file, as Keras writes them: {_WAY_OUT}"),
    (b"\x93NUMPY", "an array of NumPy: give a state dict, written with torch.save or safetensors"),
    (b"\x1f\x8b", "compressed with gzip: unpack it and give the file in it"),
    (b"BZh", "compressed with bzip2: unpack it and give the file in it"),
    (b"\xfd7zXZ\x00", "compressed with xz: unpack it and give the file in it"),
    (b"(\xb5/\xfd", "compressed with Zstandard: unpack it and give the file in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it and give the file in it"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it and give the file in it"),
    (b"\x89PNG\r\n", "a picture: give the weights first, then pictures"),
    (b"\xff\xd8\xff", "a picture: give the weights first, then pictures"),
    (b"%PDF", "a PDF document: give the file of weights"),
    (b"\x7fELF", "a program or a library: give the file of weights"),
)
_TAG = re.compile(rb"\s*(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|body|\?xml|[a-z]+[ >])", re.IGNORECASE)
_ONNX = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]", re.DOTALL)
"""An ONNX file begins with the number of its format, then a field of a text or a part."""
_EXPORTED = ("serialized_exported_program.json", "archive_format", "models/model.json")
_ANCIENT = {"sys_info", "pickle", "storages", "tensors"}


def foreign_file(path: Path, head: bytes) -> str | None:
    """What a file is that is known to hold no weights this project opens, and the way out; None for all others.

    Args:
        path: The file.
        head: Its first bytes, :data:`HEAD` of them or all.

    Returns:
        Words that follow "is".
    """
    for start, words in _STARTS:
        if head.startswith(start):
            return words
    if _TAG.match(head):
        return "a web page or another XML file, not weights: download the file itself, not the page that shows it"
    if head[4:8] == b"TFL3":
        return f"a TensorFlow Lite file: {_WAY_OUT}"
    if _ONNX.match(head) or (path.suffix.lower() == ".onnx" and not _is_text(head)):
        return f"an ONNX file: srquant runs those it exported itself, where their names end in .onnx; {_WAY_OUT}"
    if head[257:262] == b"ustar":
        return _tar(path)
    return _zip(path) if head.startswith(b"PK") else None


def unknown_file(path: Path, head: bytes) -> str | None:
    """What a file is that could not be read as weights; None where nothing better is known than the reader's words."""
    if _is_text(head):
        return "a text, not weights: give the file that the weights are in, .pth, .pt, .ckpt or .safetensors"
    if path.suffix.lower() == ".bin" and path.with_suffix(".param").exists():
        return f"one half of an ncnn network: {_WAY_OUT}"
    return None


def inflated_size(path: Path) -> int:
    """Bytes that all files in a zip archive have together when they are unpacked; 0 for what is no archive."""
    return sum(size for _, size in _members(path))


def _members(path: Path) -> list[tuple[str, int]]:
    try:
        with ZipFile(path) as archive:
            return [(info.filename, info.file_size) for info in archive.infolist()]
    except (BadZipFile, OSError, ValueError, NotImplementedError, EOFError):  # cut short, or of a kind nobody writes
        return []


def _zip(path: Path) -> str | None:
    names = [name for name, _ in _members(path)]
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in inner) or "constants.pkl" in inner:
        return (
            "a TorchScript program, which holds code: give the state dict that it was made from, or save that of "
            "torch.jit.load(path) on a machine that trusts it"
        )
    if any(name.endswith(_EXPORTED) for name in names):
        return "a program of torch.export: give the state dict that it was made from"
    if not names or "data.pkl" in inner:
        return None
    if all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays: give a state dict, written with torch.save or safetensors"
    return f"a zip archive ({_listed(names)}): unpack it and give the file of weights in it"


def _tar(path: Path) -> str:
    try:
        with tarfile.open(path) as archive:
            names = [member.name for member in archive.getmembers()]
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return "a damaged tar archive"
    if {name.removeprefix("./") for name in names} >= _ANCIENT:
        return "of the format of PyTorch's first releases: open it there and save its state dict with a newer one"
    return f"a tar archive ({_listed(names)}): unpack it and give the file of weights in it"


def _listed(names: Iterable[str]) -> str:
    files = [ascii(name)[1:-1][:60] for name in names if not name.endswith("/")]
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return f"{', '.join(files[:_SHOWN])}{more}" if files else "empty"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a letter is cut at the end of what was read
            return False
        text = head[: error.start].decode()
    return all(letter.isprintable() or letter.isspace() for letter in text)
