"""``srquant quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srquant.cli.options import (
    CalibrationOptions,
    NetworkAndMethodOptions,
    QuantizationOptions,
    grouped,
    require_output,
)


@grouped
def quantize(
    network: NetworkAndMethodOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write, a .safetensors file.")],
    common: QuantizationOptions,
    calibration: CalibrationOptions,
    method: Annotated[
        str | None,
        typer.Option(
            help="minmax, percentile, mse, plq, dobi; oaptq, 2dquant, srquant (these learn; srquant not at 8 bits); "
            "srquant methods shows all. If not given: srquant at 8 bits, plq below."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Exception by name pattern: 'tail.*=8', 'body.3.*=4/6' (weights/activations), 'head.*=float'."
        ),
    ] = None,
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
    from srquant import quantize as run
    from srquant.api import pick_device
    from srquant.cli.tables import print_coverage, print_file, print_losses
    from srquant.learning.state import state_of
    from srquant.methods.pipeline.estimate import estimate
    from srquant.methods.pipeline.unfinished import remove_state
    from srquant.support.processes import Processes

    first = Processes.here().first
    configuration = common.configure(method, network.method_settings, layer)
    require_output(output, "models", (".safetensors", ".safetensors.state"), network.network, *calibration.folders)
    state = state_of(output)
    model = network.load()
    images = calibration.open(model.scale)
    if first:
        print(f"calibrating on {images.describe()}")
        print(f"this will take {estimate(model.to(pick_device(network.device)), configuration, images)}", flush=True)
    quantized = run(model, images, configuration, state=state, device=network.device)
    if first:
        print_coverage(quantized)
        print_losses(quantized)
        quantized.save(output)
        remove_state(state, configuration, model)
        print_file(output, quantized)
