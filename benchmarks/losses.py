"""What a quantized network loses against the float one: on Set5, and on drawn pages that no calibration saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srquant import Model
from srquant.images.bicubic import shrink_8bit
from srquant.images.drawings import drawing
from srquant.images.enlarging import Upscaler
from srquant.images.evaluation import enlarge, score
from srquant.images.finding import find_pairs
from srquant.images.tiling import Tiling
from srquant.support.tensors import planes

Pictures = list[NDArray[np.uint8]]
Pairs = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
_FIRST_PAGE, _PAGES, _PAGE = 9000, 8, 256


@dataclass(frozen=True)
class Losses:
    """In dB. Losses are of PSNR on Y (border of the scale cut) to the original: mean and worst picture."""

    photographs: tuple[float, float]
    drawings: tuple[float, float]
    agreement: tuple[float, float]
    """With the float network's pictures, of photographs and of drawings: means."""
    worst_agreement: float

    def cells(self) -> tuple[str, ...]:
        """Of a table, under :data:`TITLES`."""
        pairs = (f"{mean:.3f} ({worst:.3f})" for mean, worst in (self.photographs, self.drawings))
        return (*pairs, "{:.1f}; {:.1f}".format(*self.agreement), f"{self.worst_agreement:.1f}")


TITLES = ("loss on Set5", "on drawn pages", "agreement", "worst")


class Judge:
    """A float network's pictures of DATA/Set5 and of drawn pages, and what others lose against them.

    Args:
        network: Float.
        data: The folder that holds Set5.
        tiling: How pictures are cut; None enlarges each at once.
    """

    def __init__(self, network: Model, data: Path, tiling: Tiling | None = None) -> None:
        self.scale, self.tiling = network.scale, tiling
        photographs = [pair.read() for pair in find_pairs(data / f"Set5/x{self.scale}", self.scale)[0]]
        self.sets: dict[str, Pairs] = {"photographs": photographs, "drawings": pages(self.scale)}
        self.float_pictures = self.pictures(network)

    def pictures(self, upscaler: Upscaler) -> dict[str, Pictures]:
        return {
            kind: [enlarge(upscaler, low, self.scale, self.tiling) for low, _ in pairs]
            for kind, pairs in self.sets.items()
        }

    def losses(self, upscaler: Upscaler) -> Losses:
        """Of what a method made of the network."""
        made = self.pictures(upscaler)
        lost, alike = {}, {}
        for kind, pairs in self.sets.items():
            both = list(zip(self.float_pictures[kind], made[kind], strict=True))
            alike[kind] = [agreement(*pair) for pair in both]
            lost[kind] = [
                score(before, high, self.scale).psnr - score(after, high, self.scale).psnr
                for (before, after), (_, high) in zip(both, pairs, strict=True)
            ]
        mean_and_worst = {kind: (float(np.mean(loss)), max(loss)) for kind, loss in lost.items()}
        means = float(np.mean(alike["photographs"])), float(np.mean(alike["drawings"]))
        worst = min(map(min, alike.values()))
        return Losses(mean_and_worst["photographs"], mean_and_worst["drawings"], means, worst)


def pages(scale: int) -> Pairs:
    """Drawn pages and what is left of them as LR images."""
    high = [planes(drawing(_FIRST_PAGE + number, _PAGE)).contiguous() for number in range(_PAGES)]
    return [(shrink_8bit(page, scale).permute(1, 2, 0).numpy(), page.permute(1, 2, 0).numpy()) for page in high]


def agreement(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """PSNR of one picture with the other, all channels, in dB."""
    error = float(((one.astype(np.float64) - other) ** 2).mean())
    return float(10 * np.log10(255**2 / max(error, 1e-3)))
