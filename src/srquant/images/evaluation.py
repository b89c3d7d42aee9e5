"""Scores of a model on benchmark pairs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srquant.images.enlarging import Upscaler, enlarge_bands
from srquant.images.metrics import psnr, ssim, ssim_adabm
from srquant.images.pairs import PairFolder
from srquant.images.picture import Layout, Picture
from srquant.images.tiling import SMALLEST_TILE, Tiling
from srquant.support.errors import ArgumentError
from srquant.support.files import replacing
from srquant.support.memory import memory_errors
from srquant.support.progress import bar
from srquant.support.wording import counted


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image: PSNR in dB and SSIM in both dialects (see :mod:`srquant.images.metrics`)."""

    name: str
    psnr: float
    ssim: float
    ssim_adabm: float


@dataclass(frozen=True)
class Scores:
    """Scores of a data set: those of its images and their means; and whether its LR images were made from HR."""

    name: str
    images: tuple[ImageScores, ...]
    low_is_made: bool = False

    def __repr__(self) -> str:
        if not self.images:
            return f"Scores({self.name}: no images)"
        means = f"PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.4f}, SSIM (AdaBM) {self.ssim_adabm:.4f}"
        return f"Scores({self.name}: {means}; {counted(len(self.images), 'image')})"

    @property
    def psnr(self) -> float:
        """Mean PSNR in dB."""
        return fmean(image.psnr for image in self.images)

    @property
    def ssim(self) -> float:
        """Mean SSIM, BasicSR's dialect."""
        return fmean(image.ssim for image in self.images)

    @property
    def ssim_adabm(self) -> float:
        """Mean SSIM, AdaBM's dialect."""
        return fmean(image.ssim_adabm for image in self.images)

    def to_json(self) -> dict[str, Any]:
        """Means, images and where LR is from; infinite PSNR as the text "inf", which JSON numbers cannot hold."""
        images = {image.name: _row(image) for image in self.images}
        return {**_row(self), "lr": "made by bicubic" if self.low_is_made else "given", "images": images}


def evaluate(
    upscaler: Upscaler, folders: Iterable[PairFolder], scale: int, tiling: Tiling | None = None
) -> list[Scores]:
    """Score an upscaler: output clamped and rounded to 8 bits, a border of ``scale`` pixels cropped, luma, no ensemble.

    Args:
        upscaler: What to score.
        folders: Benchmark sets, from :func:`srquant.images.find_pairs`.
        scale: How many times larger the output is.
        tiling: Enlarge in tiles; None gives the whole image at once, as the literature does.

    Raises:
        MemoryLimitError: An image is too large to be enlarged at once.
    """
    folders = list(folders)
    results: list[Scores] = []
    with bar("Evaluating", sum(len(folder) for folder in folders)) as shown:
        for folder in folders:
            images: list[ImageScores] = []
            for pair in folder:
                low, high = pair.read()
                with memory_errors(f"{pair.name} is too large to be enlarged at once; give a smaller tile (tile=192)"):
                    image = score(enlarge(upscaler, low, scale, tiling), high, scale, pair.name)
                images.append(image)
                shown.advance(1, f"{folder.name} {image.psnr:.2f} dB")
            results.append(Scores(folder.name, tuple(images), folder.low_is_made))
    return results


def enlarge(upscaler: Upscaler, low: NDArray[np.uint8], scale: int, tiling: Tiling | None = None) -> NDArray[np.uint8]:
    """An 8-bit RGB image, ``h w 3``, enlarged, clamped and rounded."""
    whole = Tiling(max(SMALLEST_TILE, *low.shape[:2]), 0)
    bands = enlarge_bands(upscaler, Picture(low, Layout()), Layout(), scale, tiling or whole)
    return np.concatenate([*bands]).astype(np.uint8, copy=False)


def luma_psnr(upscaler: Upscaler, low: NDArray[np.uint8], high: NDArray[np.uint8], scale: int) -> float:
    """PSNR in dB of an enlarged image against the HR image, on luma, a border of ``scale`` pixels cropped."""
    inside = slice(scale, -scale)
    return psnr(enlarge(upscaler, low, scale)[inside, inside], high[inside, inside])


def score(output: NDArray[np.uint8], reference: NDArray[np.uint8], border: int, name: str = "") -> ImageScores:
    """All scores of an 8-bit RGB image against its reference, a border cropped.

    Raises:
        ArgumentError: The sizes differ, or nothing is left inside the border.
    """
    if output.shape != reference.shape:
        raise ArgumentError(
            f"the output is {output.shape[1]}x{output.shape[0]}, the HR image "
            f"{reference.shape[1]}x{reference.shape[0]}: is this the right scale?"
        )
    inside = slice(border, -border or None)
    x, y = output[inside, inside], reference[inside, inside]
    if min(x.shape[:2]) < 11:
        raise ArgumentError(
            f"{name or 'the image'} is {reference.shape[1]}x{reference.shape[0]}; inside a border of "
            f"{border} pixels at least 11x11 are needed to score"
        )
    return ImageScores(name, psnr(x, y), ssim(x, y), ssim_adabm(x, y))


def write_scores(path: Path, model: str, scores: Iterable[Scores]) -> None:
    """Write scores as JSON, all or nothing: ``{"model": …, "data": {set: {psnr, ssim, ssim_adabm, lr, images: {…}}}}``.

    Raises:
        OutputError: The file cannot be written.
    """
    content = {"model": model, "data": {row.name: row.to_json() for row in scores}}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _row(scores: Scores | ImageScores) -> dict[str, Any]:
    return {
        "psnr": scores.psnr if np.isfinite(scores.psnr) else "inf",
        "ssim": scores.ssim,
        "ssim_adabm": scores.ssim_adabm,
    }
