"""``srquant evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from srquant.cli.options import ModelOptions, grouped


@grouped
def evaluate(
    model: ModelOptions,
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="Folders of pairs, of several sets, of HR images; or names (srquant fetch).",
        ),
    ],
    json: Annotated[Path | None, typer.Option(help="Write all scores, image by image, to this file.")] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(help="Further scores, lower is better: lpips, dists (extra perceptual); several."),
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Enlarge in tiles of this size instead of at once.")] = None,
    overlap: Annotated[
        int | None,
        typer.Option(help="Of tiles, in pixels; 0 with --tile 96 scores patch by patch, as OAPTQ does on Urban100."),
    ] = None,
    border: Annotated[
        Literal["replicate", "mirror"],
        typer.Option(help="Borders of bicubic where LR is made: replicate as in the benchmarks, or newer MATLAB's."),
    ] = "replicate",
) -> None:
    """Score a float or quantized model: PSNR and SSIM on luma, a border of scale pixels cropped; LPIPS (AlexNet) and
    DISTS on RGB, uncropped, if asked for.

    Pairs are known in these layouts (s is the scale, * any name): HR + LR, HR + LR/X{s}, HR/X{s} + LR/X{s},
    HR + LR_bicubic, HR + LR_bicubic/X{s}, GTmod12 + LRbicX{s}, GT + LQ, *_HR + *_LR_bicubic, *_HR + *_LR_bicubic/X{s},
    and *_HR and *_LR{s} in one folder. Names in LR may end with x{s}, _LR, _LR{s}, _bicLRx{s} or _SRF_{s}_LR; capitals
    do not matter. Of HR images alone, LR is made by MATLAB's bicubic. HR images a few pixels too large are cropped.

    Examples:
    [bold]srquant evaluate edsr_x4_w4a4.safetensors Set5/x4 Set14/x4[/bold]

    [bold]srquant evaluate edsr-baseline-x4 set5 set14[/bold]

    [bold]srquant evaluate edsr_x4_w4a4.safetensors set5 --score lpips --score dists[/bold]

    [bold]srquant evaluate edsr_x4.pth benchmarks/ --json scores.json[/bold]

    [bold]srquant evaluate edsr_x4_w8a8.onnx Set5/x4 --engine onnxruntime[/bold]
    """
    from srquant import evaluate as run
    from srquant.cli.tables import print_scores
    from srquant.images.evaluation import write_scores
    from srquant.support.files import require_apart, require_writable

    if json is not None:
        require_apart(json, model.model, *data, below=True)
        require_writable(json)
    further = score or ()
    scores = run(model.open(), *data, tile=tile, overlap=overlap, border=border, scores=further, device=model.device)
    print_scores(scores)
    if json is not None:
        write_scores(json, str(model.model), scores)
