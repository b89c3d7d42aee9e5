"""``srquant bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from srquant.cli.options import Device, Scale, ValueRange
from srquant.cli.speed import speed

bench = typer.Typer(
    no_args_is_help=True, help="Compare methods: networks × methods × bits, on one machine or many; tables of papers."
)

FAILED = 1
"""Exit code where some cells failed."""


@bench.command()
def run(
    networks: Annotated[
        list[Path], typer.Argument(metavar="NETWORK...", help="Float weights in any published layout; several.")
    ],
    data: Annotated[
        list[Path],
        typer.Option(help="Pairs or HR images as evaluate takes them (see evaluate --help), or a parent; several."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of runs: records, models, states.")],
    method: Annotated[
        list[str] | None,
        typer.Option(help="Name, and fields after a colon: plq:quantile=0.995,reallocate=false; several."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="Instead of methods, a paper's table: oaptq-table1 … (srquant bench suites)."),
    ] = None,
    bits: Annotated[
        list[str] | None,
        typer.Option(help="4, or 8/6 for weights/activations; several. 4 if neither given nor said by the method."),
    ] = None,
    edges: Annotated[
        Literal["8bit", "float", "none"] | None,
        typer.Option(help="First, upsampler and last convolutions: at 8 bits, left float, or like all others."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other field, for every method that has it: finetuning.precision=bf16 …; or what weights do not "
            "tell: network.value_range=1 …",
        ),
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="Folder of LR images (with all folders in it).")] = None,
    calibration_hr: Annotated[
        Path | None,
        typer.Option(
            help="Folder of photographs from which LR images are made by MATLAB's bicubic; methods that learn with "
            "ground truth learn from them."
        ),
    ] = None,
    patches: Annotated[
        int | None, typer.Option(help="Calibration patches; 100, or what the suite says, if not given.")
    ] = None,
    patch_size: Annotated[int | None, typer.Option(help="Their height and width; see quantize --help.")] = None,
    seed: Annotated[int, typer.Option(help="Decides which calibration patches are drawn.")] = 0,
    score: Annotated[
        list[str] | None,
        typer.Option(help="Further scores, lower is better: lpips, dists (extra perceptual); several."),
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Score in tiles of this size instead of at once.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Of tiles, in pixels.")] = None,
    workers: Annotated[int, typer.Option(help="Cells computed at the same time.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Of each cell; all cores shared among the workers if not given.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|local",
            help="Compute on a Ray cluster (auto, host:6379, ray://host:10001), or on one started here with as many "
            "cells at a time as --workers says; needs the extra cluster.",
        ),
    ] = None,
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Keep the quantized models, in models/.")] = False,
    sensitivities: Annotated[
        bool, typer.Option("--sensitivities", help="Score each layer quantized alone too, on the first data set.")
    ] = False,
    value_range: ValueRange = None,
    device: Device = "auto",
) -> None:
    """Quantize networks by methods at some bits, and score them all: one record a cell.

    A cell that is there is not computed again; killed, the bench goes on where it stopped when the same command is
    given again. A cell that fails says why and stops no other (exit code 1).

    Examples:
    [bold]srquant bench run edsr_x4.pth --method minmax --method plq --bits 4 --bits 8/6 --data Set5/x4
    --calibration-hr photos/ -o runs/[/bold]

    [bold]srquant bench run edsr_x4.pth swinir_x2.pth --method mse --method srquant:effort=quick --data benchmarks/
    --calibration-hr photos/ --workers 2 --keep-models -o runs/[/bold]

    [bold]srquant bench run edsr_x4.pth rdn_x4.pth --suite oaptq-table1 --data benchmarks/ --calibration-hr DIV2K/
    -o runs/[/bold]

    [bold]srquant bench run *.pth --method oaptq --method srquant --data benchmarks/ --calibration-hr photos/
    --ray auto --threads 4 -o runs/[/bold]
    """
    from srquant import load
    from srquant.bench import run as compute
    from srquant.bench import show as text_of
    from srquant.cli.options import split_settings

    of_networks, of_methods = split_settings(set_)
    runs = compute(
        [load(path, value_range=value_range, settings=of_networks) for path in networks],
        method or (),
        suite=suite,
        data=data,
        output=output,
        bits=bits or (),
        edges=edges,
        settings=of_methods,
        calibration=calibration,
        calibration_hr=calibration_hr,
        patches=patches,
        patch_size=patch_size,
        seed=seed,
        scores=score or (),
        tile=tile,
        overlap=overlap,
        workers=workers,
        threads=threads,
        ray=ray,
        device=device,
        keep_models=keep_models,
        sensitivities=sensitivities,
    )
    print(text_of(runs, suite=suite))
    if runs.failed:
        raise typer.Exit(FAILED)


@bench.command()
def show(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder that bench run has written.")],
    format: Annotated[Literal["markdown", "latex", "csv"], typer.Option(help="Of the text.")] = "markdown",
    suite: Annotated[
        str | None, typer.Option(help="Only what belongs to this table of a paper, beside all that it prints.")
    ] = None,
    ssim: Annotated[
        Literal["basicsr", "adabm"] | None, typer.Option(help="Its dialect; BasicSR's or the suite's if not given.")
    ] = None,
    published: Annotated[
        Literal["same", "all", "none"],
        typer.Option(help="Published rows: of the same methods, of all known for the network, or none."),
    ] = "same",
) -> None:
    """Print the records as tables: losses, the best and second best, published scores with their sources.

    Examples:
    [bold]srquant bench show runs/[/bold]

    [bold]srquant bench show runs/ --format latex --ssim adabm[/bold]

    [bold]srquant bench show runs/ --suite oaptq-table1[/bold]
    """
    from srquant.bench import show as text_of
    from srquant.bench.suites import Dialect

    dialects: dict[str | None, Dialect | None] = {None: None, "basicsr": "ssim", "adabm": "ssim_adabm"}
    print(text_of(runs, format, suite=suite, dialect=dialects[ssim], published=published))


bench.command("speed")(speed)


@bench.command()
def suites() -> None:
    """The tables of papers that run knows: networks, methods, bits, data and protocol of each.

    Example:
    [bold]srquant bench suites[/bold]
    """
    from srquant.bench.suites import SUITES

    print("\n\n".join(suite.describe() for suite in SUITES.values()))


@bench.command("large-pictures")
def large_pictures(
    pictures: Annotated[Path, typer.Argument(metavar="DIV8K", help="Folder of DIV8K's pictures, 1201.png and so on.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where Test2K/HR and Test4K/HR are made.")],
) -> None:
    """Make Test2K and Test4K, on which OAPTQ's table 2 scores, of pictures of 8K.

    Pictures 1201 to 1300 are shrunk by 4, 1301 to 1400 by 2, with MATLAB's bicubic. It goes on after an interruption.

    Example:
    [bold]srquant bench large-pictures DIV8K/ -o data/[/bold]
    """
    from srquant.bench.large_pictures import make_large_sets

    for name, count in make_large_sets(pictures, output).items():
        print(f"{output / name}: {count} HR images")


@bench.command()
def published(
    network: Annotated[str, typer.Argument(help="EDSR-baseline, RDN, SRResNet or SwinIR-light.")],
    scale: Scale = 4,
    bits: Annotated[int | None, typer.Option(help="Of activations; all that are known if left out.")] = None,
) -> None:
    """What papers print for a network, by method and bits, with their sources.

    Example:
    [bold]srquant bench published SwinIR-light --scale 2 --bits 3[/bold]
    """
    from srquant.analysis.published import published as known
    from srquant.analysis.published import published_markdown

    print(published_markdown(known(network, scale, bits)))
