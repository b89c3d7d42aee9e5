"""Files that hold no weights: what they are is said in a sentence, with a way out; none of them runs or inflates."""

from __future__ import annotations

import gzip
import io
import re
import string
import struct
import tarfile
import zipfile
from pathlib import Path
from random import Random

import pytest
import torch
from tests.conftest import small_networks, write_png
from torch import nn

from srquant.model import load
from srquant.networks.opening import load_network
from srquant.support.errors import NetworkError


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(self.convolution(images), 2)


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": small_networks()["edsr"].state_dict()}, buffer)
    return buffer.getvalue()


def tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


CONTENTS: dict[str, tuple[bytes, str]] = {
    "lfs.pth": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 67040989\n",
        "a pointer of Git LFS, .* git lfs pull",
    ),
    "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    "page.pth": (b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>", "a web page"),
    "page2.pth": (b"\n  <html lang='en'>", "a web page"),
    "network.xml": (b'<?xml version="1.0"?>\n<net name="Model0">', "a web page or another XML file"),
    "network.onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.5.0:\x8f", "an ONNX file.* weights that it was made from"),
    "network.pth": (b"\x08\x0a:\xcd\x01\n\x1b", "an ONNX file"),
    "network.param": (b"7767517\n75 83\nInput data 0 1 data\n", "the description of an ncnn network"),
    "network.gguf": (b"GGUF\x03\0\0\0" + bytes(40), "a GGUF file"),
    "network.tflite": (b"\x1c\0\0\0TFL3" + bytes(40), "a TensorFlow Lite file"),
    "network.h5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file, as Keras writes them"),
    "array.npy": (b"\x93NUMPY\x01\0" + bytes(40), "an array of NumPy"),
    "arrays.npz": (zipped(**{"a.npy": b"", "b.npy": b""}), "an archive of NumPy arrays"),
    "model.pth.tar": (tar(**{"model.pth": checkpoint()}), r"a tar archive \(model\.pth\): unpack it"),
    "ancient.pth": (tar(sys_info=b"", pickle=b"", storages=b"", tensors=b""), "of the format of PyTorch's first"),
    "model.zip": (zipped(**{"model.pth": checkpoint()}), r"a zip archive \(model\.pth\): unpack it"),
    "many.zip": (zipped(a=b"", b=b"", c=b"", d=b"", e=b""), r"a zip archive \(a, b, c and 2 more\)"),
    "model.pth.gz": (gzip.compress(checkpoint()), "compressed with gzip: unpack it"),
    "option.yml": (b"scale: 2\n", "a text, not weights"),
    "readme.md": ("# Größe\n".encode(), "a text, not weights"),
    "cut.txt": (("x" * 4095 + "ö").encode(), "a text, not weights"),
    "script.pth": (b"import torch\n", "a text, not weights"),
    "index.json": (b'{"metadata": {}, "weight_map": {}}', "a text, not weights"),
    "offset.json": (b'weights={"a": 1}', "a text, not weights"),
    "odd.onnx": (b"\x12\x05\xff\xff\xff", "an ONNX file"),
}


def refusal(path: Path) -> str:
    with pytest.raises(NetworkError) as caught:
        load(path)
    said = str(caught.value)
    assert str(path) in said
    assert "\n" not in said
    assert len(said) < 400 + len(str(path))
    assert "weights_only" not in said
    return said


@pytest.mark.parametrize("name", CONTENTS)
def test_files_of_other_kinds_are_named(name: str, tmp_path: Path) -> None:
    content, message = CONTENTS[name]
    (tmp_path / name).write_bytes(content)
    said = refusal(tmp_path / name)
    assert re.search(f" is {message}", said), said


def test_half_an_ncnn_network(tmp_path: Path) -> None:
    (tmp_path / "n.param").write_bytes(CONTENTS["network.param"][0])
    (tmp_path / "n.bin").write_bytes(struct.pack("<I40f", 0, *range(40)))
    assert "is one half of an ncnn network" in refusal(tmp_path / "n.bin")


def test_a_picture(tmp_path: Path) -> None:
    assert "is a picture: give the weights first" in refusal(write_png(tmp_path / "p.png", 8, 8))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", ["trace", "script"])
def test_torchscript_is_not_run(way: str, tmp_path: Path) -> None:
    module = Tiny().eval()
    made = torch.jit.trace(module, torch.zeros(1, 3, 8, 8)) if way == "trace" else torch.jit.script(module)
    made.save(str(tmp_path / "n.pt"))
    assert "is a TorchScript program, which holds code" in refusal(tmp_path / "n.pt")


def test_a_program_of_torch_export(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Tiny(), (torch.zeros(1, 3, 8, 8),)), tmp_path / "n.pt2")
    assert "is a program of torch.export" in refusal(tmp_path / "n.pt2")


def test_a_whole_module_is_not_unpickled(tmp_path: Path) -> None:
    torch.save(Tiny(), tmp_path / "n.pth")
    assert "would run code when opened and is refused" in refusal(tmp_path / "n.pth")


def test_an_archive_that_inflates_is_not_opened(tmp_path: Path) -> None:
    """The sizes in an archive's directory are enough to know."""
    torch.save(small_networks()["edsr"].state_dict(), tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as source,
        zipfile.ZipFile(tmp_path / "n.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for info in source.infolist():
            bomb.writestr(info.filename, source.read(info))
        with bomb.open("n/data/999", "w") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    assert (tmp_path / "n.pth").stat().st_size < 1 << 18
    assert "and would unpack to 67," in refusal(tmp_path / "n.pth")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the system's refusal is made by the test."""
    path = tmp_path / "n.pth"
    torch.save(small_networks()["edsr"].state_dict(), path)
    real = Path.open

    def closed(self: Path, *arguments: str, **options: str):
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", closed)
    assert f"cannot read {path}: Permission denied; check its permissions" in refusal(path)


def test_a_file_that_fails_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(small_networks()["edsr"].state_dict(), tmp_path / "n.pth")

    def fails(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "load", fails)
    assert "n.pth cannot be read: Input/output error" in refusal(tmp_path / "n.pth")


BEGINNINGS = [
    *string.printable,
    *("(", "name: x\n", "a: 1", "}q", "{}", "]", "# title\n", "import torch\n", '{"a": 1}', "N.", "I1\n.", "S'a'\n."),
    *(
        "\n\n",
        "0\n",
        "2\n",
        "t",
        "s",
        "u",
        "e",
        "o",
        "b",
        "R",
        "c a\nb\n",
        "cposix\nsystem\n",
        "<",
        "PK",
        "GGU",
        "7767",
    ),
]


def test_short_texts_end_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "n.pth"
    for beginning in BEGINNINGS:
        for rest in ("", "bc", ": 1\nb: 2\n"):
            path.write_text(beginning + rest)
            refusal(path)


def test_beginnings_of_all_kinds_end_in_one_sentence(tmp_path: Path) -> None:
    """Cut files, and files with a few bytes changed."""
    random = Random(0)
    contents = [*(content for content, _ in CONTENTS.values()), checkpoint()]
    path = tmp_path / "n.pth"
    for content in contents:
        for _ in range(12):
            cut = bytearray(content[: random.randint(1, len(content))])
            for _ in range(random.choice((0, 0, 1, 3))):
                cut[random.randrange(len(cut))] = random.randrange(256)
            path.write_bytes(bytes(cut))
            try:
                load_network(path)
            except NetworkError:
                refusal(path)
