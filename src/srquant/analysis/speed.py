"""How fast models and exported files are on this machine, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from srquant.support.progress import bar
from srquant.support.settings import check

Rounds = Annotated[int, Field(ge=1, le=100_000)]
Side = Annotated[int, Field(ge=1, le=16_384)]


@dataclass(frozen=True)
class Speed:
    """How fast something enlarges an image.

    Args:
        name: Of the file or the model.
        seconds: Of each round; the first that is counted comes after one that is not.
        pixels: Of the LR image.
        times: How many times as fast as the first that was measured: the median over the rounds of the ratio in the
            same round, so that a machine which slows down hits both.
    """

    name: str
    seconds: tuple[float, ...]
    pixels: int
    times: float

    @property
    def milliseconds(self) -> float:
        """The median of the rounds."""
        return 1000 * statistics.median(self.seconds)

    @property
    def megapixels_per_second(self) -> float:
        """Pixels of the LR image, in millions."""
        return self.pixels / 1000 / self.milliseconds


def measure_speed(
    upscalers: Mapping[str, Callable[[Tensor], Tensor]], size: tuple[int, int] = (90, 160), rounds: int = 7
) -> list[Speed]:
    """Time what enlarges images, all in turns.

    Args:
        upscalers: By name, ``1 3 h w`` in [0, 1] to ``1 3 scale·h scale·w``: models and exported files. The first is
            what the others are compared with.
        size: Height and width of the LR image.
        rounds: How often each runs, besides once before.

    Raises:
        ArgumentError: A number breaks its rule.
    """
    check("rounds", rounds, Rounds)
    for side in size:
        check("size", side, Side)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {name: [] for name in upscalers}
    with bar("Timing", (rounds + 1) * len(upscalers)) as shown:
        for number in range(rounds + 1):
            for name, run in upscalers.items():
                start = time.perf_counter()
                run(image)
                if number:
                    seconds[name].append(time.perf_counter() - start)
                shown.advance(1, name)
    first = seconds[next(iter(seconds))] if seconds else []
    return [
        Speed(name, tuple(own), size[0] * size[1], statistics.median(a / b for a, b in zip(first, own, strict=True)))
        for name, own in seconds.items()
    ]
