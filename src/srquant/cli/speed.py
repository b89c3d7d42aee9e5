"""``srquant bench speed``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srquant.cli.options import EngineOption, Threads

if TYPE_CHECKING:
    from srquant.engines.exported import Exported
    from srquant.model import Model


def speed(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Exported files, models, float networks; others are compared with the first."
        ),
    ],
    size: Annotated[str, typer.Option(help="Width and height of the LR image.")] = "160x90",
    rounds: Annotated[int, typer.Option(help="How often each runs.")] = 7,
    engine: EngineOption = None,
    threads: Threads = None,
) -> None:
    """Time files on this machine, in turns: milliseconds, megapixels per second, how many times as fast as the first.

    Exported files run in an engine, float networks too (in float32, written to a file that is removed); quantized
    models that are no exported files run in PyTorch, which simulates their bits.

    Examples:
    [bold]srquant bench speed edsr_x4.pth edsr_w8a8.onnx[/bold]

    [bold]srquant bench speed edsr_x4.pth edsr_w8a8.onnx --size 320x180 --threads 1 --engine onnxruntime[/bold]
    """
    from tempfile import TemporaryDirectory

    from srquant.analysis.speed import measure_speed
    from srquant.bench.provenance import processor
    from srquant.cli.tables import print_speeds
    from srquant.support.errors import ArgumentError

    width, _, height = size.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ArgumentError(f"--size {size} is not a width and height such as 160x90")
    with TemporaryDirectory() as folder:
        found = [_open(path, Path(folder), engine, threads) for path in files]
        names = [name for name, _ in found]
        if len(set(names)) < len(names):
            raise ArgumentError(f"{max(names, key=names.count)} is given twice; give each file once")
        print_speeds(measure_speed(dict(found), (int(height), int(width)), rounds), f"{size} pixels, {processor()}")


def _open(path: Path, folder: Path, engine: str | None, threads: int | None) -> tuple[str, Model | Exported]:
    """A name, and what enlarges images."""
    import torch

    from srquant import load, open_exported
    from srquant.engines.onnx import write_onnx
    from srquant.engines.operands import ExportSettings
    from srquant.support.settings import Threads as Number
    from srquant.support.settings import check

    check("threads", threads, Number | None)

    def exported(file: Path) -> tuple[str, Exported]:
        opened = open_exported(file, engine, threads)
        return f"{path} ({opened.engine}, {opened.contract.bits})", opened

    if path.suffix == ".onnx":
        return exported(path)
    model = load(path)
    if model.record is None:
        write_onnx(model, folder / "float.onnx", ExportSettings())
        return exported(folder / "float.onnx")
    if threads is not None:
        torch.set_num_threads(threads)
    return f"{path} (PyTorch, simulated)", model
