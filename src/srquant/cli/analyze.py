"""``srquant analyze``."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srquant.cli.options import (
    Bits,
    CalibrationOptions,
    Device,
    FewPatches,
    NetworkOptions,
    NetworkSettings,
    grouped,
    network_settings,
    require_output,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srquant.images import Pair

Data = Annotated[Path, typer.Option(help="Pairs or HR images, as evaluate takes them (see evaluate --help).")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The picture, .png; numbers go beside it as .csv.")]
_CROP = 96


@dataclass(frozen=True)
class PictureOptions:
    """What is shown of which picture."""

    image: Annotated[str | None, typer.Option(help="File name of the picture to show; the first if not given.")] = None
    crop: Annotated[
        str | None, typer.Option(help="top,left,size in HR pixels; where results differ most if not given.")
    ] = None
    zoom: Annotated[int, typer.Option(help="Screen pixels for each pixel.")] = 2

    def __post_init__(self) -> None:
        from pydantic import Field

        from srquant.support.settings import check

        check("zoom", self.zoom, Annotated[int, Field(ge=1, le=16)])

    def pair(self, data: Path, scale: int) -> Pair:
        """The picture and its low-resolution image."""
        from srquant.support.errors import UnknownNameError

        pairs = _pairs(data, scale)
        named = [pair for pair in pairs if self.image in (None, pair.name, pair.high.stem)]
        if not named:
            raise UnknownNameError("image", str(self.image), [pair.name for pair in pairs])
        return named[0]

    def window(self, pictures: Sequence[NDArray[np.uint8]], size: int = _CROP) -> tuple[int, int, int]:
        """Top, left and size of what is shown; where the pictures differ most, if nothing was said."""
        from srquant.analysis import most_different
        from srquant.support.errors import ArgumentError

        height, width = pictures[0].shape[:2]
        if self.crop is None:
            size = min(size, height, width)
            return (*most_different(pictures, size), size)
        parts = self.crop.split(",")
        if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
            raise ArgumentError(f"--crop {self.crop}: give top,left,size, for instance 40,64,96")
        top, left, size = (int(part) for part in parts)
        if size < 1 or top + size > height or left + size > width:
            raise ArgumentError(f"--crop {self.crop} does not lie inside the picture of {width}x{height} pixels")
        return top, left, size


analyze = typer.Typer(
    no_args_is_help=True, help="Look into a network: outliers, distributions, bounds, sensitivity, results."
)


@analyze.command()
@grouped
def outliers(
    network: NetworkOptions,
    data: Data,
    output: Output,
    shown: PictureOptions,
    share: Annotated[list[float] | None, typer.Option(help="Share of the activations to clip; several.")] = None,
) -> None:
    """Clip the largest activations of every layer and see what they carry: colour (OAPTQ, fig. 2).

    Example:
    [bold]srquant analyze outliers edsr_x4.pth --data Set5/x4 -o outliers.png --share 0.01 --share 0.05[/bold]
    """
    from srquant.analysis import clip_outliers
    from srquant.analysis.figures import draw_outliers

    _require_figure(output, network.network, data)
    model = network.load()
    low, high = shown.pair(data, model.scale).read()
    results = clip_outliers(model, low, high, share or (0.001, 0.01, 0.05))
    draw_outliers(output, high, results, shown.window([row.pixels for row in results]), shown.zoom)
    for row in results:
        print(f"{100 * row.share:g} % clipped: {row.psnr:.2f} dB, mean ΔE*ab {row.shift:.2f}")
    _print_written(output)


@analyze.command()
@grouped
def distributions(
    network: NetworkOptions,
    output: Output,
    calibration: FewPatches,
    layer: Annotated[list[str] | None, typer.Option(help="Name pattern of layers; several. All if not given.")] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Show the weights of these layers too.")] = False,
) -> None:
    """Histogram, range, skewness and breakpoint of every operand, sample by sample (OAPTQ, fig. 3; 2DQuant, fig. 4).

    Examples:
    [bold]srquant analyze distributions edsr_x4.pth --calibration lr/ -o distributions.png --layer 'body.*'[/bold]

    [bold]srquant analyze distributions swinir.pth --calibration lr/ -o block.png --layer 'layers.0.*.blocks.0.*'[/bold]
    """
    from srquant.analysis import distributions as run
    from srquant.analysis.figures import draw_distributions

    _require_figure(output, network.network, searched=calibration.folders)
    model = network.load()
    images = calibration.open(model.scale)
    rows = run(model, images, layers=layer or ("*",), weights=weights)
    draw_distributions(output, rows)
    print(f"{len({row.layer for row in rows})} layers on {images.describe()}")
    _print_written(output)


@analyze.command()
@grouped
def bounds(
    network: NetworkOptions,
    model: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Files srquant made of this network.")],
    output: Output,
    calibration: FewPatches,
) -> None:
    """Where each model's bounds lie in each tensor's distribution, as percentiles (2DQuant, fig. 5).

    Example:
    [bold]srquant analyze bounds swinir.pth dobi.safetensors 2dquant.safetensors --calibration lr/ -o b.png[/bold]
    """
    from srquant import load
    from srquant.analysis import bound_percentiles
    from srquant.analysis.figures import draw_bounds

    _require_figure(output, network.network, *model, searched=calibration.folders)
    opened = network.load()
    quantized = {path.stem: load(path) for path in model}
    rows = bound_percentiles(opened, quantized, calibration.open(opened.scale))
    draw_bounds(output, rows)
    for title in quantized:
        own = [row for row in rows if row.model == title]
        below, above = (sum(getattr(row, end) for row in own) / len(own) for end in ("below", "above"))
        print(f"{title}: {len(own)} tensors, on average {below:.2f} % of the values below and {above:.2f} % above")
    _print_written(output)


@analyze.command()
@grouped
def sensitivity(
    network: NetworkOptions,
    data: Data,
    output: Output,
    calibration: CalibrationOptions,
    method: Annotated[str, typer.Option(help="How a layer is quantized.")] = "minmax",
    bits: Bits = 4,
    images: Annotated[int, typer.Option(help="Score on so many random images, all if there are fewer.")] = 100,
    weights: Annotated[bool, typer.Option("--weights", help="Quantize the layer's weight too.")] = False,
    ordered: Annotated[bool, typer.Option("--sorted", help="The layer that costs most first.")] = False,
) -> None:
    """PSNR with the activations of one layer at a time quantized (OAPTQ, fig. 4).

    Example:
    [bold]srquant analyze sensitivity edsr_x4.pth --data Set14/x4 --calibration-hr photos/ -o sensitivity.png[/bold]
    """
    from srquant import configure, quantize
    from srquant.analysis import sensitivity as run
    from srquant.analysis.figures import draw_sensitivity
    from srquant.support.settings import Positive, check

    _require_figure(output, network.network, data, searched=calibration.folders)
    check("images", images, Positive)
    configuration = configure(method, bits, edges="none")
    model = network.load()
    pairs = _pairs(data, model.scale)
    pairs = [pairs[i] for i in sorted(random.Random(0).sample(range(len(pairs)), min(images, len(pairs))))]
    quantized = quantize(model, calibration.open(model.scale), configuration, device=network.device)
    result = run(model, quantized.to(model.device), pairs, weights=weights)
    draw_sensitivity(output, result, ordered=ordered)
    print(f"float {result.float_psnr:.2f} dB, all layers {result.all_psnr:.2f} dB; the layers that cost most:")
    for name in result.most_sensitive()[:5]:
        print(f"  {name}: {result.layers[name]:.2f} dB")
    _print_written(output)


@analyze.command()
@grouped
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

    _require_figure(output, *model)
    records = {path.stem: load(path).record for path in model}
    quantized = {title: record for title, record in records.items() if record is not None}
    for title in records.keys() - quantized.keys():
        raise ArgumentError(f"{title} is a float network; give files that srquant quantize made")
    draw_learning(output, quantized)
    for title, record in quantized.items():
        first, last = (record.curve[end]["losses"] for end in (0, -1))
        print(f"{title}: " + ", ".join(f"{part} {first[part]:.4g} to {last[part]:.4g}" for part in first))
    _print_written(output)


@analyze.command()
@grouped
def compare(
    model: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Float networks and files srquant made.")],
    data: Data,
    output: Output,
    shown: PictureOptions,
    size: Annotated[int, typer.Option(help="Height and width of the crop where results differ most.")] = _CROP,
    set_: NetworkSettings = None,
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
    from srquant.model.observing import first_checked
    from srquant.model.storage import is_model_file
    from srquant.support.errors import ArgumentError
    from srquant.support.settings import Positive, check

    _require_figure(output, *model, data)
    check("size", size, Positive)
    settings = network_settings(set_)
    opened_with = {path: () if is_model_file(path) else settings for path in model}
    models = {path: load(path, settings=said).to(pick_device(device)) for path, said in opened_with.items()}
    scales = {opened.scale for opened in models.values()}
    if len(scales) > 1:
        raise ArgumentError(f"the models enlarge by different scales: {', '.join(map(str, sorted(scales)))}")
    low, high = shown.pair(data, scales.pop()).read()
    results: list[tuple[str, NDArray[np.uint8], float]] = []
    for path, opened in models.items():
        upscaler = opened if opened.record is not None else first_checked(opened.network, opened)
        pixels = enlarge(upscaler, low, opened.scale)
        results.append((path.stem, pixels, score(pixels, high, opened.scale).psnr))
        print(f"{path.stem}: {results[-1][2]:.2f} dB")
    pictures = [pixels for _, pixels, _ in results]
    window = shown.window(pictures if len(pictures) > 1 else [*pictures, high], size)
    draw_comparison(output, high, results, window, shown.zoom)
    print(f"wrote {output}: top,left,size = {','.join(map(str, window))}")


def _require_figure(output: Path, *inputs: Path | None, searched: Iterable[Path | None] = ()) -> None:
    """Check that a figure, and its numbers beside it, can be written without harm to what is read.

    Args:
        output: The figure.
        inputs: Files, and folders of pictures or pairs.
        searched: Folders that are read with all folders in them.
    """
    read = [part for path in inputs if path is not None for part in _folders(path)]
    require_output(output, "figures", (".png", ".csv"), *read)
    require_output(output, "figures", (".png", ".csv"), *searched, below=True)


def _folders(path: Path) -> list[Path]:
    """What is read of an input: a file, or the folders of pictures in a folder."""
    from srquant.images.finding import read_folders
    from srquant.support.files import is_folder

    return (list(read_folders(path)) if is_folder(path) else []) or [path]


def _pairs(data: Path, scale: int) -> list[Pair]:
    from srquant.cli.tables import print_made
    from srquant.images import find_pairs

    folders = find_pairs(data, scale)
    print_made(folder.name for folder in folders if folder.low_is_made)
    return [pair for folder in folders for pair in folder]


def _print_written(figure: Path) -> None:
    print(f"wrote {figure} and {figure.with_suffix('.csv').name}")
