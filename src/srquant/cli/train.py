"""``srquant train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srquant.cli.options import Device, require_output

_USUAL_SCALE = 4


def train(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="EDSR, RDN, SRResNet, MSRResNet, SwinIR, or an added one.")
    ],
    data: Annotated[Path, typer.Option(help="Folder of photographs, with all folders in it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the weights, a .safetensors file.")],
    scale: Annotated[int | None, typer.Option(help="How many times larger the output is; 4 if not given.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser; 100,000 if not given.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other field: network.channels=32, training.batch=16, training.precision=bf16 …"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides the first weights and the crops; 0 if not given.")] = None,
    device: Device = "auto",
) -> None:
    """Train a float network from scratch on photographs: L1, Adam, cosine schedule, averaged weights.

    An interrupted run goes on when the same command is given again. Beside the weights it leaves the training curve as
    a picture and as JSON. Several processes:
    [bold]torchrun --nproc-per-node 2 -m srquant.cli train …[/bold]

    Examples:
    [bold]srquant train EDSR --data photos/ -o edsr_x4.safetensors[/bold]

    [bold]srquant train SwinIR --data photos/ --scale 2 --set network.channels=32 -o swinir_x2.safetensors[/bold]
    """
    from dataclasses import replace

    import torch

    from srquant.analysis.curves import write_curve
    from srquant.api import describe_device, pick_device
    from srquant.learning.photographs import Photographs
    from srquant.learning.settings import TrainingConfig
    from srquant.learning.state import state_of
    from srquant.learning.trainer import Recipe
    from srquant.learning.trainer import train as run
    from srquant.networks import all_networks, network_named
    from srquant.networks.opening import save_network
    from srquant.support.errors import ArgumentError
    from srquant.support.overriding import override

    kind = network_named(network.lower())
    unnamed = ("custom", "spandrel")
    if kind.name in unnamed:
        others = ", ".join(name for name in all_networks() if name not in unnamed)
        raise ArgumentError(f"{network} cannot be trained by name; choose one of {others}")
    options = {"network.scale": scale, "training.steps": steps, "training.seed": seed}
    recipe = override(
        Recipe(replace(kind.Config(), scale=_USUAL_SCALE), TrainingConfig()),
        set_ or (),
        {name: value for name, value in options.items() if value is not None},
    )
    require_output(output, "weights", (".safetensors", ".safetensors.state", ".png", ".json"), data, below=True)
    photographs = Photographs.of(data, recipe.network.scale, recipe.training.patch)
    torch.manual_seed(recipe.training.seed)
    computing = pick_device(device)
    trained = run(kind(recipe.network), photographs, recipe.training, state_of(output), computing)
    if trained.first:
        save_network(
            output, trained.network, {"srquant.recipe": recipe.to_json(), "srquant.device": describe_device(computing)}
        )
        write_curve(output, trained.curve)
        trained.state.remove()
        print(f"wrote {output}, its curve {output.with_suffix('.png').name} and {output.with_suffix('.json').name}")
