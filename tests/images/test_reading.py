"""Reading and writing pictures of every kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from srquant.images import Layout, Picture, read_picture, write_picture, writing
from srquant.images.bands import Banded
from srquant.images.reading import read_size
from srquant.images.writing import check_output, write_pictures
from srquant.support.errors import ImageError, OutputError

LOSSLESS = (".png", ".tif", ".webp", ".bmp")


def noise(layout: Layout, height: int = 37, width: int = 23) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.integers(0, layout.peak + 1, (height, width, layout.channels))
    return values.astype(np.uint16 if layout.depth == 16 else np.uint8)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_what_is_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int, gray: bool, alpha: bool, suffix: str, streamed: bool
) -> None:
    if streamed:
        monkeypatch.setattr(writing, "_STREAMED_FROM", 0)
    wanted = Layout(gray=gray, alpha=alpha, depth=depth)
    path = tmp_path / f"picture{suffix}"
    pixels = noise(wanted)
    if alpha and suffix == ".bmp":
        with pytest.raises(ImageError, match="cannot store transparency"):
            check_output(path, 37, 23, wanted)
        return
    layout = check_output(path, 37, 23, wanted)
    if layout.depth < depth:
        assert suffix in (".webp", ".bmp")
        pixels = (pixels // 257).astype(np.uint8)
    if layout.gray != gray:  # 16-bit gray with transparency in TIFF
        pixels = pixels[..., [0, 0, 0, 1]]
    write_pictures(path, [Banded(37, 23, layout, [pixels[:16], pixels[16:32], pixels[32:]])])
    again = read_picture(path)
    expected = Picture(pixels, layout)
    assert np.array_equal(again.rgb(), expected.rgb())
    if suffix != ".webp":  # WebP has no gray
        assert again.layout == layout
        assert np.array_equal(again.pixels, pixels)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_orientation_is_applied_and_taken_off(tmp_path: Path, suffix: str, orientation: int) -> None:
    pixels = np.zeros((24, 16, 3), np.uint8)
    pixels[:12, :8] = (250, 20, 20)
    pixels[12:, :8] = (20, 250, 20)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    path = tmp_path / f"turned{suffix}"
    image.save(path, exif=exif, **({"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}))
    picture = read_picture(path)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert np.abs(picture.pixels.astype(int) - expected).max() <= 1
    assert read_size(path) == picture.size
    again = tmp_path / f"again{suffix}"
    write_picture(again, picture)
    with Image.open(again) as opened:
        kept = opened.getexif()
    assert 0x0112 not in kept
    assert kept[0x010F] == "a camera"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_colour_profiles_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, streamed: bool) -> None:
    if streamed:
        monkeypatch.setattr(writing, "_STREAMED_FROM", 0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    first = tmp_path / "first.png"
    Image.fromarray(noise(Layout())).save(first, icc_profile=profile)
    picture = read_picture(first)
    assert picture.metadata.icc_profile == profile
    write_picture(tmp_path / f"second{suffix}", picture)
    assert read_picture(tmp_path / f"second{suffix}").metadata.icc_profile == profile


@pytest.mark.parametrize(
    ("mode", "gray", "alpha"),
    [
        ("1", True, False),
        ("L", True, False),
        ("LA", True, True),
        ("P", False, False),
        ("RGBA", False, True),
        ("RGB", False, False),
        ("CMYK", False, False),
        ("YCbCr", False, False),
    ],
)
def test_stored_modes(tmp_path: Path, mode: str, gray: bool, alpha: bool) -> None:
    image = Image.fromarray(noise(Layout())).convert(mode)
    path = tmp_path / ("x.tif" if mode in ("CMYK", "YCbCr") else "x.png")
    image.save(path)
    picture = read_picture(path)
    assert (picture.layout.gray, picture.layout.alpha) == (gray, alpha)
    assert picture.rgb8().shape == (37, 23, 3)
    with Image.open(path) as opened:
        difference = picture.rgb8().astype(int) - np.asarray(opened.convert("RGB"))
    assert np.abs(difference).max() <= (mode == "YCbCr")  # whose formula Pillow computes in integers


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.fromarray(noise(Layout(), 8, 8)).quantize(8)
    image.save(tmp_path / "p.png", transparency=3)
    picture = read_picture(tmp_path / "p.png")
    assert picture.layout.alpha
    assert set(np.unique(picture.pixels[..., 3])) == {0, 255}


def test_sixteen_bits_to_eight() -> None:
    values = np.array([[[0], [128], [129], [65535]]], np.uint16)
    assert Picture(values, Layout(gray=True, depth=16)).rgb8()[0, :, 0].tolist() == [0, 0, 1, 255]


def test_compressed_sixteen_bit_tiff(tmp_path: Path) -> None:
    pixels = noise(Layout(depth=16))
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb", compression="zlib", predictor=True)
    assert np.array_equal(read_picture(tmp_path / "x.tif").pixels, pixels)


def test_sixteen_bit_tiff_with_a_plane_for_each_channel(tmp_path: Path) -> None:
    pixels = noise(Layout(depth=16))
    planes = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_picture(tmp_path / "x.tif").pixels, pixels)


@pytest.mark.parametrize("read", [read_picture, read_size])
def test_a_name_longer_than_disks_allow(tmp_path: Path, read) -> None:
    with pytest.raises(ImageError, match="is not"):
        read(tmp_path / f"{'x' * 300}.png")


def png_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(Layout())).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "is empty"),
        ("text.png", b"not a picture", "is not an image"),
        ("cut.png", png_bytes()[:-400], "damaged or cut short"),
        ("cut.jpg", b"\xff\xd8\xff\xe0" + bytes(30), "damaged or cut short|not an image"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_picture(tmp_path / name)


def test_a_cut_deep_png(tmp_path: Path) -> None:
    write_picture(tmp_path / "x.png", Picture(noise(Layout(depth=16)), Layout(depth=16)))
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_picture(tmp_path / "x.png")


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "x.png").write_bytes(png_bytes())
    with pytest.raises(ImageError, match="claims more than 200 pixels"):
        read_picture(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("x.xyz", (9, 9), "unknown file type '.xyz'"),
        ("x", (9, 9), "unknown file type ''"),
        ("x.webp", (9, 17_000), "at most 16383 pixels a side"),
        ("x.jpg", (70_000, 9), "at most 65500"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path: Path, name: str, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        check_output(tmp_path / name, *size, Layout())


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    write_picture(path, Picture(noise(Layout()), Layout()))
    before = path.read_bytes()

    def bands():
        yield noise(Layout())[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pictures(path, [Banded(37, 23, Layout(), bands())])
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_read_only_targets(tmp_path: Path) -> None:
    picture = Picture(noise(Layout()), Layout())
    (tmp_path / "x.png").touch(mode=0o444)
    with pytest.raises(OutputError, match="read-only"):
        write_picture(tmp_path / "x.png", picture)
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(OutputError, match=r"locked/y\.png"):
        write_picture(tmp_path / "locked" / "y.png", picture)
    (tmp_path / "d.png").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        write_picture(tmp_path / "d.png", picture)
