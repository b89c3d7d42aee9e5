"""``srquant report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srquant.cli.options import Device, NetworkSettings, ValueRange, network_settings, require_output


def report(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder that srquant bench run has written.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, .html.")],
    network: Annotated[
        list[Path] | None, typer.Option(help="Float network of the bench, shown beside what was made of it; several.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="What was scored on, for pictures by the models that --keep-models kept; several."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(help="File name of a picture to show; several. Those on which methods differ most if not given."),
    ] = None,
    suite: Annotated[str | None, typer.Option(help="Only what belongs to this table of a paper.")] = None,
    value_range: ValueRange = None,
    set_: NetworkSettings = None,
    device: Device = "auto",
) -> None:
    """Write one page about a bench: scores, quality against cost, pictures under a slider, layers, curves, provenance.

    The page needs no network: it can be sent and kept.

    Examples:
    [bold]srquant report runs/ -o report.html[/bold]

    [bold]srquant report runs/ --network edsr_x4.pth --data Set5/x4 --image butterfly.png -o report.html[/bold]
    """
    from srquant import load
    from srquant.pages import report as run

    folders = data or []
    require_output(output, "pages", (".html",), *(network or []))
    require_output(output, "pages", (".html",), *folders, below=True)
    settings = network_settings(set_)
    opened = [load(path, value_range=value_range, settings=settings) for path in network or []]
    run(runs, output, networks=opened, data=folders, images=image or [], suite=suite, device=device)
    print(f"wrote {output}, {output.stat().st_size / 1e6:.1f} MB; open it in a browser")
