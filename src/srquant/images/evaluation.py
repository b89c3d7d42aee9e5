"""Scores of a model on benchmark pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

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

if TYPE_CHECKING:
    from srquant.images.perceptual import Score


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image: PSNR in dB, SSIM in both dialects (see :mod:`srquant.images.metrics`), and further ones.

    Args:
        name: File name of the HR image.
        psnr: In dB.
        ssim: BasicSR's dialect.
        ssim_adabm: AdaBM's dialect.
        further: Those that were asked for, by name (see :mod:`srquant.images.perceptual`).
    """

    name: str
    psnr: float
    ssim: float
    ssim_adabm: float
    further: Mapping[str, float] = field(default_factory=dict[str, float])

    def named(self) -> dict[str, float]:
        """All scores by name: ``psnr``, ``ssim``, ``ssim_adabm``, and the further ones."""
        return {"psnr": self.psnr, "ssim": self.ssim, "ssim_adabm": self.ssim_adabm, **self.further}


@dataclass(frozen=True)
class Scores:
    """Scores of a data set: those of its images and their means; and whether its LR images were made from HR.

    ``image_bits`` are the mean bits of the activations that each image was computed with, where they follow the image.
    """

    name: str
    images: tuple[ImageScores, ...]
    low_is_made: bool = False
    image_bits: tuple[float, ...] = ()

    def __repr__(self) -> str:
        if not self.images:
            return f"Scores({self.name}: no images)"
        means = f"PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.4f}, SSIM (AdaBM) {self.ssim_adabm:.4f}"
        means += "".join(f", {name} {value:.4f}" for name, value in self.further.items())
        means += "" if self.fab is None else f", FAB {self.fab:.2f}"
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

    @property
    def further(self) -> dict[str, float]:
        """Means of the further scores, by name."""
        names = self.images[0].further if self.images else ()
        return {name: fmean(image.further[name] for image in self.images) for name in names}

    @property
    def fab(self) -> float | None:
        """Feature average bits: the mean of ``image_bits``; None where bits do not follow the image."""
        return fmean(self.image_bits) if self.image_bits else None

    def to_json(self) -> dict[str, Any]:
        """Means, images and where LR is from; infinite PSNR as the text "inf", which JSON numbers cannot hold. Where
        bits follow the image, ``fab`` and each image's ``bits`` too.
        """
        images = {image.name: _row(image) for image in self.images}
        for image, bits in zip(self.images, self.image_bits, strict=False):
            images[image.name]["bits"] = bits
        means = _row(self) | ({} if self.fab is None else {"fab": self.fab})
        return {**means, "lr": "made by bicubic" if self.low_is_made else "given", "images": images}


def evaluate(
    upscaler: Upscaler,
    folders: Iterable[PairFolder],
    scale: int,
    tiling: Tiling | None = None,
    further: Mapping[str, Score] | None = None,
) -> list[Scores]:
    """Score an upscaler: output clamped and rounded to 8 bits, a border of ``scale`` pixels cropped, luma, no ensemble.

    Args:
        upscaler: What to score. If it has a ``feature_bits``, as models have, that is asked for the bits of what it is
            given, which are noted.
        folders: Benchmark sets, from :func:`srquant.images.find_pairs`.
        scale: How many times larger the output is.
        tiling: Enlarge in tiles; None gives the whole image at once, as the literature does.
        further: Scores beside PSNR and SSIM, as :func:`srquant.images.perceptual.further_scores` opens them.

    Raises:
        MemoryLimitError: An image is too large to be enlarged at once.
    """
    folders = list(folders)
    results: list[Scores] = []
    noting = _Noting(upscaler)
    with bar("Evaluating", sum(len(folder) for folder in folders)) as shown:
        for folder in folders:
            images: list[ImageScores] = []
            bits: list[float] = []
            for pair in folder:
                low, high = pair.read()
                with memory_errors(f"{pair.name} is too large to be enlarged at once; give a smaller tile (tile=192)"):
                    output = enlarge(noting, low, scale, tiling)
                    image = score(output, high, scale, pair.name)
                image = replace(image, further={name: of(output, high) for name, of in (further or {}).items()})
                images.append(image)
                bits += noting.taken()
                shown.advance(1, f"{folder.name} {image.psnr:.2f} dB")
            results.append(Scores(folder.name, tuple(images), folder.low_is_made, tuple(bits)))
    return results


class _Noting:
    """An upscaler, and the bits of what it was given since the last look."""

    def __init__(self, upscaler: Upscaler) -> None:
        self._upscaler = upscaler
        self._bits: Callable[[Tensor], Tensor | None] = getattr(upscaler, "feature_bits", lambda _: None)
        self._sum = self._pixels = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        bits = self._bits(images)
        if bits is not None:
            pixels = images[0, 0].numel()
            self._sum += float(bits.sum()) * pixels
            self._pixels += len(images) * pixels
        return self._upscaler(images)

    def taken(self) -> list[float]:
        """The mean, a pixel of each tile counting alike; nothing where bits do not follow the image."""
        mean = [self._sum / self._pixels] if self._pixels else []
        self._sum = self._pixels = 0.0
        return mean


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
    """Write scores as JSON, all or nothing: ``{"model": …, "data": {set: {psnr, ssim, ssim_adabm, lr, images: {…}}}}``;
    see :meth:`Scores.to_json`. Further scores stand beside SSIM, by name.

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
        **scores.further,
    }
