"""The main job on what ships inside the package: a small EDSR ×4, calibration images, and two test pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srquant.analysis.pictures import Panel, side_by_side, stack
from srquant.api import configure, quantize
from srquant.images.calibration import Calibration
from srquant.images.enlarging import enlarge_bicubic
from srquant.images.evaluation import enlarge, evaluate, score
from srquant.images.finding import find_pairs
from srquant.images.pairs import PairFolder
from srquant.images.picture import Layout, Picture
from srquant.images.samples import CALIBRATION, PAIRS
from srquant.images.writing import write_picture
from srquant.model import Model, load
from srquant.networks.samples import EDSR_X4
from srquant.pages import compare

_CROPS = {"astronaut": (72, 112, 96), "chelsea": (66, 70, 96)}
"""Top, left and size of the region shown of each test picture."""


@dataclass(frozen=True)
class Row:
    """One line of the demo's table: means over the test pictures, bytes of the file, seconds to quantize."""

    name: str
    psnr: float
    ssim: float
    size: int
    seconds: float


def run_demo(output: Path) -> list[Row]:
    """Quantize the embedded network to W4A4 by MinMax, PLQ and our own recipe, score, save, reopen, and draw.

    Our recipe learns nothing here, so that the demo is short.

    Args:
        output: Folder for the models, the picture ``comparison.png`` and the page ``comparison.html``.

    Returns:
        The table: float, MinMax, PLQ, srquant.
    """
    output.mkdir(parents=True, exist_ok=True)
    model = load(EDSR_X4)
    patches, few = (
        Calibration.from_low_resolution(CALIBRATION),
        Calibration.from_low_resolution(CALIBRATION, count=32, size=48),
    )
    quick = configure("srquant", bits=4, effort="none")
    methods = {
        "minmax": (configure("minmax", bits=4), patches),
        "plq": (configure("plq", bits=4), patches),
        "srquant": (quick, few),
    }
    (pairs,) = find_pairs(PAIRS, model.scale)
    paths = {"float": model.save(output / "float.safetensors")}
    rows = [_row("float", model, pairs, paths["float"], 0.0)]
    opened = {"float": model}
    for name, (method, images) in methods.items():
        start = time.perf_counter()
        quantized = quantize(model, images, method, device="cpu")
        seconds = time.perf_counter() - start
        paths[name] = quantized.save(output / f"{name}_w4a4.safetensors")
        opened[name] = load(paths[name])
        rows.append(_row(f"{name} W4A4", opened[name], pairs, paths[name], seconds))
    compare(opened, pairs, output / "comparison.html", device="cpu", files=paths)
    write_picture(output / "comparison.png", Picture(_draw(opened, pairs), Layout()))
    return rows


def _row(name: str, model: Model, pairs: PairFolder, path: Path, seconds: float) -> Row:
    (scores,) = evaluate(model, [pairs], model.scale)
    return Row(name, scores.psnr, scores.ssim, path.stat().st_size, seconds)


def _draw(models: Mapping[str, Model], pairs: PairFolder) -> NDArray[np.uint8]:
    sheets: list[NDArray[np.uint8]] = []
    titles = {"float": "float32", "minmax": "MinMax, 4 bits", "plq": "PLQ, 4 bits", "srquant": "srquant, 4 bits"}
    for pair in pairs:
        low, high = pair.read()
        top, left, size = _CROPS[pair.high.stem]
        window = (slice(top, top + size), slice(left, left + size))
        panels = [Panel(high[window], ("original",)), Panel(enlarge_bicubic(low, pair.scale)[window], ("bicubic",))]
        for name, model in models.items():
            output = enlarge(model, low, model.scale)
            panels.append(Panel(output[window], (titles[name], f"{score(output, high, pair.scale).psnr:.2f} dB")))
        sheets.append(side_by_side(panels, zoom=2))
    return stack(sheets)
