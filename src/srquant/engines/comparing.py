"""Comparing what an engine gives with what a model gives, on test patches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from srquant.engines import Target
from srquant.engines.exported import Exported, open_in
from srquant.images.reading import read_picture
from srquant.images.samples import LOW_RESOLUTION
from srquant.model import Model
from srquant.networks.modules import pad_to_size
from srquant.support.errors import SaturationWarning
from srquant.support.tensors import planes

_LINE = 0.25
"""Share of a difference that may be a line of the image."""
_PATCHES = ((64, 64), (48, 80))
"""Heights and widths of the test patches where the file takes any size."""


def open_quietly(path: Path, target: Target, threads: int | None, named: Path) -> Exported:
    """The file in an engine; see :func:`~srquant.engines.exported.open_in`. That products saturate here is not said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaturationWarning)  # that is what is measured
        return open_in(target, path, threads, named)


def only_noise(model: Callable[[Tensor], Tensor], exported: Exported) -> bool:
    """Whether what an engine gives beside the model's output has little to do with the image: at most a quarter of the
    difference's energy is an offset or a factor of a colour, as those that a wrong file has.
    """
    for patch in map(_patch, sizes(exported.contract.tile)):
        expected, found = (run(patch).cpu().double().flatten(2) for run in (model, exported))
        difference, centred = found - expected, expected - expected.mean(2, keepdim=True)
        offset = difference.mean(2, keepdim=True)
        slope = (difference * centred).sum(2, keepdim=True) / centred.square().sum(2, keepdim=True).clamp(min=1e-12)
        line = offset + slope * centred
        if float(line.square().sum()) > _LINE * float(difference.square().sum()):
            return False
    return True


def psnr_on_patch(model: Model, exported: Exported) -> float:
    """PSNR in dB between a file's output and a model's on the test patches, images in [0, 1]; infinite if equal."""
    return psnr_between(model, exported, exported.contract.tile)


def psnr_between(
    one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], size: tuple[int, int] | None
) -> float:
    """PSNR in dB between two outputs on a test patch of a size, or the worst of two sizes, clamped to [0, 1]; infinite
    if equal, else finite or not a number.
    """
    found: list[float] = []
    for patch in map(_patch, sizes(size)):
        first, second = (run(patch).cpu().clamp(0, 1).double() for run in (one, other))
        error = float((first - second).square().mean())
        found.append(-10 * math.log10(error) if error else math.inf)
    return math.nan if any(math.isnan(psnr) for psnr in found) else min(found)


def sizes(tile: tuple[int, int] | None) -> tuple[tuple[int, int], ...]:
    """Heights and widths of the test patches of a file of a size, or of any."""
    return _PATCHES if tile is None else (tile,)


def _patch(size: tuple[int, int]) -> Tensor:
    return test_patch(*size)


def test_patch(height: int, width: int) -> Tensor:
    """A piece of the embedded photograph, ``1 3 h w`` in [0, 1], mirrored where it ends."""
    picture = read_picture(LOW_RESOLUTION)
    image = planes(picture.pixels)[None, :3].float() / picture.layout.peak
    return pad_to_size(image[..., :height, :width], height, width)
