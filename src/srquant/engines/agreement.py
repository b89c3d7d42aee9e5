"""Exporting a model: writing the file that is right on this machine, running it, and keeping it if it agrees."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from srquant.engines import Target, saturates, target_named
from srquant.engines.disagreement import cause
from srquant.engines.exported import Exported, open_in
from srquant.engines.onnx import ExportSettings, Range, can_saturate, require_onnx, write_onnx
from srquant.engines.written import as_written
from srquant.images.reading import read_picture
from srquant.images.samples import LOW_RESOLUTION
from srquant.model import Model
from srquant.networks.modules import pad_to_size
from srquant.support.errors import ExportError, SaturationWarning
from srquant.support.files import replacing
from srquant.support.tensors import planes

LEAST_AGREEMENT = 45.0
"""PSNR in dB between an engine and what a file says, below which the engine is wrong."""
_PATCH = 64
"""Height and width of the test patch where the file takes any size."""
_LESS_LOSS = (
    "quantize again with weights of 6 bits, whose products never saturate, and float edges (--method mse --bits 8 "
    "--weight-bits 6 --edges float --set grid=int8 --set weights.granularity=per_channel)"
)


@dataclass(frozen=True)
class Agreement:
    """What was exported, how it was checked, what it is good for and what it costs; ``str`` says so in one line.

    Two numbers tell two things. ``engine_psnr`` compares the engine with the file: whether it is computed rightly.
    ``psnr`` compares the engine with the model: in full range that is the same, in reduced range it also holds what the
    coarser weights cost.

    Args:
        engine: That ran it, with its version.
        range: Of the weights: ``full`` or ``reduced``.
        saturates: Whether the file's products can leave 16 bits.
        engine_psnr: PSNR in dB between the engine's output and that of the model with the file's own weights, on a test
            patch, images in [0, 1]; at least 45, infinite if equal.
        tried: PSNR in dB between the engine's output and the model's on the same patch, for each range that was run.
    """

    engine: str
    range: Range
    saturates: bool
    engine_psnr: float
    tried: Mapping[Range, float]

    @property
    def psnr(self) -> float:
        """Of what was written, in dB, against the model that was exported."""
        return self.tried[self.range]

    @property
    def good_for(self) -> str:
        """The processors on which the file's products cannot saturate, in words."""
        return "processors with VNNI or AMX" if self.saturates else "any processor"

    def __str__(self) -> str:
        done, full = f"weights of {self.range} range, good for {self.good_for}", self.tried.get("full")
        if self.range == "reduced":
            done += "" if full is None else f" (those of full range saturate on this one and agree to {full:.1f} dB)"
        elif self.saturates:
            done += " (on others take --range reduced)"
        else:
            done += ", as their products cannot saturate"
        way_out = f"; to lose less, {_LESS_LOSS}" if self.psnr < LEAST_AGREEMENT else ""
        return f"{done}; {self.engine} and the model agree to {self.psnr:.1f} dB{way_out}"


def export_onnx(
    model: Model, path: Path, settings: ExportSettings, engine: str | None = None, threads: int | None = None
) -> Agreement:
    """Write a quantized model as ONNX, run it, and keep it if the engine computes what the file says; all or nothing.

    With ``range="auto"`` weights keep their full range where the engine's products do not saturate on this processor,
    or the model's cannot. Else the reduced range is written, which is right for every picture, and the full one is run
    for comparison only. What coarser weights cost is reported, and is no reason to refuse.

    Args:
        model: Quantized, on integers.
        path: An ``.onnx`` file.
        settings: How to write it.
        engine: Where to run it, a name in ``srquant.engines.TARGETS``; the first that is installed if None.
        threads: For running it; all cores if None.

    Raises:
        ExportError: The engine's output is less than 45 dB from that of the model with the file's own weights.
        SrquantError: See :func:`~srquant.engines.onnx.write_onnx` and :func:`~srquant.engines.open_exported`.

    Warns:
        SaturationWarning: Full range was asked for. The file agrees on the test patch, but products of other pictures
            may saturate here.
    """
    require_onnx(path)
    target = target_named(engine)
    coarser = can_saturate(model)
    saturating = coarser and saturates(target.name)
    kept: Range = settings.range
    if kept == "auto":
        kept = "reduced" if saturating else "full"
    tried: dict[Range, float] = {}
    with replacing(path) as temporary:

        def run(form: Range) -> Exported:
            write_onnx(model, temporary, replace(settings, range=form))
            exported = _open(temporary, path, target, threads)
            tried[form] = psnr_on_patch(model, exported)
            return exported

        if settings.range == "auto" and kept == "reduced":
            run("full")
        exported = run(kept)
        written = as_written(model, kept)
        psnr = psnr_on_patch(written, exported) if kept == "reduced" else tried[kept]
        if not psnr >= LEAST_AGREEMENT:

            def open_there(file: Path, engine: Target) -> Exported:
                return _open(file, path, engine, threads)

            def agree(other: Callable[[Tensor], Tensor]) -> float:
                return psnr_between(written, other, exported.contract.tile)

            saturated = kept == "full" and saturating
            if saturated and psnr_on_patch(as_written(model, "reduced"), run("reduced")) >= LEAST_AGREEMENT:
                why = "byte products of full range saturate on this processor; take --range auto"
            else:
                why = cause(target, temporary, written, open_there, agree, LEAST_AGREEMENT)
            raise ExportError(_refusal(target, kept, psnr, why))
    found = Agreement(exported.engine, kept, coarser and kept == "full", psnr, tried)
    if saturating and found.saturates:
        warnings.warn(
            f"{found.engine} adds pairs of eight-bit products in 16 bits on this processor: {path.name} agrees with "
            f"the model on the test patch, but may not on other pictures",
            SaturationWarning,
            stacklevel=2,
        )
    return found


def _open(path: Path, named: Path, target: Target, threads: int | None) -> Exported:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaturationWarning)  # that is what is measured
        return open_in(target, path, threads, named)


def psnr_on_patch(model: Model, exported: Exported) -> float:
    """PSNR in dB between a file's output and a model's on the test patch, images in [0, 1]; infinite if equal."""
    return psnr_between(model, exported, exported.contract.tile)


def psnr_between(
    one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], size: tuple[int, int] | None
) -> float:
    """PSNR in dB between two outputs on the test patch of a size, clamped to [0, 1]; infinite if equal, else finite or
    not a number.
    """
    patch = test_patch(*(size or (_PATCH, _PATCH)))
    first, second = (run(patch).cpu().clamp(0, 1).double() for run in (one, other))
    error = float((first - second).square().mean())
    return -10 * math.log10(error) if error else math.inf


def _refusal(target: Target, form: Range, psnr: float, why: str) -> str:
    """That nothing was written, and why."""
    model = "the model" if form == "full" else "the model with weights of reduced range"
    return (
        f"{target.title} and {model} agree to {psnr:.1f} dB on a test patch, less than {LEAST_AGREEMENT:g}; nothing "
        f"was written: {why}"
    )


def test_patch(height: int, width: int) -> Tensor:
    """A piece of the embedded photograph, ``1 3 h w`` in [0, 1], mirrored where it ends."""
    picture = read_picture(LOW_RESOLUTION)
    image = planes(picture.pixels)[None, :3].float() / picture.layout.peak
    return pad_to_size(image[..., :height, :width], height, width)
