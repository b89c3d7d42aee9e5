"""Pictures of every mode and format: whole, cut, flipped, and larger in their header than in truth."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random
from typing import Any

import numpy as np
import tifffile
from hypothesis import given
from PIL import Image
from tests.fuzz.damage import damaged, seeds
from tests.fuzz.lab import Lab, fuzzing

MODES = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"),
    *("I", "F", "I;16", "I;16B"),
)
FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".gif", "PPM": ".ppm"}
SIZES = ((1, 1), (1, 30), (30, 1), (2, 3), (16, 16), (17, 23))
PROFILES = (None, b"", b"junk", bytes(70_000))


def image(random: Random, mode: str) -> Image.Image:
    height, width = random.choice(SIZES)
    pixels = np.random.default_rng(random.randint(0, 99)).integers(0, 256, (height, width, 4), np.uint8)
    if mode in ("I;16", "I;16B"):
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).convert(mode)
    if mode in ("La", "RGBa"):
        return Image.fromarray(pixels).convert(mode.upper()).convert(mode)
    if mode == "PA":
        return Image.fromarray(pixels[..., :3]).convert("P").convert("PA")
    if mode == "LAB":
        return Image.frombytes("LAB", (width, height), pixels[..., :3].tobytes())
    shown = Image.fromarray(pixels if mode == "RGBA" else pixels[..., :3])
    if mode in ("I", "F"):
        return shown.convert("L").convert(mode).point(lambda value: value * random.choice((1, 100, -1, 1e6)))
    return shown.convert(mode)


def options(random: Random, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if random.random() < 0.2:
        found["icc_profile"] = random.choice(PROFILES)
    if random.random() < 0.25:
        exif = Image.Exif()
        exif[random.choice((0x0112, 0x010F, 0x9003))] = random.choice((1, 6, 0, 99, "text", "long" * 10_000))
        found["exif"] = random.choice((exif.tobytes(), b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b""))
    if random.random() < 0.15:
        found["transparency"] = random.choice((0, 3, b"\0\x80", (1, 2, 3)))
    if kind == "TIFF":
        found["compression"] = random.choice((None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"))
    if kind in ("PNG", "GIF", "TIFF", "WEBP") and random.random() < 0.15:
        found |= {"save_all": True, "append_images": [Image.new("RGB", (5, 5))]}
    return found


def deep(random: Random) -> bytes:
    """16 bits in several channels, or kinds of TIFF that Pillow does not write."""
    height, width = random.choice(SIZES)
    kind = random.choice((np.uint16, np.uint16, np.int16, np.float32, np.uint32, np.uint8))
    channels = random.choice((1, 2, 3, 4, 5))
    pixels = np.random.default_rng(0).integers(0, 100, (height, width, channels)).astype(kind)
    if random.random() < 0.5:
        pixels = np.moveaxis(pixels, -1, 0)
    buffer = io.BytesIO()
    shape = random.choice(("rgb", "minisblack"))
    planes = "separate" if pixels.shape[0] == channels else "contig"
    stored = {"photometric": shape, "planarconfig": planes} if channels in (3, 4) else {"photometric": "minisblack"}
    tifffile.imwrite(buffer, pixels, compression=random.choice((None, "zlib")), bigtiff=random.random() < 0.3, **stored)
    return buffer.getvalue()


def deep_png(random: Random, size: tuple[int, int] | None = None) -> bytes:
    height, width = size or random.choice(SIZES)
    colour, channels = random.choice(((0, 1), (2, 3), (4, 2), (6, 4)))
    rows = b"".join(b"\0" + random.randbytes(2 * channels * min(width, 99)) for _ in range(min(height, 99)))
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, random.choice((0, 0, 1)))
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(random: Random) -> bytes:
    """A small file that claims a huge picture."""
    side = random.choice((20_000, 65_535, 1 << 20, (1 << 31) - 1))
    match random.choice(("png", "bmp", "gif", "tiff", "deep", "text")):
        case "png":
            chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
            return b"\x89PNG\r\n\x1a\n\0\0\0\r" + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(99)
        case "bmp":
            return b"BM" + struct.pack("<IIIIiiHH", 99, 0, 54, 40, side, side, 1, 24) + bytes(99)
        case "gif":
            return b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + b"," + bytes(30)
        case "tiff":
            tags = ((256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 99))
            entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
            return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(99)
        case "deep":
            return deep_png(random, (side, side))
        case _:
            text = b"Comment\0\0" + zlib.compress(bytes(100 << 20), 9)
            chunk = b"zTXt" + text
            whole = deep_png(random)
            return whole[:33] + struct.pack(">I", len(text)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]


def content(random: Random) -> tuple[str, bytes]:
    """A picture and the ending of its format."""
    match random.choice(("pillow", "pillow", "pillow", "pillow", "deep", "deep png", "bomb")):
        case "deep":
            return ".tif", deep(random)
        case "deep png":
            return ".png", deep_png(random)
        case "bomb":
            return random.choice((".png", ".bmp", ".tif")), bomb(random)
        case _:
            while True:
                kind, mode, buffer = random.choice(list(FORMATS)), random.choice(MODES), io.BytesIO()
                try:
                    image(random, mode).save(buffer, kind, **options(random, kind))
                except Exception:  # not every format holds every mode
                    continue
                return FORMATS[kind], buffer.getvalue()


def use(lab: Lab, random: Random, suffix: str, picture: bytes) -> None:
    suffix = suffix if random.random() < 0.8 else random.choice((".png", ".jpg", ".TIFF", ".webp"))
    path = lab.given(f"pictures/a{suffix}", picture)
    network = lab.inputs / random.choice(("edsr.pth", "edsr_minmax.safetensors"))
    match random.choice(("one", "one", "one", "one", "folder", "calibration", "evaluation", "training")):
        case "one":
            target = random.choice((suffix, ".png", ".jpg", ".webp", ".tif", ".bmp"))
            lab.law("upscale", network, path, "-o", lab.out / f"q{target}")
        case "folder":
            lab.given("pictures/sub/good.png", (lab.inputs / "p.png").read_bytes())
            lab.law("upscale", network, path.parent, "-o", lab.out / "larger")
            assert (lab.out / "larger/sub/good.png").exists(), "one bad picture stopped another"
        case "calibration":
            given = random.choice(("--calibration", "--calibration-hr"))
            words = (given, path.parent, "--patches", 1, "--patch-size", 16, "--method", "minmax")
            lab.law("quantize", lab.inputs / "edsr.pth", *words, "-o", lab.out / "m.safetensors")
        case "evaluation":
            lab.law("evaluate", network, path.parent, "--json", lab.out / "s.json")
        case _:
            fields = ("network.channels=8", "network.blocks=1", "training.batch=1", "training.patch=4")
            words = [word for field in (*fields, "training.validation=1") for word in ("--set", field)]
            lab.given("pictures/b.png", (lab.inputs / "p.png").read_bytes())
            words += ["--data", path.parent, "--scale", 2, "--steps", 1]
            lab.law("train", "EDSR", *words, "-o", lab.out / "n.safetensors")


@fuzzing(90)
@given(random=seeds())
def test_pictures_of_all_kinds(lab: Lab, random: Random) -> None:
    lab.clear()
    use(lab, random, *content(random))


@fuzzing(50)
@given(random=seeds())
def test_damaged_pictures(lab: Lab, random: Random) -> None:
    lab.clear()
    suffix, picture = content(random)
    use(lab, random, suffix, damaged(random, picture[: 1 << 17]))
