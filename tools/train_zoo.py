"""Train the float networks of the zoo, one after the other, within a number of minutes.

Two steps. The first is done once, anywhere; the second where the fast device is:

    python tools/train_zoo.py pack  ../shared/data/natural --to runs/pack
    python tools/train_zoo.py train --data runs/pack --to runs/zoo --minutes 28

Layout of the folders:

    PACK/000001.jpg …     photographs as they are, or crops of them as lossless WebP; 55 MiB at most
    ZOO/NAME.safetensors  a finished network, under its published keys
    ZOO/NAME.png, .json   its training curve, drawn and as numbers
    ZOO/NAME.safetensors.state  an unfinished run; the same command goes on with it

A network whose weights are there already is passed over. Try the whole way first, on any machine, with --tiny.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from srquant.analysis.curves import write_curve
from srquant.api import describe_device, pick_device
from srquant.images.listing import list_images
from srquant.images.reading import read_picture
from srquant.learning.photographs import Photographs
from srquant.learning.settings import TrainingConfig
from srquant.learning.state import state_of
from srquant.learning.trainer import Recipe, train
from srquant.networks import SRNetwork
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.networks.opening import save_network
from srquant.networks.rdn import RDN, RDNConfig
from srquant.networks.srresnet import SRResNet, SRResNetConfig
from srquant.networks.swinir import SwinIR, SwinIRConfig
from srquant.support.errors import ArgumentError, ImageError, SrquantError, UnknownNameError
from srquant.support.files import replacing, require_writable
from srquant.support.memory import keep_freed_memory

_SMALL_FILE = 1.0
"""Bytes a pixel, up to which a file is smaller than anything lossless made of it, and is taken as it is."""


@dataclass(frozen=True)
class Entry:
    """A network of the zoo: what it is, how it is trained, and its share of the minutes."""

    kind: type[SRNetwork]
    network: Any
    training: TrainingConfig
    share: float


def _steps(**fields: Any) -> TrainingConfig:
    """More steps than any time allows: the clock ends the run."""
    return TrainingConfig(steps=1_000_000, **fields)


_LIGHT = _steps(batch=32, patch=64, learning_rate=5e-4)
ZOO = {
    "swinir-light-x4": Entry(SwinIR, SwinIRConfig(scale=4), _LIGHT, 11),
    "edsr-baseline-x4": Entry(EDSR, EDSRConfig(scale=4), _steps(batch=32, patch=48, learning_rate=5e-4), 4),
    "swinir-light-x2": Entry(SwinIR, SwinIRConfig(scale=2), _LIGHT, 6),
    "srresnet-x4": Entry(SRResNet, SRResNetConfig(scale=4), _steps(batch=32, patch=48, learning_rate=5e-4), 3),
    "rdn-x4": Entry(RDN, RDNConfig(scale=4), _steps(batch=16, patch=32, learning_rate=2e-4), 4),
}
"""In the order in which they are trained."""


def pack(photographs: Path, to: Path, megabytes: float = 55.0, crop: int = 288, without: Sequence[Path] = ()) -> int:
    """Put as much of a folder of photographs as fits into a folder of at most so many MiB, losing nothing.

    A file with at most a byte for each pixel is copied; of the others crops are stored as lossless WebP. Every
    photograph gives its most detailed crop before any gives a second.

    Args:
        photographs: Their folder, with all folders in it.
        to: A new or empty folder.
        megabytes: MiB.
        crop: Height and width of a crop, at most.
        without: Folders of images that must not be among them, as benchmarks; told by their pixels.

    Returns:
        How many files were written.

    Raises:
        ArgumentError: ``to`` holds something, or a number is not positive.
        ImageError: Not one photograph fits.
    """
    if to.exists() and any(to.iterdir()):
        raise ArgumentError(f"--to {to} holds files already; give a new folder")
    if megabytes <= 0 or crop < 1:
        raise ArgumentError(f"megabytes={megabytes}, crop={crop}: give more than 0")
    forbidden = {
        _digest(read_picture(path).rgb8()) for folder in without for path in list_images(folder, recursive=True)
    }
    room = int(megabytes * 2**20)
    to.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, content in _contents(list_images(photographs, recursive=True), crop, forbidden):
        if len(content) > room:
            break
        room -= len(content)
        count += 1
        with replacing(to / f"{count:06d}{name}") as temporary:
            temporary.write_bytes(content)
    if not count:
        raise ImageError(f"{photographs} holds no photograph that fits into {megabytes:g} MiB")
    return count


def _contents(paths: list[Path], crop: int, forbidden: set[str]) -> Iterator[tuple[str, bytes]]:
    """Suffix and bytes of each file of a pack, the best first."""
    further: list[tuple[int, Path, tuple[int, int]]] = []
    for path in paths:
        pixels = read_picture(path).rgb8()
        digest = _digest(pixels)
        if digest in forbidden:
            continue
        forbidden.add(digest)  # a second copy is not packed either
        if path.stat().st_size <= _SMALL_FILE * pixels.shape[0] * pixels.shape[1]:
            yield path.suffix.lower(), path.read_bytes()
            continue
        corners = _corners(pixels, crop)
        yield ".webp", _lossless(pixels, corners[0], crop)
        further += [(rank, path, corner) for rank, corner in enumerate(corners[1:], start=1)]
    for _, path, corner in sorted(further, key=lambda row: row[:2]):
        yield ".webp", _lossless(read_picture(path).rgb8(), corner, crop)


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _corners(pixels: NDArray[np.uint8], crop: int) -> list[tuple[int, int]]:
    """Top and left of the crops that cover a photograph side by side, the one of steepest gradients first."""
    gray = pixels.astype(np.float32).mean(-1)
    steep = np.abs(np.diff(gray, axis=0))[:, :-1] + np.abs(np.diff(gray, axis=1))[:-1]
    starts = [range(0, max(side - crop, 0) + 1, crop) for side in gray.shape]
    corners = [(top, left) for top in starts[0] for left in starts[1]]
    return sorted(corners, key=lambda at: -float(steep[at[0] : at[0] + crop, at[1] : at[1] + crop].mean()))


def _lossless(pixels: NDArray[np.uint8], corner: tuple[int, int], crop: int) -> bytes:
    top, left = corner
    buffer = io.BytesIO()
    Image.fromarray(pixels[top : top + crop, left : left + crop]).save(buffer, "webp", lossless=True, method=4)
    return buffer.getvalue()


def train_all(
    names: Sequence[str], data: Path, to: Path, minutes: float, device: torch.device, *, tiny: bool = False
) -> None:
    """Train networks of the zoo one after the other; each gets its share of the minutes.

    Raises:
        UnknownNameError: There is no such network.
        ArgumentError: ``minutes`` is not positive.
    """
    for name in names:
        if name not in ZOO:
            raise UnknownNameError("network of the zoo", name, ZOO)
    if minutes <= 0:
        raise ArgumentError(f"--minutes {minutes}: give more than 0")
    to.mkdir(parents=True, exist_ok=True)
    together = sum(ZOO[name].share for name in names)
    for name in names:
        entry = _tiny(ZOO[name]) if tiny else ZOO[name]
        own = minutes * entry.share / together
        output = to / f"{name}.safetensors"
        if output.exists():
            print(f"{name}: {output} is there already")
            continue
        print(f"{name}: {own:.1f} minutes on {device}")
        _train(name, replace(entry, training=replace(entry.training, minutes=own)), data, output, device)


def _train(name: str, entry: Entry, data: Path, output: Path, device: torch.device) -> None:
    require_writable(output)
    photographs = Photographs.of(data, entry.network.scale, entry.training.patch)
    torch.manual_seed(entry.training.seed)
    trained = train(entry.kind(entry.network), photographs, entry.training, state_of(output), device)
    if not trained.first:
        return
    recipe = Recipe(entry.network, entry.training).to_json()
    save_network(output, trained.network, {"srquant.recipe": recipe, "srquant.device": describe_device(device)})
    write_curve(output, trained.curve)
    trained.state.remove()
    print(f"{'step':>8} {'loss':>9} {'PSNR':>7} {'seconds':>8}")
    for row in trained.curve:
        print(f"{row.step:8d} {row.loss:9.5f} {row.psnr:7.3f} {row.seconds:8.0f}")
    print(f"{name}: wrote {output}")


def _tiny(entry: Entry) -> Entry:
    """The same kind of network, small enough for a few steps a second on a CPU."""
    small = {
        "channels": 12,
        "depths": (2,),
        "heads": (2,),
        "blocks": 1,
        "layers": 2,
        "growth": 8,
    }
    fields = {name: value for name, value in small.items() if hasattr(entry.network, name)}
    training = replace(entry.training, batch=2, patch=16, warmup=2, validation=1, validation_every=5)
    return replace(entry, network=replace(entry.network, **fields), training=training)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="put photographs into one small folder")
    packing.add_argument("photographs", type=Path, help="folder of photographs, with all folders in it")
    packing.add_argument("--to", type=Path, default=Path("runs/pack"), help="a new folder (%(default)s)")
    packing.add_argument("--megabytes", type=float, default=55.0, help="MiB, at most (%(default)s)")
    packing.add_argument("--crop", type=int, default=288, help="height and width of crops (%(default)s)")
    packing.add_argument(
        "--without", type=Path, action="append", default=[], help="folder of benchmark images; several"
    )
    training = commands.add_parser("train", help="train networks of the zoo")
    training.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(ZOO)}; all, in this order, if none")
    training.add_argument("--data", type=Path, default=Path("runs/pack"), help="the packed folder (%(default)s)")
    training.add_argument("--to", type=Path, default=Path("runs/zoo"), help="where networks go (%(default)s)")
    training.add_argument("--minutes", type=float, default=28.0, help="for all of them together (%(default)s)")
    training.add_argument("--device", default="auto", help="auto, cpu, cuda …")
    training.add_argument("--tiny", action="store_true", help="tiny networks and crops, to try the script")
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; a mistake of the user's gives 2."""
    options = parser().parse_args(words)
    try:
        if options.command == "pack":
            count = pack(options.photographs, options.to, options.megabytes, options.crop, options.without)
            size = sum(path.stat().st_size for path in options.to.iterdir())
            print(f"wrote {count} files, {size / 2**20:.1f} MiB, to {options.to}")
        else:
            keep_freed_memory()
            device = pick_device(options.device)
            train_all(options.names or list(ZOO), options.data, options.to, options.minutes, device, tiny=options.tiny)
    except SrquantError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
