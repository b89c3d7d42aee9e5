from __future__ import annotations

import itertools
import struct
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import NETWORK_NAMES, small_networks, write_png

from srquant import upscale
from srquant.api import tiling
from srquant.images import Calibration, Layout, Picture, read_picture, upscaling, write_picture, writing
from srquant.images.bicubic import resize
from srquant.images.evaluation import enlarge
from srquant.images.listing import Reason
from srquant.images.tiling import Tiling
from srquant.images.upscaling import upscale_file, upscale_tree
from srquant.methods import PLQ
from srquant.model import Model
from srquant.support.errors import ArgumentError, FolderWarning, ImageError, LossWarning, OutputError


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_tiled_equals_untiled_where_the_receptive_field_allows(name: str, tmp_path: Path) -> None:
    model = Model(small_networks()[name], name)
    low = np.asarray(Image.open(write_png(tmp_path / "a.png", 70, 90)))
    whole = enlarge(model, low, model.scale)
    cut = enlarge(model, low, model.scale, tiling(model, 32))
    # Window attention sees without bound; there the overlap keeps the difference small.
    assert np.abs(whole.astype(int) - cut).max() <= 1


def test_a_quantized_network_too(edsr: Model, calibration: Calibration, tmp_path: Path) -> None:
    model = PLQ(bits=3).quantize(edsr, calibration)
    low = np.asarray(Image.open(write_png(tmp_path / "a.png", 70, 90)))
    difference = np.abs(enlarge(model, low, 4).astype(int) - enlarge(model, low, 4, tiling(model, 32)))
    # Sums in another order may tip a code; that is rare and leaves no seam.
    assert (difference > 1).mean() < 1e-3


def nearest(images: torch.Tensor) -> torch.Tensor:
    return images.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
def test_every_layout_keeps_its_pixels(tmp_path: Path, gray: bool, alpha: bool, depth: int) -> None:
    layout = Layout(gray=gray, alpha=alpha, depth=depth)
    rng = np.random.default_rng(0)
    # Of no pixel is alpha 0, under which the colour would be another one.
    pixels = rng.integers(1, layout.peak + 1, (50, 37, layout.channels)).astype(layout.dtype)
    write_picture(tmp_path / "in.png", Picture(pixels, layout))
    upscale_file(nearest, tmp_path / "in.png", tmp_path / "out.png", 2, Tiling(16, 8))
    result = read_picture(tmp_path / "out.png")
    assert result.layout == layout
    colours = layout.channels - alpha
    assert np.array_equal(result.pixels[..., :colours], pixels[..., :colours].repeat(2, 0).repeat(2, 1))
    if alpha:
        smooth = resize(torch.from_numpy(pixels[..., -1].astype(np.float64)), 2).clamp(0, layout.peak)
        # In tiles of 16 with an overlap of 8 the cut never shows: the kernel reaches 2 pixels.
        assert np.abs(result.pixels[..., -1] - smooth.numpy()).max() <= 0.51 + layout.peak * 1e-6


TILINGS = {
    "small": Tiling(16, 3),
    "unaligned": Tiling(20, 5, 8),
    "large": Tiling(192, 26),
    "one size": Tiling(40, 8, size=(40, 48)),
    "one size, windows": Tiling(48, 8, 8, (48, 56)),
}


@pytest.mark.parametrize("size", [(1, 1), (16, 90), (40, 48), (61, 33), (150, 71)], ids=str)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp", "streamed.png"])
@pytest.mark.parametrize("cut", TILINGS)
@pytest.mark.parametrize("depth", [8, 16])
def test_tiles_of_any_size_in_any_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int, cut: str, suffix: str, size: tuple[int, int]
) -> None:
    """What is read back is what is computed in memory, pixel for pixel, however bands come to the writer."""
    if suffix == "streamed.png":
        monkeypatch.setattr(writing, "_STREAMED_FROM", 0)
    layout = Layout(depth=depth)
    pixels = np.random.default_rng(sum(size)).integers(0, layout.peak + 1, (*size, 3)).astype(layout.dtype)
    picture = Picture(pixels, layout)
    write_picture(tmp_path / "in.png", picture)
    shallow = depth == 16 and suffix in (".webp", ".bmp")
    with pytest.warns(LossWarning, match="holds 8 bits a channel of 16") if shallow else nullcontext():
        upscale_file(nearest, tmp_path / "in.png", tmp_path / f"out{suffix}", 2, TILINGS[cut])
    result = read_picture(tmp_path / f"out{suffix}")
    wanted = pixels.repeat(2, 0).repeat(2, 1)
    if shallow:
        assert result.layout.depth == 8
        assert np.abs(result.pixels.astype(float) - wanted / 257).max() <= 0.5
    else:
        assert np.array_equal(result.pixels, wanted)


