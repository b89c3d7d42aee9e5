"""``srquant analyze``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srquant.cli.options import (
    Bits,
    Device,
    HighFolder,
    LowFolder,
    Network,
    Patches,
    Seed,
    ValueRange,
    open_calibration,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srquant.images import Pair

Data = Annotated[Path, typer.Option(help="A pair folder (HR, LR), or a folder of HR images.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The picture, .png; numbers go beside it as .csv.")]
Image = Annotated[str | None, typer.Option(help="File name of the picture to show; the first if not given.")]
Crop = Annotated[str | None, typer.Option(help="top,left,size in HR pixels; where results differ most if not given.")]
Zoom = Annotated[int, typer.Option(help="Screen pixels for each pixel.")]

analyze = typer.Typer(
    no_args_is_help=True, help="Look into a network: outliers, distributions, bounds, sensitivity, results."
)

_CROP = 96


@analyze.command()
def outliers(
    network: Network,
    data: Data,
    output: Output,
    share: Annotated[list[float] | None, typer.Option(help="Share of the activations to clip; several.")] = None,
    image: Image = None,
    crop: Crop = None,
    zoom: Zoom = 2,
    value_range: ValueRange = None,
    device: Device = "auto",
) -> None:
    """Clip the largest activations of every layer and see what they carry: colour (OAPTQ, fig. 2).

    Example:
    [bold]srquant analyze outliers edsr_x4.pth --data Set5/x4 -o outliers.png --share 0.01 --share 0.05[/bold]
    """
    from srquant import load
    from srquant.analysis import clip_outliers
    from srquant.analysis.figures import draw_outliers
    from srquant.api import pick_device

    _require_output(output, network, data)
    _check_zoom(zoom)
    model = load(network, value_range=value_range).to(pick_device(device))
    low, high = _pick(data, model.scale, image).read()
    results = clip_outliers(model, low, high, share or (0.001, 0.01, 0.05))
    draw_outliers(output, high, results, _window(crop, [row.pixels for row in results]), zoom)
    for row in results:
        print(f"{100 * row.share:g} % clipped: {row.psnr:.2f} dB, mean ΔE*ab {row.shift:.2f}")
    print(f"wrote {output} and {output.with_suffix('.csv').name}")


@analyze.command()
def distributions(
    network: Network,
    output: Output,
    calibration: LowFolder = None,
    calibration_hr: HighFolder = None,
    patches: Annotated[int, typer.Option(help="Samples.")] = 8,
    layer: Annotated[list[str] | None, typer.Option(help="Name pattern of layers; several. All if not given.")] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Show the weights of these layers too.")] = False,
    seed: Seed = 0,
    value_range: ValueRange = None,
    device: Device = "auto",
) -> None:
    """Histogram, range, skewness and breakpoint of every operand, sample by sample (OAPTQ, fig. 3; 2DQuant, fig. 4).

    Examples:
    [bold]srquant analyze distributions edsr_x4.pth --calibration lr/ -o distributions.png --layer 'body.*'[/bold]

    [bold]srquant analyze distributions swinir.pth --calibration lr/ -o block.png --layer 'layers.0.*.blocks.0.*'[/bold]
    """
    from srquant import load
    from srquant.analysis import distributions as run
    from srquant.analysis.figures import draw_distributions
    from srquant.api import pick_device

    _require_output(output, network, calibration, calibration_hr)
    model = load(network, value_range=value_range).to(pick_device(device))
    images = open_calibration(calibration, calibration_hr, model.scale, count=patches, seed=seed)
    rows = run(model, images, layers=layer or ("*",), weights=weights)
    draw_distributions(output, rows)
    layers = len({row.layer for row in rows})
    print(f"{layers} layers on {images.describe()}\nwrote {output} and {output.with_suffix('.csv').name}")


@analyze.command()
def bounds(
    network: Network,
    model: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Files srquant made of this network.")],
    output: Output,
    calibration: LowFolder = None,
    calibration_hr: HighFolder = None,
    patches: Annotated[int, typer.Option(help="Patches whose activations are counted.")] = 8,
    seed: Seed = 0,
    value_range: ValueRange = None,
    device: Device = "auto",
) -> None:
    """Where each model's bounds lie in each tensor's distribution, as percentiles (2DQuant, fig. 5).

    Example:
    [bold]srquant analyze bounds swinir.pth dobi.safetensors 2dquant.safetensors --calibration lr/ -o b.png[/bold]
    """
    from srquant import load
    from srquant.analysis import bound_places
    from srquant.analysis.figures import draw_bounds
    from srquant.api import pick_device

    _require_output(output, network, *model, calibration, calibration_hr)
    opened = load(network, value_range=value_range).to(pick_device(device))
    quantized = {path.stem: load(path) for path in model}
    images = open_calibration(calibration, calibration_hr, opened.scale, count=patches, seed=seed)
    rows = bound_places(opened, quantized, images)
    draw_bounds(output, rows)
    for title in quantized:
        own = [row for row in rows if row.model == title]
        below, above = (sum(getattr(row, end) for row in own) / len(own) for end in ("below", "above"))
        print(f"{title}: {len(own)} tensors, on average {below:.2f} % of the values below and {above:.2f} % above")
    print(f"wrote {output} and {output.with_suffix('.csv').name}")


@analyze.command()
def sensitivity(
    network: Network,
    data: Data,
    output: Output,
    calibration: LowFolder = None,
    calibration_hr: HighFolder = None,
    method: Annotated[str, typer.Option(help="How a layer is quantized.")] = "minmax",
    bits: Bits = 4,
    images: Annotated[int, typer.Option(help="Score on the first so many images.")] = 10,
    ordered: Annotated[bool, typer.Option("--sorted", help="The layer that costs most first.")] = False,
    patches: Patches = 100,
    seed: Seed = 0,
    value_range: ValueRange = None,
    device: Device = "auto",
) -> None:
    """PSNR with one layer at a time quantized (OAPTQ, fig. 4).

    Example:
    [bold]srquant analyze sensitivity edsr_x4.pth --data Set14/x4 --calibration-hr photos/ -o sensitivity.png[/bold]
    """
    from srquant import configure, load, quantize
    from srquant.analysis import sensitivity as run
    from srquant.analysis.figures import draw_sensitivity
    from srquant.api import pick_device
    from srquant.images import find_pairs
    from srquant.support.settings import Positive, check

    _require_output(output, network, data, calibration, calibration_hr)
    check("images", images, Positive)
    configuration = configure(method, bits, edges="none")
    model = load(network, value_range=value_range)
    pairs = [pair for folder in find_pairs(data, model.scale) for pair in folder][:images]
    drawn = open_calibration(calibration, calibration_hr, model.scale, count=patches, seed=seed)
    quantized = quantize(model, drawn, configuration, device=device)
    place = pick_device(device)
    result = run(model.to(place), quantized.to(place), pairs)
    draw_sensitivity(output, result, ordered=ordered)
    print(f"float {result.float_psnr:.2f} dB, all layers {result.all_psnr:.2f} dB; the layers that cost most:")
    for name in result.most_sensitive()[:5]:
        print(f"  {name}: {result.layers[name]:.2f} dB")
    print(f"wrote {output} and {output.with_suffix('.csv').name}")


@analyze.command()
def learning(
    model: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Files srquant made, by methods that learn.")],
    output: Output,
) -> None:
    """How the parts of the loss fell while models were finetuned.

    Example:
    [bold]srquant analyze learning oaptq.safetensors 2dquant.safetensors -o learning.png[/bold]
    """
    from srquant import load
    from srquant.analysis.curves import draw_learning
    from srquant.support.errors import ArgumentError

    _require_output(output, *model)
    records = {path.stem: load(path).record for path in model}
    quantized = {title: record for title, record in records.items() if record is not None}
    for title in records.keys() - quantized.keys():
        raise ArgumentError(f"{title} is a float network; give files that srquant quantize made")
    draw_learning(output, quantized)
    for title, record in quantized.items():
        first, last = (record.curve[end]["losses"] for end in (0, -1))
        print(f"{title}: " + ", ".join(f"{part} {first[part]:.4g} to {last[part]:.4g}" for part in first))
    print(f"wrote {output} and {output.with_suffix('.csv').name}")


@analyze.command()
def compare(
    model: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Float networks and files srquant made.")],
    data: Data,
    output: Output,
    image: Image = None,
    crop: Crop = None,
    size: Annotated[int, typer.Option(help="Height and width of the crop where results differ most.")] = _CROP,
    zoom: Zoom = 2,
    device: Device = "auto",
) -> None:
    """The same crop from several models, labelled with PSNR (OAPTQ, fig. 5).

    Example:
    [bold]srquant analyze compare edsr_x4.pth minmax.safetensors plq.safetensors --data Set5/x4 -o compare.png[/bold]
    """
    from srquant import load
    from srquant.analysis.figures import draw_comparison
    from srquant.api import pick_device
    from srquant.images.evaluation import enlarge, score
    from srquant.support.errors import ArgumentError
    from srquant.support.settings import Positive, check

    _require_output(output, *model, data)
    _check_zoom(zoom)
    check("size", size, Positive)
    models = {path: load(path).to(pick_device(device)) for path in model}
    scales = {opened.scale for opened in models.values()}
    if len(scales) > 1:
        raise ArgumentError(f"the models enlarge by different scales: {', '.join(map(str, sorted(scales)))}")
    low, high = _pick(data, scales.pop(), image).read()
    results: list[tuple[str, NDArray[np.uint8], float]] = []
    for path, opened in models.items():
        pixels = enlarge(opened, low, opened.scale)
        results.append((path.stem, pixels, score(pixels, high, opened.scale).psnr))
        print(f"{path.stem}: {results[-1][2]:.2f} dB")
    window = _window(crop, [pixels for _, pixels, _ in results] if len(results) > 1 else [results[0][1], high], size)
    draw_comparison(output, high, results, window, zoom)
    print(f"wrote {output}: top,left,size = {','.join(map(str, window))}")


def _require_output(output: Path, *inputs: Path | None) -> None:
    """Check that a figure, and its numbers beside it, can be written without harm to what is read."""
    from srquant.support.errors import ArgumentError
    from srquant.support.files import require_apart, require_writable

    read = [part for path in inputs if path is not None for part in _folders(path)]
    if output.suffix != ".png":
        raise ArgumentError(f"--output {output}: figures are written as .png files; give a name that ends so")
    for path in (output, output.with_suffix(".csv")):
        require_apart(path, *read)
    require_writable(output)


def _folders(path: Path) -> list[Path]:
    """What is read of an input: a file, a folder of pictures, or the pair folders in it."""
    from srquant.support.files import is_folder

    pairs = [high.parent for high in path.rglob("HR")] if is_folder(path) else []
    return [pair / part for pair in pairs for part in ("HR", "LR")] or [path]


def _check_zoom(zoom: int) -> None:
    from pydantic import Field

    from srquant.support.settings import check

    check("zoom", zoom, Annotated[int, Field(ge=1, le=16)])


def _pick(data: Path, scale: int, image: str | None) -> Pair:
    from srquant.images import find_pairs
    from srquant.support.errors import UnknownNameError

    pairs = [pair for folder in find_pairs(data, scale) for pair in folder]
    named = [pair for pair in pairs if image in (None, pair.name, pair.high.stem)]
    if not named:
        raise UnknownNameError("image", str(image), [pair.name for pair in pairs])
    return named[0]


def _window(crop: str | None, pictures: Sequence[NDArray[np.uint8]], size: int = _CROP) -> tuple[int, int, int]:
    from srquant.analysis import most_different
    from srquant.support.errors import ArgumentError

    height, width = pictures[0].shape[:2]
    if crop is None:
        size = min(size, height, width)
        return (*most_different(pictures, size), size)
    parts = crop.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise ArgumentError(f"--crop {crop}: give top,left,size, for instance 40,64,96")
    top, left, size = (int(part) for part in parts)
    if size < 1 or top + size > height or left + size > width:
        raise ArgumentError(f"--crop {crop} does not lie inside the picture of {width}x{height} pixels")
    return top, left, size
