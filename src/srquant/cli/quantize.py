"""``srquant quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from srquant.cli.options import (
    DataOptions,
    ExportOptions,
    NetworkAndMethodOptions,
    QuantizationOptions,
    grouped,
    require_output,
)

if TYPE_CHECKING:
    from srquant.model import Model


@grouped
def quantize(
    network: NetworkAndMethodOptions,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Where to write: a .safetensors file; or an .onnx file, which engines run in 8-bit integers.",
        ),
    ],
    common: QuantizationOptions,
    data: DataOptions,
    export: ExportOptions,
    method: Annotated[
        str | None,
        typer.Option(
            help="minmax, percentile, mse, plq, dobi; ptq4sr, adabm, oaptq, 2dquant, srquant (these learn; srquant "
            "not at 8 bits); "
            "those that learn with ground truth take --data; "
            "srquant methods shows all. srquant if not given."
        ),
    ] = None,
    effort: Annotated[
        Literal["none", "quick", "standard", "thorough"] | None,
        typer.Option(
            help="How long srquant learns below 8 bits: 0, 200, 1,600 or 4,000 steps, fewer in large networks."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Steps of a method that learns with ground truth; as many as in its paper if not given."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Exception by name pattern: 'tail.*=8', 'body.3.*=4/6' (weights/activations), 'head.*=float'."
        ),
    ] = None,
) -> None:
    """Quantize a float network with a hundred low-resolution images; or, by methods that learn with ground truth, with
    photographs.

    Where --output ends in .onnx, the grid is int8, what cannot be exported is said before anything starts, and the file
    is checked in an engine.

    Methods that learn go on where they stopped when the same command is given again after an interruption. Several
    processes: [bold]torchrun --nproc-per-node 2 -m srquant.cli quantize …[/bold]

    Examples:
    [bold]srquant quantize edsr_x4.pth --calibration-hr photos/ -o edsr_x4_w4a4.safetensors[/bold]

    [bold]srquant quantize edsr-baseline-x4 --calibration-hr div2k-valid-hr -o edsr_x4_w4a4.safetensors[/bold]

    [bold]srquant quantize edsr_x4.pth --calibration lr/ --bits 8 -o edsr_x4_w8a8.safetensors[/bold]

    [bold]srquant quantize edsr_x4.pth --calibration lr/ --bits 8 -o edsr_x4_w8a8.onnx[/bold]

    [bold]srquant quantize edsr_x4.pth --calibration lr/ --bits 2 --effort thorough -o out.safetensors[/bold]

    [bold]srquant quantize edsr_x4.pth --method oaptq --calibration lr/ -o out.safetensors[/bold]

    [bold]srquant quantize edsr_x4.pth --method pams --data photos/ --steps 30000 -o out.safetensors[/bold]

    [bold]srquant quantize swinir.pth --method mse --bits 8 --weight-bits 4 --calibration lr/ -o out.safetensors[/bold]

    [bold]srquant quantize edsr_x4.pth --calibration lr/ --layer 'body.0.*=8' -o out.safetensors[/bold]
    """
    from srquant import quantize as run
    from srquant.api import pick_device
    from srquant.cli.tables import print_coverage, print_file, print_losses
    from srquant.engines.onnx import require_exportable
    from srquant.learning.state import state_of
    from srquant.methods.pipeline.estimate import estimate
    from srquant.methods.pipeline.unfinished import remove_state
    from srquant.support.errors import ArgumentError
    from srquant.support.processes import Processes

    first = Processes.here().first
    settings = [*network.method_settings, *([f"effort={effort}"] if effort else [])]
    if steps is not None:
        settings.append(f"training.steps={steps}")
    exported = output.suffix == ".onnx"
    if exported:
        settings = with_integers(settings)
    elif export != ExportOptions():
        raise ArgumentError(f"--output {output}: this is no exported file, which some options are for; name it .onnx")
    configuration = common.configure(method, settings, layer)
    suffix = ".onnx" if exported else ".safetensors"
    others = (".onnx.state", ".onnx.safetensors") if exported else (".safetensors.state",)
    require_output(output, "models", (suffix, *others), network.network, *data.folders)
    state = state_of(output)
    model = network.load()
    if exported and first:
        export.require_possible(output)
        require_exportable(model, export.size)
    given = data.open_for(configuration, model.scale)
    if first:
        print(f"{'calibrating on' if given.holds == 'patches' else 'learning from'} {given.describe()}")
        print(f"this will take {estimate(model.to(pick_device(network.device)), configuration, given)}", flush=True)
    quantized = run(model, given, configuration, state=state, device=network.device)
    if first:
        print_coverage(quantized)
        print_losses(quantized)
        if exported:
            write_exported(export, quantized, output)
        else:
            quantized.save(output)
            print_file(output, quantized)
        remove_state(state, configuration, model)


def with_integers(settings: list[str]) -> list[str]:
    """Assignments of ``--set`` with ``grid=int8``, which exported files need.

    Raises:
        ArgumentError: Another grid is asked for.
    """
    from srquant.support.errors import ArgumentError

    grids = [text.partition("=")[2].strip() for text in settings if text.partition("=")[0].strip() == "grid"]
    if any(grid != "int8" for grid in grids):
        raise ArgumentError(f"--set grid={grids[-1]}: exported files have integers of 8 bits; leave it out")
    return settings if grids else [*settings, "grid=int8"]


def write_exported(export: ExportOptions, quantized: Model, output: Path) -> None:
    """Write the exported file; where that fails, keep the model beside it, so that the work is not lost.

    Raises:
        ExportError: See :func:`srquant.export`.
    """
    from srquant.support.errors import ExportError, SrquantError

    try:
        export.write(quantized, output)
    except SrquantError as error:
        kept = quantized.save(output.with_name(f"{output.name}.safetensors"))
        raise ExportError(f"{error}; the quantized model is kept: {kept}") from error