def disc(depth: int = 8) -> Picture:
    """A light disc on transparent black; pixels at its edge are partly visible."""
    y, x = np.mgrid[:384, :384]
    alpha = np.clip(16 * 8 - np.hypot(y - 191.5, x - 191.5) + 0.5, 0, 1).reshape(48, 8, 48, 8).mean((1, 3))
    layout = Layout(alpha=True, depth=depth)
    pixels = np.zeros((48, 48, 4))
    pixels[..., :3] = np.array([250, 240, 200]) / 255 * (alpha > 0)[..., None]
    pixels[..., 3] = alpha
    return Picture(np.rint(pixels * layout.peak).astype(layout.dtype), layout)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_no_dark_halo_around_what_is_transparent(tmp_path: Path, suffix: str, depth: int) -> None:
    """A network that smooths takes in what stands under alpha 0; that is the colour of the disc now."""
    write_picture(tmp_path / f"in{suffix}", disc(depth))

    def smooth(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(images, scale_factor=4.0, mode="bicubic")

    upscale_file(smooth, tmp_path / f"in{suffix}", tmp_path / f"out{suffix}", 4, Tiling(16, 8))
    result = read_picture(tmp_path / f"out{suffix}")
    colour = result.pixels[..., :3][result.pixels[..., 3] > 0] / result.layout.peak * 255
    assert np.abs(colour - (250, 240, 200)).max() <= 1


ALPHA_BMP = (  # a header of 108 bytes with masks, two pixels: half transparent red and whole blue
    b"BM"
    + struct.pack("<IHHI", 130, 0, 0, 122)
    + struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0)
    + struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    + bytes(52)
    + bytes((0, 0, 255, 128, 255, 0, 0, 255))
)


