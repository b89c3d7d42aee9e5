"""A page about a few models: their scores on pictures, the pictures themselves, their layers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srquant.api import pick_device
from srquant.engines import open_exported
from srquant.engines.exported import Exported
from srquant.fetching import resolve
from srquant.images.enlarging import enlarge_bicubic
from srquant.images.evaluation import enlarge
from srquant.images.metrics import psnr, ssim
from srquant.images.pairs import Pair
from srquant.images.reading import read_picture
from srquant.model import Model, load
from srquant.pages.comparison import BICUBIC, HR, Comparison, Scored
from srquant.pages.contenders import Contender, with_titles
from srquant.pages.contents import Layers, Page
from srquant.pages.describing import page_of
from srquant.pages.layers import curve_of, layers_of, measured_inputs, measured_losses
from srquant.pages.pictures import BUDGET, Labelled, make_scene
from srquant.pages.rendering import write_page
from srquant.pages.wording import (
    number,
)
from srquant.support.errors import ArgumentError, LossWarning
from srquant.support.files import require_apart, require_writable
from srquant.support.memory import memory_errors
from srquant.support.progress import Bar, bar

_LEAST = 11
"""Pixels inside the border that scores need, a side."""

Pixels = NDArray[np.uint8]


def compare(
    models: Mapping[str, Model | Exported] | Sequence[Path | str],
    images: Iterable[Path | str | Pair],
    output: Path | str,
    *,
    low_images: Iterable[Path | str] = (),
    layers: bool = False,
    tile: int | None = None,
    device: str = "auto",
    files: Mapping[str, Path] | None = None,
) -> Path:
    """Write a page that compares models on pictures: scores, the pictures themselves, layers, where all is from.

    The page is one file that needs no network. The same models and pictures give the same bytes.

    Args:
        models: Of one scale, opened, by title; or their files, exported ones too. One of them may be the float network:
            losses are against it.
        images: HR pictures, from which LR is made by MATLAB's bicubic; or pairs, from
            :func:`~srquant.images.find_pairs`.
        output: An ``.html`` file.
        low_images: Pictures to enlarge as they are. There is no HR, so models are scored against the float network.
        layers: Measure what each layer loses alone, and how its input is distributed; needs the float network, and
            takes about as many passes as there are layers, for each model.
        tile: Enlarge in tiles of this size; None enlarges each picture at once, where the model takes any size.
        device: Where to compute.
        files: Of models that are given opened, by title, for the sizes of their files; counted where none is named.

    Returns:
        The page's path.

    Raises:
        ArgumentError: There are no models or no pictures, scales differ, or ``layers`` has no float network.
        SrquantError: A model or a picture cannot be opened, or the page not be written.
    """
    output = Path(output)
    if output.suffix != ".html":
        raise ArgumentError(f"output={output}: pages are written as .html files; give a name that ends so")
    pictures = [image if isinstance(image, Pair) else Path(image) for image in images]
    lows = [Path(image) for image in low_images]
    read = [image.high if isinstance(image, Pair) else image for image in pictures] + lows
    if not pictures and not lows:
        raise ArgumentError("there are no pictures to compare on; give images or low_images")
    given = {} if isinstance(models, Mapping) else with_titles(map(Path, models))
    paths = dict(files or {}) | {title: resolve(path, "network") for title, path in given.items()}
    require_apart(output, *paths.values(), *read)
    require_writable(output)
    opened = models if isinstance(models, Mapping) else {title: _open(path) for title, path in paths.items()}
    contenders = _contenders(opened, paths, device)
    scale = contenders[0].model.scale
    pairs = [image if isinstance(image, Pair) else Pair(image, None, scale) for image in pictures]
    return write_page(compared(contenders, pairs, lows, measure_layers=layers, tile=tile), output)


def _open(path: Path) -> Model | Exported:
    return open_exported(path) if path.suffix == ".onnx" else load(path)


def _contenders(
    opened: Mapping[str, Model | Exported], files: Mapping[str, Path], device: str
) -> tuple[Contender, ...]:
    """Models, the float ones first.

    Raises:
        ArgumentError: There are none, or their scales differ.
    """
    scales = {title: model.scale for title, model in opened.items()}
    if len({*scales.values()}) != 1:
        words = ", ".join(f"{title} ×{scale}" for title, scale in scales.items())
        raise ArgumentError(f"models must be of one scale to be compared; got {words or 'none'}")
    found: list[Contender] = []
    for title, model in opened.items():
        if title in (HR, BICUBIC):
            raise ArgumentError(f"a model cannot be called {title!r}, as a picture beside it is; rename it")
        if title in files:
            count = files[title].stat().st_size
        else:
            count = 0 if isinstance(model, Exported) else model.sizes().stored_bits // 8
        moved = model if isinstance(model, Exported) else model.to(pick_device(device))
        found.append(Contender(title, moved, count))
    return tuple(sorted(found, key=lambda each: not each.is_float))


def compared(
    contenders: Sequence[Contender],
    pairs: Sequence[Pair],
    lows: Sequence[Path] = (),
    *,
    measure_layers: bool = False,
    tile: int | None = None,
) -> Page:
    """The page of a comparison; see :func:`compare`.

    Raises:
        SrquantError: See :func:`compare`.
    """
    comparison = Comparison(tuple(contenders))
    if measure_layers and comparison.reference is None:
        raise ArgumentError("layers are measured against the float network; give it, and no second one")
    with bar("Enlarging", len(contenders) * (len(pairs) + len(lows))) as shown:
        budget = BUDGET // (len(pairs) + len(lows))
        results = [enlarged(comparison, source, budget, shown, tile) for source in (*pairs, *lows)]
    layers = _layers(comparison, pairs, lows) if measure_layers else comparison.described_layers()
    curves = [
        curve_of(title, comparison.numbers[title], model.record.curve)
        for title, model in comparison.quantized.items()
        if model.record is not None
    ]
    return page_of(
        replace(
            comparison,
            scored=tuple(scored for scored, _ in results),
            layers=layers,
            curves=tuple(curve for curve in curves if curve is not None),
            left_out=tuple(dict.fromkeys(said for _, sentences in results for said in sentences)),
        )
    )


def enlarged(
    comparison: Comparison, source: Pair | Path, budget: int, shown: Bar, tile: int | None = None
) -> tuple[Scored, list[str]]:
    """One picture, enlarged by all models and scored, and what its file holds and is not shown.

    Args:
        comparison: Whose models.
        source: HR and LR, or LR alone.
        budget: Bytes that the pictures may take on a page.
        shown: Moves on by one a model.
        tile: Enlarge in tiles of this size; None enlarges at once, where a model takes any size.

    Raises:
        SrquantError: The picture cannot be read or enlarged.
    """
    low, high, left_out = _read(source)
    outputs: dict[str, Pixels] = {}
    for each in comparison.contenders:
        with memory_errors(f"{source.name} is too large to be enlarged at once; give a smaller tile (tile=192)"):
            outputs[each.title] = enlarge(each.upscaler(), low, each.model.scale, each.tiling(tile))
        shown.advance(1, f"{source.name} {each.title}")
    return _score(source.name, low, high, outputs, comparison, budget), left_out


def _read(source: Pair | Path) -> tuple[Pixels, Pixels | None, list[str]]:
    """LR and HR pixels, and what the file holds and is not in them."""
    path = source.high if isinstance(source, Pair) else source
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", LossWarning)
        low, high = source.read() if isinstance(source, Pair) else (read_picture(source).rgb8(), None)
        transparent = read_picture(path).layout.alpha
    said = [f"{warning.message}." for warning in warned]
    return low, high, said + [f"{path.name} has transparency, which is left out."] * transparent


def _layers(comparison: Comparison, pairs: Sequence[Pair], lows: Sequence[Path]) -> tuple[Layers, ...]:
    """The layers of all quantized models, each measured alone."""
    assert comparison.reference is not None
    model = comparison.reference.model
    assert isinstance(model, Model)
    images = [pair.high for pair in pairs] or list(lows)
    seen = measured_inputs(model, images, model.scale if pairs else 1)
    return tuple(
        layers_of(title, quantized, measured_losses(model, quantized, pairs) if pairs else None, seen)
        for title, quantized in comparison.quantized.items()
    )


def _score(
    name: str,
    low: Pixels,
    high: Pixels | None,
    outputs: Mapping[str, Pixels],
    comparison: Comparison,
    budget: int,
) -> Scored:
    """Scores of one picture, and what is shown of it."""
    scale = comparison.contenders[0].model.scale
    reference = comparison.reference
    if high is not None:
        against, target = HR, high
    else:
        against, target = ("", None) if reference is None else (reference.title, outputs[reference.title])
    bicubic = enlarge_bicubic(low, scale)
    if target is None or min(target.shape[:2]) - 2 * scale < _LEAST:
        against, values, similarities = "", {}, {}
    else:
        rivals = {title: pixels for title, pixels in {BICUBIC: bicubic, **outputs}.items() if title != against}
        inside = slice(scale, -scale)
        values = {title: psnr(pixels[inside, inside], target[inside, inside]) for title, pixels in rivals.items()}
        similarities = {title: ssim(pixels[inside, inside], target[inside, inside]) for title, pixels in rivals.items()}
    pictures = ({} if high is None else {HR: high}) | {BICUBIC: bicubic} | dict(outputs)
    labelled = {
        title: Labelled(pixels, f"{number(values[title])} dB" if title in values else "")
        for title, pixels in pictures.items()
    }
    scene = make_scene(name, labelled, budget=budget, start=_first_shown(comparison, values))
    return Scored(name, values, similarities, against, scene)


def _first_shown(comparison: Comparison, values: Mapping[str, float]) -> tuple[str, str]:
    """The titles on the left and on the right: the worst model and the best; of one model, it and the float network."""
    titles = [each.title for each in comparison.contenders if not each.is_float]
    if len(titles) > 1:
        in_order = sorted(titles, key=lambda title: values.get(title, 0.0))
        return in_order[0], in_order[-1]
    everything = [each.title for each in comparison.contenders]
    return (everything[0], everything[-1]) if len(everything) > 1 else (BICUBIC, everything[0])
