"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srquant.engines.targets import TARGETS, target_named

if TYPE_CHECKING:
    from srquant.images import Calibration


class Edges(StrEnum):
    """The edge protocols, for the command line."""

    eight_bit = "8bit"
    float = "float"
    none = "none"


def _known_engine(name: str | None) -> str | None:
    return None if name is None else target_named(name).name


Network = Annotated[Path, typer.Argument(metavar="NETWORK", help="Float weights in any published layout.")]
Bits = Annotated[int, typer.Option(help="Of activations and weights, 2 to 8.")]
WeightBits = Annotated[int | None, typer.Option(help="Of weights, if not as --bits.")]
EdgeOption = Annotated[
    Edges, typer.Option(help="First, upsampler and last convolutions: at 8 bits, left float, or like all others.")
]
Patches = Annotated[int, typer.Option(help="Calibration patches, up to 100,000.")]
PatchSize = Annotated[
    int | None, typer.Option(help="Their height and width, 96 if not given; less where the smallest image is smaller.")
]
Seed = Annotated[int, typer.Option(help="Decides which calibration patches are drawn.")]
ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A float network in any published layout, or a file srquant made.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")]
ValueRange = Annotated[
    float | None,
    typer.Option(help="Largest value of images in the float network, 1 or 255, where its weights do not tell."),
]
LowFolder = Annotated[Path | None, typer.Option(help="Folder of LR images, like those the network will be given.")]
HighFolder = Annotated[
    Path | None, typer.Option(help="Folder of photographs from which LR images are made (MATLAB bicubic).")
]

EngineOption = Annotated[
    str | None,
    typer.Option(
        callback=_known_engine,
        metavar=f"<{'|'.join(TARGETS)}>",
        help="Runs .onnx files that srquant exported; the first that is installed.",
    ),
]
Threads = Annotated[int | None, typer.Option(help="How many to compute with; all cores if not given.")]


def open_calibration(
    low: Path | None, high: Path | None, scale: int, *, count: int, size: int | None = None, seed: int = 0
) -> Calibration:
    """Calibration patches of whichever folder was given.

    Raises:
        ArgumentError: Both were given, or none.
    """
    from srquant.images import Calibration
    from srquant.support.errors import ArgumentError

    if low is not None and high is None:
        return Calibration.from_low_resolution(low, count=count, size=size, seed=seed)
    if high is not None and low is None:
        return Calibration.from_photographs(high, scale, count=count, size=size, seed=seed)
    raise ArgumentError("give either --calibration (LR images) or --calibration-hr (photographs)")