def test_a_folder_in_one_format(tmp_path: Path) -> None:
    """What its own format cannot hold has a way out."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/alpha.bmp").write_bytes(ALPHA_BMP)
    Image.new("RGB", (9000, 2)).save(tmp_path / "in/wide.webp")
    Image.new("RGB", (33_000, 2)).save(tmp_path / "in/wide.jpg")
    write_png(tmp_path / "in/sub/ok.png", 20, 24)
    done = upscaling.upscale_tree(nearest, tmp_path / "in", tmp_path / "same", 2, Tiling(9000, 0))
    assert [path.name for path in done.written] == ["ok.png"]
    reasons = {path.name: reason for path, reason in done.failed}
    assert "cannot store transparency; use .png or .tif or .webp (for a whole folder, --format)" in reasons["alpha.bmp"]
    assert ".webp holds at most 16383 pixels a side, the picture has 18000x4; use .png or .tif" in reasons["wide.webp"]
    assert ".jpg holds at most 65500 pixels a side, the picture has 66000x4; use .png or .tif" in reasons["wide.jpg"]
    (tmp_path / "in/wide.jpg").unlink()
    for form, suffix in (("png", ".png"), ("tiff", ".tif")):
        done = upscaling.upscale_tree(nearest, tmp_path / "in", tmp_path / form, 2, Tiling(9000, 0), form=form)
        assert not done.failed
        assert [path.relative_to(tmp_path / form).as_posix() for path in done.written] == [
            f"alpha{suffix}",
            f"sub/ok{suffix}",
            f"wide{suffix}",
        ]
        assert read_picture(tmp_path / form / f"alpha{suffix}").layout == Layout(alpha=True)


def test_two_pictures_never_become_one(tmp_path: Path) -> None:
    write_png(tmp_path / "in/a.png", 20, 24)
    for name, width in (("a.jpg", 9), ("a.bmp", 8), ("b.jpg", 7)):
        Image.new("RGB", (width, 9)).save(tmp_path / "in" / name)
    (tmp_path / "in/b.jpg.png").write_bytes((tmp_path / "in/a.png").read_bytes())
    (tmp_path / "in/b.png").write_bytes((tmp_path / "in/a.png").read_bytes())
    for skip in (False, True):
        done = upscaling.upscale_tree(
            nearest, tmp_path / "in", tmp_path / "out", 2, Tiling(64, 0), form="png", skip_existing=skip
        )
        ((path, reason),) = done.failed
        assert path.name == "b.jpg.png"
        assert "as b.jpg does; rename one of them" in reason
    widths = {path.name: read_picture(path).size[1] for path in (tmp_path / "out").iterdir()}
    assert widths == {"a.png": 48, "a.jpg.png": 18, "a.bmp.png": 16, "b.png": 48, "b.jpg.png": 14}


def test_a_format_and_a_name(edsr: Model, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", 20, 24)
    (tmp_path / "out").mkdir()
    assert upscale(edsr, tmp_path / "a.png", tmp_path / "out", format="tiff").written == (tmp_path / "out/a.tif",)
    with pytest.raises(ArgumentError, match=r"format='webp' and the name b\.png disagree"):
        upscale(edsr, tmp_path / "a.png", tmp_path / "b.png", format="webp")
    with pytest.raises(ArgumentError, match="unknown format 'gif'"):
        upscale(edsr, tmp_path, tmp_path.parent / "larger", format="gif")  # type: ignore[arg-type]


def test_folders_keep_their_hierarchy(edsr: Model, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    write_png(source / "a.png", 20, 24)
    write_png(source / "sub/deep/b.png", 18, 22)
    (source / "notes.txt").write_text("x")
    (source / "sub/broken.jpg").write_bytes(b"no picture")
    with pytest.warns(FolderWarning, match=r"passed over 1 × not a picture \(notes\.txt\)"):
        done = upscale(edsr, source, target)
    assert done.passed_over == ((source / "notes.txt", Reason.NO_PICTURE),)
    assert sorted(p.relative_to(target).as_posix() for p in done.written) == ["a.png", "sub/deep/b.png"]
    assert read_picture(target / "sub/deep/b.png").size == (72, 88)
    ((path, reason),) = done.failed
    assert path.name == "broken.jpg"
    assert "is not an image" in reason
    before = (target / "a.png").stat().st_mtime_ns
    with pytest.warns(FolderWarning):
        again = upscale(edsr, source, target, skip_existing=True)
    assert len(again.skipped) == 2
    assert (target / "a.png").stat().st_mtime_ns == before


def test_pictures_of_a_folder_are_read_and_written_while_others_are_enlarged(tmp_path: Path, monkeypatch) -> None:
    """The network runs on one at a time, and whatever takes longest, each picture becomes itself."""
    for number in range(6):
        write_png(tmp_path / "in" / f"{number}.png", 20 + number, 20, number)
    calls, running, most, writing = 0, 0, 0, threading.Event()

    def slow(images: torch.Tensor) -> torch.Tensor:
        nonlocal calls, running, most
        calls += 1
        running += 1
        most = max(most, running)
        if calls == 3:  # waits until one of the first two to be enlarged, whichever they are, is written
            assert writing.wait(60)
        time.sleep(0.01)
        running -= 1
        return nearest(images)

    real = upscaling.write_pictures

    def write(path: Path, *arguments) -> tuple[str, ...]:
        lost = real(path, *arguments)
        writing.set()
        return lost

    monkeypatch.setattr(upscaling, "write_pictures", write)
    done = upscaling.upscale_tree(slow, tmp_path / "in", tmp_path / "out", 2, Tiling(64, 0))
    assert most == 1
    assert [path.name for path in done.written] == [f"{number}.png" for number in range(6)]
    for path in done.written:
        small = read_picture(tmp_path / "in" / path.name).pixels
        assert np.array_equal(read_picture(path).pixels, small.repeat(2, 0).repeat(2, 1))


def test_an_output_folder_inside_the_input_folder_is_left_out(tmp_path: Path) -> None:
    """However often it is run, and also to go on, each picture is enlarged, and none that came out is."""
    album = tmp_path / "album"
    write_png(album / "a.png", 20, 20)
    write_png(album / "sub/b.png", 20, 20)
    for skip in (False, False, True):
        with (
            pytest.warns(FolderWarning, match=r"1 × the output folder \(sub/x2\)")
            if (album / "sub/x2").exists()
            else (nullcontext())
        ):
            done = upscaling.upscale_tree(nearest, album, album / "sub/x2", 2, Tiling(64, 0), skip_existing=skip)
        assert len(done.skipped if skip else done.written) == 2
        found = sorted(path.relative_to(album).as_posix() for path in album.rglob("*.png"))
        assert found == ["a.png", "sub/b.png", "sub/x2/a.png", "sub/x2/sub/b.png"]


def test_what_is_only_read_becomes_png(tmp_path: Path) -> None:
    colours = Image.new("P", (20, 16), 1)
    colours.putpalette([0, 0, 0, 250, 20, 30])
    (tmp_path / "in").mkdir()
    colours.save(tmp_path / "in/a.gif")
    Image.new("RGB", (20, 16), (250, 20, 30)).save(tmp_path / "in/b.jfif")
    with pytest.warns(LossWarning, match=r"a\.gif: \.gif is only read; what is made of it is \.png"):
        done = upscaling.upscale_tree(nearest, tmp_path / "in", tmp_path / "out", 2, Tiling(64, 0))
    assert [path.name for path in done.written] == ["a.png", "b.jfif"]
    for path in done.written:
        assert np.abs(read_picture(path).rgb8().astype(int) - (250, 20, 30)).max() <= 4


def test_a_file_that_is_only_read_into_a_folder(edsr: Model, tmp_path: Path) -> None:
    Image.new("RGB", (20, 16)).save(tmp_path / "a.gif")
    (tmp_path / "out").mkdir()
    assert upscale(edsr, tmp_path / "a.gif", tmp_path / "out").written == (tmp_path / "out/a.png",)


@pytest.mark.parametrize("place", ["read", "compute", "write"])
def test_one_bad_picture_stops_no_other_whatever_it_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    for number in range(6):
        write_png(tmp_path / "in" / f"{number}.png", 20 + number, 20, number)
    opened, write = upscaling.open_picture, upscaling.write_pictures

    def broken_open(path: Path):
        if path.name == "3.png" and place == "read":
            raise ZeroDivisionError("a fault of a decoder\nin two lines")
        return opened(path)

    def broken_network(images: torch.Tensor) -> torch.Tensor:
        if images.shape[2] == 23 and place == "compute":
            raise RuntimeError("padding of 3 for 2 pixels")
        return nearest(images)

    def broken_write(path: Path, *arguments):
        if path.name == "3.png" and place == "write":
            raise IndexError
        return write(path, *arguments)

    monkeypatch.setattr(upscaling, "open_picture", broken_open)
    monkeypatch.setattr(upscaling, "write_pictures", broken_write)
    done = upscaling.upscale_tree(broken_network, tmp_path / "in", tmp_path / "out", 2, Tiling(64, 0))
    assert [path.name for path in done.written] == ["0.png", "1.png", "2.png", "4.png", "5.png"]
    ((path, reason),) = done.failed
    assert path.name == "3.png"
    said = {
        "read": "ZeroDivisionError: a fault of a decoder",
        "compute": "RuntimeError: padding of 3 for 2 pixels",
        "write": "IndexError: IndexError",
    }
    assert reason == f"{path}: {said[place]}"


def test_where_every_picture_fails_by_a_fault_it_is_raised(tmp_path: Path) -> None:
    for number in range(9):
        write_png(tmp_path / "in" / f"{number}.png", 20, 20, number)

    def broken(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        upscaling.upscale_tree(broken, tmp_path / "in", tmp_path / "out", 2, Tiling(64, 0))


def test_a_name_as_long_as_disks_allow(tmp_path: Path) -> None:
    name = f"{'ä' * 121}.png"
    assert len(name.encode()) == 246
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "a.png", 20, 24).rename(tmp_path / "in" / name)
    done = upscaling.upscale_tree(nearest, tmp_path / "in", tmp_path / "out", 2, Tiling(64, 0))
    assert not done.failed
    assert read_picture(tmp_path / "out" / name).size == (40, 48)


def test_a_file_into_a_folder(edsr: Model, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", 20, 24)
    (tmp_path / "out").mkdir()
    assert upscale(edsr, tmp_path / "a.png", tmp_path / "out").written == (tmp_path / "out/a.png",)


def test_bad_requests(edsr: Model, tmp_path: Path) -> None:
    write_png(tmp_path / "in/a.png", 20, 24)
    with pytest.raises(OutputError, match="is the input folder itself"):
        upscale(edsr, tmp_path / "in", tmp_path / "in")
    with pytest.raises(ImageError, match="is not there"):
        upscale(edsr, tmp_path / "nowhere.png", tmp_path / "x.png")
    with pytest.raises(ArgumentError, match="tile=8"):
        upscale(edsr, tmp_path / "in", tmp_path / "out", tile=8)
    with pytest.raises(ImageError, match="unknown file type"):
        upscale(edsr, tmp_path / "in/a.png", tmp_path / "x.gif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no images"):
        upscale(edsr, tmp_path / "empty", tmp_path / "out")


def test_out_of_memory_is_said(tmp_path: Path) -> None:
    from srquant.support.errors import MemoryLimitError

    write_png(tmp_path / "a.png", 20, 24)

    def hungry(images: torch.Tensor) -> torch.Tensor:
        return torch.empty(1 << 48)

    with pytest.raises(MemoryLimitError, match="give a smaller tile than 64"):
        upscale_file(hungry, tmp_path / "a.png", tmp_path / "b.png", 2, Tiling(64, 8))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("width", "height"), [(3000, 4000), pytest.param(6000, 4000, marks=pytest.mark.exhaustive)], ids=str
)
def test_a_large_picture_needs_little_memory(tmp_path: Path, width: int, height: int) -> None:
    """6000×4000 to 24000×16000 in under 2 GiB: the output alone is 1.15 GB, and enlarging never holds as much."""
    script = """
