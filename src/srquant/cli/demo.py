"""``srquant demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the models, the page and the picture.")
    ] = Path("srquant-demo"),
) -> None:
    """Show the main job on an embedded network and images: quantize to 4 bits, score, save, reopen, compare on a page.

    Example:
    [bold]srquant demo[/bold]
    """
    from srquant.cli.demonstration import run_demo
    from srquant.cli.tables import print_demo

    print_demo(run_demo(output))
    print(f"open {output / 'comparison.html'} in a browser: scores, and the pictures under a slider")
    print(f"see {output / 'comparison.png'}; the models beside it work with srquant inspect, evaluate and upscale")
