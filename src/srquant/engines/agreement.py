"""Exporting a model: writing the file that is right on this machine, running it, and keeping it if it agrees."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from srquant.engines import Target, saturates, target_named
from srquant.engines.comparing import only_noise, open_quietly, psnr_between, psnr_on_patch
from srquant.engines.disagreement import cause
from srquant.engines.exported import Exported
from srquant.engines.float_files import FloatAgreement, export_floats
from srquant.engines.onnx import can_saturate, require_fitting, require_onnx, write_onnx
from srquant.engines.operands import ExportSettings, Range
from srquant.engines.written import as_written
from srquant.model import Model
from srquant.support.errors import ExportError, SaturationWarning
from srquant.support.files import replacing

LEAST_AGREEMENT = 45.0
"""PSNR in dB between an engine and what a file says, from which on the engine is right whatever else."""
WORST_AGREEMENT = 30.0
"""PSNR in dB below which it is wrong whatever else."""
_TWO_DRAWS = 10 * math.log10(2)
"""How much farther in dB two draws of the same noise are from each other than each is from its middle."""
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
        engine_psnr: PSNR in dB between the engine's output and that of the model with the file's own weights, on test
            patches, images in [0, 1], the worst; infinite if equal. See :func:`needed_psnr`.
        tried: PSNR in dB between the engine's output and the model's on the same patches, for each range that was run.
        rounding_psnr: PSNR in dB between the model and itself with activations that are not rounded.
    """

    engine: str
    range: Range
    saturates: bool
    engine_psnr: float
    tried: Mapping[Range, float]
    rounding_psnr: float = math.inf

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
        less = self.range == "reduced" and self.psnr < min(LEAST_AGREEMENT, self.engine_psnr)
        way_out = f"; to lose less, {_LESS_LOSS}" if less else ""
        rounding = f" (rounding activations costs {self.rounding_psnr:.1f} dB)" if self.rounding_psnr < math.inf else ""
        return f"{done}; {self.engine} and the model agree to {self.psnr:.1f} dB{rounding}{way_out}"


def export_onnx(
    model: Model, path: Path, settings: ExportSettings, engine: str | None = None, threads: int | None = None
) -> Agreement | FloatAgreement:
    """Write a model as ONNX, run it, and keep it if the engine computes what the file says; all or nothing.

    What computes in floats (a float network, or one whose activations stay float) is written by
    :func:`~srquant.engines.float_files.export_floats`; the rest is about integers.

    With ``range="auto"`` weights keep their full range where the engine's products do not saturate on this processor,
    or the model's cannot. Else the reduced range is written, which is right for every picture, and the full one is run
    for comparison only. What coarser weights cost is reported, and is no reason to refuse.

    Args:
        model: Quantized, on integers; or float.
        path: An ``.onnx`` file.
        settings: How to write it.
        engine: Where to run it, a name in ``srquant.engines.TARGETS``; the first that is installed if None.
        threads: For running it; all cores if None.

    Raises:
        ExportError: The engine's output is too far from that of the model with the file's own weights; see
            :func:`needed_psnr`.
        SrquantError: See :func:`~srquant.engines.onnx.write_onnx` and :func:`~srquant.engines.open_exported`.

    Warns:
        SaturationWarning: Full range was asked for. The file agrees on the test patch, but products of other pictures
            may saturate here.
    """
    require_onnx(path)
    require_fitting(model, settings)
    target = target_named(engine)
    if model.record is None or settings.activations == "float":
        return export_floats(model, path, settings, target, threads)
    coarser = can_saturate(model)
    saturating = coarser and saturates(target.name)
    kept = settings.range
    if kept == "auto":
        kept = "reduced" if saturating else "full"
    tried: dict[Range, float] = {}
    with replacing(path) as temporary:

        def run(form: Range) -> Exported:
            write_onnx(model, temporary, replace(settings, range=form))
            exported = open_quietly(temporary, target, threads, path)
            tried[form] = psnr_on_patch(model, exported)
            return exported

        if settings.range == "auto" and kept == "reduced":
            run("full")
        exported = run(kept)
        written = as_written(model, kept)
        psnr = psnr_on_patch(written, exported) if kept == "reduced" else tried[kept]
        rounding = rounding_psnr(model, exported.contract.tile)
        needed = needed_psnr(rounding)
        if not (psnr >= LEAST_AGREEMENT or (psnr >= needed and only_noise(written, exported))):

            def open_there(file: Path, engine: Target) -> Exported:
                return open_quietly(file, engine, threads, path)

            def agree(other: Callable[[Tensor], Tensor]) -> float:
                return psnr_between(written, other, exported.contract.tile)

            saturated = kept == "full" and saturating
            if saturated and psnr_on_patch(as_written(model, "reduced"), run("reduced")) >= needed:
                why = "byte products of full range saturate on this processor; take --range auto"
            else:
                why = cause(target, temporary, written, open_there, agree, needed)
            raise ExportError(_refusal(target, kept, psnr, rounding, why))
    found = Agreement(exported.engine, kept, coarser and kept == "full", psnr, tried, rounding)
    if saturating and found.saturates:
        warnings.warn(
            f"{found.engine} adds pairs of eight-bit products in 16 bits on this processor: {path.name} agrees with "
            f"the model on the test patch, but may not on other pictures",
            SaturationWarning,
            stacklevel=2,
        )
    return found


def needed_psnr(rounding: float) -> float:
    """From which agreement on an engine may be right: PSNR in dB between its output and the model's.

    Engines add in another order, and some round biases. Where a value lies in the middle between two levels, that tips
    its code, and in a deep network codes that tip tip others; in the end the engine's result is another draw of the
    model's rounding noise. How large that is says the model without rounded activations, which is part of what
    quantization loses; two draws are 3 dB farther from each other, and the engine may be so far from the model. From 45
    dB on it is right in any case, below 30 dB wrong. (Real-ESRGAN's RRDB of 6 blocks at W8A8: 36.3 dB without rounded
    activations, 35.7 against itself in float64, 36.0 and 36.2 in the engines.)
    What makes a file wrong (a lost offset, bias or scale, a wrong order of channels) is mostly farther away than that.
    What is not is no noise: see :func:`only_noise`.

    Args:
        rounding: PSNR in dB between the model and itself without rounded activations.
    """
    return min(LEAST_AGREEMENT, max(WORST_AGREEMENT, rounding - _TWO_DRAWS))


def rounding_psnr(model: Model, size: tuple[int, int] | None) -> float:
    """PSNR in dB between a model and itself with activations that are not rounded, on the test patches."""
    return psnr_between(model, as_written(model, "full", "float"), size)


def _refusal(target: Target, form: Range, psnr: float, rounding: float, why: str) -> str:
    """That nothing was written, and why."""
    model = "the model" if form == "full" else "the model with weights of reduced range"
    needed = needed_psnr(rounding)
    if psnr >= needed:
        least = "and differ by an offset or a factor"
    else:
        least = f"less than {needed:.3g}" + (
            "" if needed == LEAST_AGREEMENT else f" (rounding activations costs {rounding:.1f})"
        )
    return f"{target.title} and {model} agree to {psnr:.1f} dB on test patches, {least}; nothing was written: {why}"
