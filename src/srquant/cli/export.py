"""``srquant export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from srquant.cli.options import ExportOptions, NetworkSettings, ValueRange, grouped, network_settings


@grouped
def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A quantized model, made with --set grid=int8; or a float network.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write, an .onnx file.")],
    options: ExportOptions,
    precision: Annotated[
        Literal["float32", "float16"],
        typer.Option(help="In which a float network is stored; images are float32 all the same."),
    ] = "float32",
    value_range: ValueRange = None,
    set_: NetworkSettings = None,
    reduced_range: Annotated[bool, typer.Option("--reduced-range", hidden=True)] = False,
) -> None:
    """Write a model as an ONNX file and check it in an engine: a quantized one in 8-bit integers, a float one in
    floats.

    The file explains itself: its description and its keys say scale, colours, sizes and overlaps.

    Examples:
    [bold]srquant quantize edsr_x4.pth --calibration lr/ --bits 8 --set grid=int8 -o edsr_w8a8.safetensors[/bold]
    [bold]srquant export edsr_w8a8.safetensors -o edsr_w8a8.onnx[/bold]

    [bold]srquant export swinir_w8a8.safetensors -o swinir_w8a8.onnx --tile 128x128 --for avx2[/bold]

    [bold]srquant export edsr_x4.pth -o edsr_fp16.onnx --precision float16[/bold]
    """
    from dataclasses import replace

    from srquant import load
    from srquant.support.errors import ArgumentError
    from srquant.support.files import require_apart

    if reduced_range and options.range_ == "full":
        raise ArgumentError("--reduced-range is the former name of --range reduced; leave it out, or --range full")
    if reduced_range:
        options = replace(options, range_="reduced")
    _ = options.size  # refused before anything is read
    require_apart(output, model)
    opened = load(model, value_range=value_range, settings=network_settings(set_))
    options.write(opened, output, precision=precision)
