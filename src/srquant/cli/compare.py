"""``srquant compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srquant.cli.options import (
    Device,
    EngineOption,
    NetworkSettings,
    ValueRange,
    grouped,
    network_settings,
    require_output,
)


@grouped
def compare(
    model: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="Float networks or their names, files srquant made, exported files."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, .html.")],
    image: Annotated[
        list[Path] | None, typer.Option(help="HR picture, from which LR is made by MATLAB's bicubic; several.")
    ] = None,
    low: Annotated[
        list[Path] | None, typer.Option(help="Picture to enlarge as it is, without HR to score against; several.")
    ] = None,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Measure what each layer loses alone and how its input is distributed; slow."),
    ] = False,
    tile: Annotated[int | None, typer.Option(help="Enlarge in tiles of this size instead of at once.")] = None,
    value_range: ValueRange = None,
    set_: NetworkSettings = None,
    device: Device = "auto",
    engine: EngineOption = None,
) -> None:
    """Write one page that compares models: scores, pictures under a slider, layers, where all is from.

    Give the float network too, and losses are against it. The page needs no network: it can be sent and kept.

    Examples:
    [bold]srquant compare minmax.safetensors plq.safetensors edsr_x4.pth --image butterfly.png -o page.html[/bold]

    [bold]srquant compare a.safetensors edsr_x4.pth --low phone.jpg --layers -o page.html[/bold]
    """
    from srquant import load, open_exported
    from srquant.fetching import resolve
    from srquant.model.storage import is_model_file
    from srquant.pages import compare as run
    from srquant.pages.contenders import with_titles

    pictures, lows = image or [], low or []
    require_output(output, "pages", (".html",), *model, *pictures, *lows)
    settings = network_settings(set_)
    titled = {title: resolve(path, "network") for title, path in with_titles(model).items()}
    opened = {
        title: open_exported(path, engine)
        if path.suffix == ".onnx"
        else load(path)
        if is_model_file(path)
        else load(path, value_range=value_range, settings=settings)
        for title, path in titled.items()
    }
    run(opened, pictures, output, low_images=lows, layers=layers, tile=tile, device=device, files=titled)
    print(f"wrote {output}, {output.stat().st_size / 1e6:.1f} MB; open it in a browser")
