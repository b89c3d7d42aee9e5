"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A float network in any published layout, or a file srquant made.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")]
ValueRange = Annotated[
    float | None,
    typer.Option(help="Largest value of images in the float network, 1 or 255, where its weights do not tell."),
]
