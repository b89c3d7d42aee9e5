"""What a file says besides its pixels: kept where the format can hold it, and named where it cannot."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from srquant.images import read_picture, writing
from srquant.images.reading import read_size
from srquant.images.tiling import Tiling
from srquant.images.upscaling import upscale_file, upscale_tree
from srquant.support.errors import LossWarning

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="here"/></x:xmpmeta>'
MAKE, EXPOSURE, LATITUDE = "a camera", 0x829A, 2


def nearest(images: torch.Tensor) -> torch.Tensor:
    return images.repeat_interleave(2, -1).repeat_interleave(2, -2)


def exif() -> Image.Exif:
    block = Image.Exif()
    block[0x0112], block[0x010F] = 6, MAKE
    inner, place = block.get_ifd(0x8769), block.get_ifd(0x8825)
    inner[EXPOSURE], inner[0xA002], inner[0xA003] = TiffImagePlugin.IFDRational(1, 250), 30, 20
    place[1], place[LATITUDE] = "N", (48.0, 8.0, 15.5)
    return block


def save(path: Path) -> Path:
    """A picture of 20 rows of 30 pixels, to be turned to the right, that says all its format can hold."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8))
    told: dict[str, Any] = {"icc_profile": PROFILE, "exif": exif(), "xmp": XMP, "dpi": (300, 300)}
    if path.suffix == ".png":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Title", "a title")
        texts.add_itxt("Author", "Ada Ĺovelace")
        texts.add_itxt("XML:com.adobe.xmp", told.pop("xmp").decode())
        texts.add(b"gAMA", (50_000).to_bytes(4, "big"))
        told["pnginfo"] = texts
    if path.suffix == ".jpg":
        told["comment"] = "a comment"
    if path.suffix == ".webp":  # which has no other place for it
        told["exif"][0x011A] = told["exif"][0x011B] = 300.0
    if path.suffix == ".tif":
        block = exif()
        block[0x02BC] = told.pop("xmp")
        told["exif"] = block.tobytes()
    image.save(path, **told)
    return path


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
def test_what_the_format_can_hold_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str, streamed: bool
) -> None:
    if streamed:
        monkeypatch.setattr(writing, "_STREAMED_FROM", 0)
    first, second = save(tmp_path / f"a{source}"), tmp_path / f"b{target}"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        upscale_file(nearest, first, second, 2, Tiling(64, 0))
    with Image.open(second) as opened:
        opened.load()
        info, block = dict(opened.info), opened.getexif()
        texts = getattr(opened, "text", {})
        if target != ".bmp":
            assert opened.size == (40, 60)  # Pillow would turn it again where the orientation were still said
            assert info["icc_profile"] == PROFILE
            assert block.get(0x0112, 1) == 1
            assert block[0x010F] == MAKE
            assert float(block.get_ifd(0x8769)[EXPOSURE]) == pytest.approx(1 / 250)
            assert 0xA002 not in block.get_ifd(0x8769)
            assert [float(number) for number in block.get_ifd(0x8825)[LATITUDE]] == pytest.approx([48, 8, 15.5])
            packet = info["xmp"] if isinstance(info.get("xmp"), bytes) else texts["XML:com.adobe.xmp"].encode()
            assert packet == XMP.replace(b'Orientation="6"', b'Orientation="1"')
        told = info.get("dpi") or (float(block[0x011A]), float(block[0x011B]))
        assert told == pytest.approx((300, 300), rel=1e-3)
    lost = "".join(str(warning.message) for warning in said)
    if target == ".png":
        expected = {".png": {"Title": "a title", "Author": "Ada Ĺovelace"}, ".jpg": {"Comment": "a comment"}}
        assert expected.get(source, {}).items() <= texts.items()
        assert (info.get("gamma") == 0.5) == (source == ".png")
        assert not said
    elif target == ".jpg" and source == ".jpg":
        assert info["comment"] == b"a comment"
        assert not said
    elif target == ".bmp":
        assert "holds no colour profile, EXIF, XMP" in lost
    else:
        assert ("text" in lost) == (source in (".png", ".jpg"))
    assert len(said) <= 1
    again = read_picture(second)
    assert read_size(second) == again.size == (60, 40)


def test_what_is_lost_is_said_once_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        save(tmp_path / f"in/{name}.png")
    with pytest.warns(LossWarning) as said:
        upscale_tree(nearest, tmp_path / "in", tmp_path / "out", 2, Tiling(64, 0), form="jpeg")
    assert [str(warning.message) for warning in said] == [
        f"{tmp_path / 'in/a.png'} and 2 other pictures: .jpg holds no text; left out"
    ]


def test_exif_of_big_tiffs_and_of_every_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from srquant.images.formats import tiff_writing

    monkeypatch.setattr(tiff_writing, "_LARGEST", 0)
    with Image.new("RGB", (9, 8)) as image:
        image.save(tmp_path / "a.tif", exif=exif().tobytes(), save_all=True, append_images=[image.copy()])
    for source, target in (("a", "b"), ("b", "c")):
        upscale_file(nearest, tmp_path / f"{source}.tif", tmp_path / f"{target}.tif", 2, Tiling(64, 0))
    with tifffile.TiffFile(tmp_path / "c.tif") as file:
        assert file.is_bigtiff
        assert len(file.pages) == 2
        assert file.pages[0].tags["ExifTag"].value["ExposureTime"] == (1, 250)
        assert file.pages[0].tags["GPSTag"].value["GPSLatitudeRef"] == "N"
        assert file.pages[0].tags["Make"].value == MAKE


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_damaged_exif_costs_no_picture(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (9, 8)).save(tmp_path / f"x{suffix}", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert read_picture(tmp_path / f"x{suffix}").size == (8, 9)


def test_exif_too_long_for_the_format_is_named(tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x010E] = "long" * 20_000
    Image.new("RGB", (9, 8)).save(tmp_path / "x.png", exif=block)
    with pytest.warns(LossWarning, match=r"\.jpg holds no EXIF as long as that"):
        upscale_file(nearest, tmp_path / "x.png", tmp_path / "y.jpg", 2, Tiling(64, 0))


def test_a_profile_of_gray_stays_with_gray(tmp_path: Path) -> None:
    """In a file of colours it would be wrong."""
    gray = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "x.jpg", icc_profile=gray)
    for suffix in (".jpg", ".tif", ".png"):
        upscale_file(nearest, tmp_path / "x.jpg", tmp_path / f"y{suffix}", 2, Tiling(64, 0))
        assert read_picture(tmp_path / f"y{suffix}").metadata.icc_profile == gray
    with pytest.warns(LossWarning, match=r"\.webp holds no colour profile of gray"):
        upscale_file(nearest, tmp_path / "x.jpg", tmp_path / "y.webp", 2, Tiling(64, 0))
    assert read_picture(tmp_path / "y.webp").metadata.icc_profile is None


def test_what_is_not_carried_over_is_said(tmp_path: Path) -> None:
    tags = [(33723, 7, 8, b"\x1c\x02some.", True), (33550, 12, 3, (1.0, 1.0, 0.0), True)]
    samples = np.zeros((9, 8, 5), np.uint8)
    extras = {"photometric": "rgb", "extrasamples": ("unassalpha", "unspecified"), "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "x.tif", samples, **extras, extratags=tags)
    with pytest.warns(LossWarning, match=r"x\.tif: left out: 1 further channel, IPTC, geographic tags$"):
        upscale_file(nearest, tmp_path / "x.tif", tmp_path / "y.tif", 2, Tiling(64, 0))
