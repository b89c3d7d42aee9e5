"""``srquant export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from srquant.cli.options import EngineOption, Threads


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A quantized model, made with --set grid=int8.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write, an .onnx file.")],
    engine: EngineOption = None,
    tile: Annotated[
        str, typer.Option(help="Height and width of the images it takes, as 64x64; dynamic for any.")
    ] = "dynamic",
    storage: Annotated[
        Literal["int8", "int4"],
        typer.Option(help="int4 halves the file of a model of up to 4 bits; it runs as int8 all the same."),
    ] = "int8",
    range_: Annotated[
        Literal["auto", "full", "reduced"],
        typer.Option(
            "--range",
            help="Of the weights. full: for processors with VNNI or AMX, on others 8-bit products saturate; reduced: "
            "coarser weights, for any processor; auto: what is right on this one.",
        ),
    ] = "auto",
    reduced_range: Annotated[bool, typer.Option("--reduced-range", hidden=True)] = False,
    threads: Threads = None,
) -> None:
    """Write a quantized model as an ONNX file that engines run in 8-bit integers, and check it against the model.

    Examples:
    [bold]srquant quantize edsr_x4.pth --calibration lr/ --bits 8 --set grid=int8 -o edsr_w8a8.safetensors[/bold]
    [bold]srquant export edsr_w8a8.safetensors -o edsr_w8a8.onnx[/bold]

    [bold]srquant export swinir_w8a8.safetensors -o swinir_w8a8.onnx --tile 128x128[/bold]
    """
    from srquant import export as run
    from srquant import load
    from srquant.support.errors import ArgumentError
    from srquant.support.files import require_apart

    if reduced_range and range_ == "full":
        raise ArgumentError("--reduced-range is the former name of --range reduced; leave it out, or --range full")
    size = parse_tile(tile)
    require_apart(output, model)
    agreement = run(
        load(model),
        output,
        engine=engine,
        tile=size,
        storage=storage,
        range="reduced" if reduced_range else range_,
        threads=threads,
    )
    print(f"{output}: {output.stat().st_size:,} bytes; {agreement}")


def parse_tile(text: str) -> tuple[int, int] | None:
    """Height and width of ``64x64``, None of ``dynamic``.

    Raises:
        ArgumentError: It is neither.
    """
    from srquant.support.errors import ArgumentError

    if text == "dynamic":
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ArgumentError(f"--tile {text} is neither a height and width such as 64x64, nor dynamic")
    return int(height), int(width)
