"""``srquant quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srquant.cli.options import (
    Bits,
    Device,
    EdgeOption,
    Edges,
    HighFolder,
    LowFolder,
    Network,
    Patches,
    PatchSize,
    Seed,
    ValueRange,
    WeightBits,
    open_calibration,
)


def quantize(
    network: Network,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write, a .safetensors file.")],
    method: Annotated[
        str, typer.Option(help="minmax, percentile, mse, plq, dobi; oaptq, 2dquant, srquant (these learn).")
    ] = "plq",
    bits: Bits = 4,
    weight_bits: WeightBits = None,
    edges: EdgeOption = Edges.eight_bit,
    calibration: LowFolder = None,
    calibration_hr: HighFolder = None,
    patches: Patches = 100,
    patch_size: PatchSize = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Exception by name pattern: 'tail.*=8', 'body.3.*=4/6' (weights/activations), 'head.*=float'."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other field of the method: weights.per_channel=true …")
    ] = None,
    seed: Seed = 0,
    value_range: ValueRange = None,
    device: Device = "auto",
) -> None:
    """Quantize a float network with a hundred low-resolution images.

    Methods that learn go on where they stopped when the same command is given again after an interruption. Several
    processes: [bold]torchrun --nproc-per-node 2 -m srquant.cli quantize …[/bold]

    Examples:
    [bold]srquant quantize edsr_x4.pth --calibration-hr photos/ -o edsr_x4_w4a4.safetensors[/bold]

    [bold]srquant quantize edsr_x4.pth --method oaptq --calibration lr/ -o out.safetensors[/bold]

    [bold]srquant quantize swinir.pth --method mse --bits 8 --weight-bits 4 --calibration lr/ -o out.safetensors[/bold]

    [bold]srquant quantize edsr_x4.pth --calibration lr/ --layer 'body.0.*=8' -o out.safetensors[/bold]
    """
    from srquant import configure, load
    from srquant import quantize as run
    from srquant.cli.tables import print_coverage, print_file
    from srquant.support.errors import ArgumentError
    from srquant.support.files import require_apart, require_writable
    from srquant.support.processes import is_first

    configuration = configure(
        method, bits, weight_bits=weight_bits, edges=edges.value, layers=layer or (), settings=set_ or ()
    )
    if output.suffix != ".safetensors":
        raise ArgumentError(f"--output {output}: models are written as .safetensors files; give a name that ends so")
    state = output.with_suffix(".state")
    for path in (output, state):
        require_apart(path, network, calibration, calibration_hr)
    require_writable(output)
    model = load(network, value_range=value_range)
    images = open_calibration(calibration, calibration_hr, model.scale, count=patches, size=patch_size, seed=seed)
    first = is_first()
    if first:
        print(f"calibrating on {images.describe()}")
    quantized = run(model, images, configuration, state=state, device=device)
    if first:
        print_coverage(quantized)
        quantized.save(output)
        state.unlink(missing_ok=True)
        print_file(output, quantized)
