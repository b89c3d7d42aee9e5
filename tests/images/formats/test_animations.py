"""Animations and pages: all of them where the format holds several, and a word where it does not."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageSequence

from srquant.images import Calibration, find_pairs, read_picture
from srquant.images.reading import open_picture
from srquant.images.tiling import Tiling
from srquant.images.upscaling import upscale_file
from srquant.support.errors import ImageError, LossWarning


def nearest(images: torch.Tensor) -> torch.Tensor:
    return images.repeat_interleave(2, -1).repeat_interleave(2, -2)


def frames(count: int = 4, alpha: bool = False) -> list[Image.Image]:
    """A square that moves, on a ground of one colour, so that 256 colours are enough for GIF."""
    made: list[Image.Image] = []
    for number in range(count):
        pixels = np.full((24, 32, 4), (200, 30, 90, 255), np.uint8)
        if alpha:
            pixels[:, :8, 3] = 0
        pixels[4:12, 8 + 4 * number : 14 + 4 * number] = (20 * number, 250, 60, 255)
        made.append(Image.fromarray(pixels if alpha else np.ascontiguousarray(pixels[..., :3])))
    return made


def shown(path: Path) -> tuple[list[np.ndarray], list[float], int | None]:
    """Frames, durations and repetitions, as Pillow reads them."""
    with Image.open(path) as opened:
        pixels, durations = [], []
        for frame in ImageSequence.Iterator(opened):
            pixels.append(np.asarray(frame.convert("RGBA")))
            durations.append(float(frame.info["duration"]))
        return pixels, durations, opened.info.get("loop")


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("target", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("source", [".gif", ".png", ".webp"])
def test_every_frame_is_enlarged(tmp_path: Path, source: str, target: str, alpha: bool) -> None:
    first, *others = frames(alpha=alpha)
    options: dict[str, Any] = {"lossless": True} if source == ".webp" else {}
    path, output = tmp_path / f"a{source}", tmp_path / f"b{target}"
    first.save(path, save_all=True, append_images=others, duration=[100, 200, 300, 50], loop=3, disposal=2, **options)
    pixels, durations, loop = shown(path)
    assert durations == [100, 200, 300, 50]
    untimed = (
        pytest.warns(LossWarning, match=r"\.tif holds no durations of frames") if target == ".tif" else nullcontext()
    )
    with untimed:
        upscale_file(nearest, path, output, 2, Tiling(16, 0))
    if target == ".tif":
        with tifffile.TiffFile(output) as file:
            again = [page.asarray() for page in file.pages]
    else:
        again, kept, repeated = shown(output)
        assert kept == durations
        assert repeated == loop
    assert len(again) == 4
    for small, large in zip(pixels, again, strict=True):
        channels = 4 if alpha else 3
        visible = small[..., 3] > 0
        wanted = small.repeat(2, 0).repeat(2, 1)[visible.repeat(2, 0).repeat(2, 1)][:, : channels - alpha]
        assert np.array_equal(large[visible.repeat(2, 0).repeat(2, 1)][:, : channels - alpha], wanted)
        if target == ".tif":
            assert large.shape[-1] == channels


def test_pages_of_several_sizes_and_layouts(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pages = [
        random.integers(0, 256, (40, 30, 3)).astype(np.uint8),
        random.integers(0, 65536, (20, 50)).astype(np.uint16),
        random.integers(1, 256, (33, 17, 4)).astype(np.uint8),
    ]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page, photometric="minisblack" if page.ndim == 2 else "rgb")
    upscale_file(nearest, tmp_path / "a.tif", tmp_path / "b.tif", 2, Tiling(64, 8, size=(64, 72)))
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        again = [page.asarray() for page in file.pages]
    assert [page.dtype for page in again] == [page.dtype for page in pages]
    for page, large in zip(pages, again, strict=True):
        colours = slice(0, 3) if page.ndim == 3 else slice(None)
        assert np.array_equal(large[..., colours], page.repeat(2, 0).repeat(2, 1)[..., colours])


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (".gif", ".jpg", r"only the first of several frames is enlarged; \.png or \.tif or \.webp holds them all"),
        (".tif", ".png", r"only the first of several pages is enlarged; \.tif holds them all"),
        (".tif", ".bmp", r"only the first of several pages is enlarged; \.tif holds them all"),
    ],
)
def test_formats_of_one_picture_take_the_first_and_say_so(
    tmp_path: Path, source: str, target: str, message: str
) -> None:
    first, *others = frames()
    first.save(tmp_path / f"a{source}", save_all=True, append_images=others)
    with pytest.warns(LossWarning, match=message):
        upscale_file(nearest, tmp_path / f"a{source}", tmp_path / f"b{target}", 2, Tiling(64, 0))
    assert read_picture(tmp_path / f"b{target}").size == (48, 64)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_reading_one_picture_takes_the_first_frame_and_says_so(tmp_path: Path, suffix: str) -> None:
    first, *others = frames()
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=others, lossless=True)
    with pytest.warns(LossWarning, match="holds 4 frames; the first is used"):
        picture = read_picture(tmp_path / f"a{suffix}")
    assert np.array_equal(picture.rgb8(), np.asarray(first))


def test_a_frame_that_is_damaged_is_no_raw_error(tmp_path: Path) -> None:
    first, *others = frames()
    first.save(tmp_path / "a.png", save_all=True, append_images=others)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:-60])
    with pytest.raises(ImageError, match="damaged or cut short"), open_picture(tmp_path / "a.png") as file:
        list(file)
    with pytest.raises(ImageError, match="damaged or cut short"):
        upscale_file(nearest, tmp_path / "a.png", tmp_path / "b.png", 2, Tiling(64, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_calibration_and_evaluation_take_the_first_page_and_say_so_once(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (48, 48, 3)).astype(np.uint8)) for n in range(2)]
    for folder in ("set/HR", "calibration"):
        (tmp_path / folder).mkdir(parents=True)
        pages[0].save(tmp_path / folder / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.warns(LossWarning) as said:
        patches = Calibration.from_low_resolution(tmp_path / "calibration", count=9, size=48)
        (seen,) = {tuple(sorted(patches.patch(index).mul(255).round().flatten().tolist())) for index in range(9)}
    assert seen == tuple(sorted(np.asarray(pages[0]).flatten().tolist()))
    assert [str(warning.message) for warning in said] == [
        f"{tmp_path / 'calibration/a.tif'} holds 2 pages; the first is used"
    ]
    with pytest.warns(LossWarning, match=r"HR/a\.tif holds 2 pages; the first is used"):
        ((pair,),) = find_pairs(tmp_path / "set", 2)
        assert np.array_equal(pair.read()[1], np.asarray(pages[0]))
