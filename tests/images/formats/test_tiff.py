"""TIFF: whatever the tags say, pixels are what they mean, or the file is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from srquant.images import Layout, read_picture
from srquant.images.bands import Banded
from srquant.images.formats.tiff_samples import divided_by_alpha, multiplied_by_alpha
from srquant.images.reading import open_picture, read_size
from srquant.images.writing import write_pictures
from srquant.support.errors import ImageError, LossWarning

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COMPRESSIONS = {
    "1": ("raw", "group3", "group4", "packbits", "tiff_lzw", "tiff_adobe_deflate"),
    "": ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd", "lzma"),
}


def noise(seed: int, height: int, width: int, channels: int, peak: int = 255, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, peak + 1, (height, width, channels)).astype(dtype)


@many
@given(
    st.sampled_from(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "RGBX")),
    st.data(),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 9),
)
def test_what_pillow_writes_is_read_as_pillow_reads_it(
    tmp_path: Path, mode: str, data: st.DataObject, height: int, width: int, seed: int
) -> None:
    path = tmp_path / "x.tif"
    pixels = noise(seed, height, width, 4)
    image = Image.fromarray(pixels if mode == "RGBA" else pixels[..., :3]).convert("RGB" if mode == "LA" else mode)
    if mode == "LA":
        image = Image.merge("LA", [image.convert("L"), Image.fromarray(pixels[..., 3])])
    compression = data.draw(st.sampled_from(COMPRESSIONS["1" if mode == "1" else ""]))
    image.save(path, compression=compression)
    picture = read_picture(path)
    with Image.open(path) as opened:
        expected = opened.convert("RGBA" if mode in ("LA", "RGBA") else "RGB")
    assert picture.layout == Layout(gray=mode in ("1", "L", "LA"), alpha=mode in ("LA", "RGBA"))
    assert picture.left_out == (("1 further channel",) if mode == "RGBX" else ())
    shown = picture.rgb() if not picture.layout.alpha else np.dstack((picture.rgb(), picture.pixels[..., -1]))
    assert np.abs(shown.astype(int) - np.asarray(expected)).max() <= (mode == "YCbCr")
    assert read_size(path) == picture.size


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_in_tiff(tmp_path: Path, mode: str) -> None:
    smooth = np.indices((40, 60)).transpose(1, 2, 0) * 4
    image = Image.fromarray(np.dstack((smooth, smooth[..., ::-1].sum(-1))).astype(np.uint8)).convert(mode)
    image.save(tmp_path / "x.tif", compression="jpeg")
    with Image.open(tmp_path / "x.tif") as opened:
        expected = np.asarray(opened.convert("RGB")).astype(int)
    assert np.abs(read_picture(tmp_path / "x.tif").rgb8() - expected).max() <= 1


SHAPES = st.sampled_from(("minisblack", "miniswhite", "rgb", "separated"))
COLOURS = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4}


@many
@given(
    SHAPES,
    st.sampled_from((8, 16)),
    st.sampled_from((None, "zlib", "lzw", "packbits", "lzma", "zstd", "deflate")),
    st.sampled_from((None, "unassalpha", "unspecified")),
    st.booleans(),
    st.booleans(),
    st.sampled_from((None, (16, 16), (32, 16))),
    st.sampled_from(("<", ">")),
    st.booleans(),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(0, 9),
)
def test_every_layout_of_samples(
    tmp_path: Path,
    photometric: str,
    depth: int,
    compression: str | None,
    extra: str | None,
    planar: bool,
    predictor: bool,
    tile: tuple[int, int] | None,
    byteorder: str,
    bigtiff: bool,
    size: tuple[int, int],
    seed: int,
) -> None:
    """Strips or tiles, planes or pixels, either order of bytes: the samples are those that were written."""
    peak = (1 << depth) - 1
    colours = COLOURS[photometric]
    samples = noise(seed, *size, colours + (extra is not None), peak, np.uint16 if depth == 16 else np.uint8)
    several = samples.shape[-1] > 1
    stored = np.moveaxis(samples, -1, 0) if planar and several else samples if several else samples[..., 0]
    tifffile.imwrite(
        tmp_path / "x.tif",
        stored,
        photometric=photometric,
        planarconfig=("separate" if planar else "contig") if several else None,
        extrasamples=(extra,) if extra else (),
        compression=compression,
        predictor=predictor and compression not in (None, "packbits"),
        tile=tile,
        rowsperstrip=None if tile else 7,
        byteorder=byteorder,
        bigtiff=bigtiff,
    )
    picture = read_picture(tmp_path / "x.tif")
    wide = samples[..., :colours].astype(np.int64)
    light = peak - wide[..., -1:]
    expected = {
        "minisblack": wide,
        "rgb": wide,
        "miniswhite": peak - wide,
        "separated": light - (wide[..., :-1] * light + peak // 2) // peak if colours == 4 else wide,
    }[photometric]
    assert picture.layout == Layout(colours == 1, extra == "unassalpha", depth)
    assert picture.left_out == (("1 further channel",) if extra == "unspecified" else ())
    assert np.array_equal(picture.pixels[..., : picture.layout.colours], expected)
    if extra == "unassalpha":
        assert np.array_equal(picture.pixels[..., -1], samples[..., -1])


@many
@given(st.integers(1, 15), st.sampled_from((1, 3)), st.integers(1, 30), st.integers(1, 30), st.integers(0, 9))
def test_few_bits_fill_the_range(tmp_path: Path, bits: int, channels: int, height: int, width: int, seed: int) -> None:
    samples = noise(seed, height, width, channels, (1 << bits) - 1, np.uint8 if bits <= 8 else np.uint16)
    form = "rgb" if channels == 3 else "minisblack"
    stored = samples if channels == 3 else samples[..., 0]
    try:
        tifffile.imwrite(tmp_path / "x.tif", stored, photometric=form, bitspersample=bits)
    except ValueError:  # the writer knows no such depth
        return
    picture = read_picture(tmp_path / "x.tif")
    assert picture.layout.depth == (8 if bits <= 8 else 16)
    exact = samples / ((1 << bits) - 1) * picture.layout.peak
    assert np.abs(picture.pixels - exact).max() <= 0.5


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes(tmp_path: Path, bits: int) -> None:
    """A palette has 16 bits a colour; where they say no more than 8 do, the picture has 8."""
    indices = noise(0, 20, 30, 1)[..., 0]
    palette = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * (257 if bits == 8 else 199)
    tifffile.imwrite(tmp_path / "x.tif", indices, photometric="palette", colormap=palette)
    picture = read_picture(tmp_path / "x.tif")
    assert picture.layout == Layout(depth=bits)
    assert np.array_equal(picture.pixels, (palette // (257 if bits == 8 else 1)).T[indices])


@many
@given(st.sampled_from((np.uint8, np.uint16)), st.sampled_from((1, 3)), st.integers(0, 99))
def test_associated_alpha_stays_what_it_says(tmp_path: Path, dtype: Any, colours: int, seed: int) -> None:
    """What was multiplied by alpha is divided for the network, and multiplied again where TIFF is written."""
    peak = np.iinfo(dtype).max
    pixels = noise(seed, 20, 30, colours + 1, peak, dtype)
    pixels[..., -1] *= np.random.default_rng(seed).integers(0, 2, (20, 30)).astype(dtype)
    stored = multiplied_by_alpha(pixels)
    assert (stored[..., :-1] <= stored[..., -1:]).all()
    form = "rgb" if colours == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric=form, extrasamples=("assocalpha",), planarconfig="contig")
    picture = read_picture(tmp_path / "x.tif")
    assert picture.layout == Layout(colours == 1, True, 8 if dtype == np.uint8 else 16, associated=True)
    alpha = pixels[..., -1:].astype(float)
    exact = np.divide(stored[..., :-1] * float(peak), alpha, out=np.zeros(stored[..., :-1].shape), where=alpha > 0)
    assert np.abs(picture.pixels[..., :-1] - exact).max() <= 0.5
    assert np.array_equal(multiplied_by_alpha(picture.pixels), stored)
    assert np.array_equal(divided_by_alpha(stored[..., :-1], stored[..., -1]), picture.pixels[..., :-1])
    layout = Layout(False, True, picture.layout.depth, associated=True)
    rgba = picture.pixels if colours == 3 else picture.pixels[..., [0, 0, 0, 1]]
    write_pictures(tmp_path / "y.tif", [Banded(20, 30, layout, [rgba])])
    with tifffile.TiffFile(tmp_path / "y.tif") as written:
        assert written.pages[0].extrasamples == (1,)
        assert np.array_equal(written.pages[0].asarray()[..., -1], stored[..., -1])
        assert np.array_equal(written.pages[0].asarray()[..., :3], np.broadcast_to(stored[..., :-1], (20, 30, 3)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_numbers(tmp_path: Path, dtype: Any) -> None:
    """From 0 to 1 they become 16 bits; others are refused."""
    values = np.random.default_rng(0).random((9, 8, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", compression="zlib", predictor=dtype != np.float16)
    picture = read_picture(tmp_path / "x.tif")
    assert picture.layout == Layout(depth=16)
    assert np.abs(picture.pixels / 65535 - values).max() <= 0.5 / 65535 + 1e-9
    for bad in (1.5, -0.1, np.nan):
        values[0, 0, 0] = bad
        tifffile.imwrite(tmp_path / "y.tif", values, photometric="rgb")
        with pytest.raises(ImageError, match=r"floating-point values from .* 0 \(black\) to 1"):
            read_picture(tmp_path / "y.tif")


@pytest.mark.parametrize(
    ("dtype", "channels", "options", "message"),
    [
        (np.int16, 3, {"photometric": "rgb"}, "stores signed integers"),
        (np.uint32, 3, {"photometric": "rgb"}, "stores integers of 32 bits"),
        (np.complex64, 1, {"photometric": "minisblack"}, "stores complex numbers"),
        (np.uint8, 3, {"photometric": "cielab"}, r"stores CIE L\*a\*b\* colours"),
        (np.uint8, 3, {"photometric": "itulab"}, r"stores ITU L\*a\*b\* colours"),
        (np.uint16, 1, {"photometric": "cfa"}, "raw values of a camera's sensor"),
        (np.uint8, 4, {"photometric": "separated", "extratags": [(332, 3, 1, 2, True)]}, "inks other than cyan"),
    ],
)
def test_what_is_not_read_is_refused_by_name(
    tmp_path: Path, dtype: Any, channels: int, options: dict[str, Any], message: str
) -> None:
    samples = np.zeros((9, 8, channels) if channels > 1 else (9, 8), dtype)
    tifffile.imwrite(tmp_path / "x.tif", samples, **options)
    with pytest.raises(ImageError, match=message):
        read_picture(tmp_path / "x.tif")


def test_colour_of_fewer_pixels_than_light_is_refused_by_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((8, 8, 3), np.uint8), photometric="ycbcr")
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+") as file:
        file.pages[0].tags[530].overwrite((2, 2))
    with pytest.raises(ImageError, match="fewer pixels of colour than of light; save it as RGB"):
        read_picture(tmp_path / "x.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_and_pixels_agree_on_the_orientation(tmp_path: Path, orientation: int) -> None:
    pixels = noise(0, 24, 16, 3)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    picture = read_picture(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as opened:
        assert np.array_equal(picture.pixels, np.asarray(opened))  # which Pillow turns when it loads a TIFF
    assert read_size(tmp_path / "x.tif") == picture.size == ((24, 16) if orientation < 5 else (16, 24))


@many
@given(st.sampled_from(("zlib", "lzw", "packbits", "jpeg", None)), st.data())
def test_a_flipped_byte_is_never_a_raw_error(tmp_path: Path, compression: str | None, data: st.DataObject) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, noise(0, 40, 30, 3), photometric="rgb", compression=compression)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.sampled_from((len(content), len(content) // 2)))])
    try:
        with open_picture(path) as file:
            for picture in file:
                assert picture.pixels.dtype == picture.layout.dtype
    except ImageError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_file_cut_short_is_refused(tmp_path: Path, compression: str | None, kept: float) -> None:
    """The tags are at the start here, so that only pixels are missing."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, noise(0, 40, 30, 3), photometric="rgb", compression=compression, rowsperstrip=8)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_picture(path)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (257, 400, "pixels are missing"),  # rows
        (322, 4_000_000_000, "claims more than"),  # width of a tile
        (322, 160, "damaged or cut short"),
    ],
)
def test_tags_that_claim_more_than_there_is(tmp_path: Path, tag: int, value: int, message: str) -> None:
    options: dict[str, Any] = {"tile": (16, 16)} if tag == 322 else {"rowsperstrip": 8}
    tifffile.imwrite(tmp_path / "x.tif", noise(0, 40, 30, 3), photometric="rgb", compression="zlib", **options)
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+") as file:
        file.pages[0].tags[tag].overwrite(value, dtype="I")
    with pytest.raises(ImageError, match=message):
        read_picture(tmp_path / "x.tif")