import sys
import numpy as np, torch
from pathlib import Path
from srquant.images import Layout, Picture, write_picture
from srquant.images.listing import Reason
from srquant.images.tiling import Tiling
from srquant.images.upscaling import upscale_file, upscale_tree
folder, width, height = Path(sys.argv[1]), *map(int, sys.argv[2:])
row = np.arange(width * 3, dtype=np.uint32) // 7 % 256
pixels = np.broadcast_to(row.astype(np.uint8).reshape(1, width, 3), (height, width, 3))
write_picture(folder / "in.png", Picture(np.ascontiguousarray(pixels), Layout()))
def four(x):
    return x.repeat_interleave(4, -1).repeat_interleave(4, -2)
def peak():  # getrusage's would be the parent's
    return 1024 * int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])
write_picture(folder / "first.png", Picture(np.ascontiguousarray(pixels[:300, :300]), Layout()))
upscale_file(four, folder / "first.png", folder / "first4.png", 4, Tiling(192, 26))  # what libraries take once
before = peak()
upscale_file(four, folder / "in.png", folder / "out.png", 4, Tiling(192, 26))
print(before, peak())
"""
    words = [sys.executable, "-c", script, str(tmp_path), str(width), str(height)]
    before, peak = map(int, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())
    assert peak < 2 << 30
    assert peak - before < 3 * 16 * width * height
    from srquant.images.reading import read_size

    Image.MAX_IMAGE_PIXELS, kept = None, Image.MAX_IMAGE_PIXELS
    try:
        assert read_size(tmp_path / "out.png") == (4 * height, 4 * width)
    finally:
        Image.MAX_IMAGE_PIXELS = kept


@pytest.mark.parametrize("room", [1, 1 << 30])
def test_large_pictures_of_a_folder_are_in_work_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """And small ones together: tiles of two pictures then take turns."""
    (tmp_path / "in").mkdir()
    for level in range(6):
        Image.new("RGB", (16, 480), (40 * level,) * 3).save(tmp_path / f"in/{level}.png")
    monkeypatch.setattr(upscaling, "_IN_FLIGHT", room)
    order: list[int] = []

    def noting(images: torch.Tensor) -> torch.Tensor:
        order.append(round(float(images.mean()) * 255) // 40)
        time.sleep(0.002)
        return nearest(images)

    done = upscale_tree(noting, tmp_path / "in", tmp_path / "out", 2, Tiling(16, 2))
    assert len(done.written) == 6
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert (changes == 5) == (room == 1)
    for level in range(6):
        assert (read_picture(tmp_path / f"out/{level}.png").pixels == 40 * level).all()


def peak_of(*words: object) -> int:
    """KiB of memory that a command takes."""
    script = """
import sys
from srquant.cli.main import main
try:
    main()
finally:
    print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])
"""
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def test_a_folder_needs_little_more_memory_than_one_of_its_pictures(edsr: Model, tmp_path: Path) -> None:
    torch.save(edsr.network.state_dict(), tmp_path / "edsr.pth")
    for number in range(4):
        write_png(tmp_path / f"in/{number}.png", 700, 700, number)
    upscale_one = "upscale", tmp_path / "edsr.pth", tmp_path / "in/0.png", "-o", tmp_path / "0.png"
    one, all_ = peak_of(*upscale_one), peak_of(*upscale_one[:2], tmp_path / "in", "-o", tmp_path / "out")
    assert all_ < 1.3 * one
