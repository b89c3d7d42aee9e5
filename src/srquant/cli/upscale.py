"""``srquant upscale``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from srquant.cli.options import ModelOptions, grouped


@grouped
def upscale(
    model: ModelOptions,
    input: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A picture, or a folder (with all folders in it, but not OUTPUT).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A picture, or a folder if INPUT is one.")],
    tile: Annotated[int, typer.Option(help="Computed at once, in LR pixels; smaller needs less memory.")] = 192,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave pictures alone that are there already.")
    ] = False,
    format: Annotated[
        Literal["same", "png", "webp", "jpeg", "tiff"],
        typer.Option(help="To write into a folder; a file's name says its own. PNG, WebP and TIFF hold transparency."),
    ] = "same",
) -> None:
    """Enlarge pictures: PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF and others; pages of a TIFF and frames of an animation.

    Gray, transparency, 16 bits, colour profiles and other metadata are kept. What the format written cannot hold, and
    what in a folder is passed over (other files, hidden ones, links to folders), is said by a warning. A picture that
    fails stops no other. What is made of GIF, AVIF and others that are only read is PNG.

    Examples:
    [bold]srquant upscale edsr_x4_w4a4.safetensors small.png -o large.png[/bold]

    [bold]srquant upscale edsr_x4_w4a4.safetensors album/ -o album_x4/ --skip-existing[/bold]

    [bold]srquant upscale edsr_x4_w4a4.safetensors icons/ -o icons_x4/ --format png[/bold]

    [bold]srquant upscale edsr_x4_w8a8.onnx album/ -o album_x4/ --engine openvino[/bold]
    """
    from srquant import upscale as run
    from srquant.support.errors import ImageError
    from srquant.support.files import require_apart

    require_apart(output, model.model)
    done = run(model.open(), input, output, tile=tile, skip_existing=skip_existing, format=format, device=model.device)
    skipped = f", {len(done.skipped)} were there already" if done.skipped else ""
    print(f"wrote {len(done.written)} picture{'s' if len(done.written) != 1 else ''}{skipped}")
    if done.failed:
        reasons = "\n  ".join(reason for _, reason in done.failed)
        raise ImageError(f"{len(done.failed)} of the pictures failed:\n  {reasons}")