def test_the_first_page_is_read_with_a_warning(tmp_path: Path) -> None:
    pages = [noise(n, 12, 10 + n, 3) for n in range(3)]
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        for page in pages:
            file.write(page, photometric="rgb")
    with pytest.warns(LossWarning, match="holds 3 pages; the first is used"):
        assert np.array_equal(read_picture(tmp_path / "x.tif").pixels, pages[0])
    with open_picture(tmp_path / "x.tif") as opened:
        assert [picture.size for picture in opened] == [(12, 10), (12, 11), (12, 12)]


def test_previews_are_no_pages(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(noise(0, 40, 40, 3), photometric="rgb")
        file.write(noise(1, 20, 20, 3), photometric="rgb", subfiletype=1)
    picture = read_picture(tmp_path / "x.tif")
    assert picture.size == (40, 40)
    assert picture.left_out == ("previews and masks",)


@many
@given(
    st.booleans(), st.booleans(), st.sampled_from((8, 16)), st.lists(st.integers(1, 40), min_size=1), st.integers(1, 50)
)
def test_bands_of_any_heights_become_strips_of_one(
    tmp_path: Path, gray: bool, alpha: bool, depth: int, heights: list[int], width: int
) -> None:
    """Read back by libtiff, which knows nothing of how it was written."""
    layout = Layout(gray, alpha, depth)
    if gray and alpha and depth == 16:  # written as colour
        return
    height = sum(heights)
    pixels = noise(0, height, width, layout.channels, layout.peak, layout.dtype)
    bands = np.split(pixels, np.cumsum(heights)[:-1])
    write_pictures(tmp_path / "x.tif", [Banded(height, width, layout, bands)])
    again = imagecodecs.tiff_decode((tmp_path / "x.tif").read_bytes())
    assert np.array_equal(again.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "jpeg"])
@pytest.mark.parametrize("name", ["100007.jpg", "10081.jpg", "103006.jpg"])
def test_photographs(shared: Path, tmp_path: Path, name: str, compression: str) -> None:
    with Image.open(shared / "data/natural" / name) as opened:
        opened.convert("RGB").save(tmp_path / "x.tif", compression=compression)
    with Image.open(tmp_path / "x.tif") as again:
        assert np.array_equal(read_picture(tmp_path / "x.tif").pixels, np.asarray(again.convert("RGB")))
