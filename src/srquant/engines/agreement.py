"""Exporting a model: writing the file that is right on this machine, running it, and keeping it if it agrees."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from srquant.engines import open_exported, saturates
from srquant.engines.exported import Exported
from srquant.engines.onnx import ExportSettings, Range, can_saturate, require_onnx, write_onnx
from srquant.images.reading import read_picture
from srquant.images.samples import LOW_RESOLUTION
from srquant.model import Model
from srquant.networks.modules import pad_to_size
from srquant.support.errors import ExportError, SaturationWarning
from srquant.support.files import replacing
from srquant.support.tensors import planes

LEAST_AGREEMENT = 45.0
"""PSNR in dB between engine and model below which a file is not called good."""
_PATCH = 64
"""Height and width of the test patch where the file takes any size."""


@dataclass(frozen=True)
class Agreement:
    """What was exported, how it was checked, and what it is good for.

    Args:
        engine: That ran it, with its version.
        range: Of the weights: ``full`` or ``reduced``.
        saturates: Whether the file's products can leave 16 bits.
        tried: PSNR in dB between the engine's output and the model's on a test patch, images in [0, 1], of each range
            that was tried; infinite if equal.
    """

    engine: str
    range: Range
    saturates: bool
    tried: Mapping[Range, float]

    @property
    def psnr(self) -> float:
        """Of what was written, in dB."""
        return self.tried[self.range]

    @property
    def good_for(self) -> str:
        """The processors on which the file's products cannot saturate, in words."""
        return "processors with VNNI or AMX" if self.saturates else "any processor"


def export_onnx(
    model: Model, path: Path, settings: ExportSettings, engine: str = "openvino", threads: int | None = None
) -> Agreement:
    """Write a quantized model as ONNX, run it, and keep it if it does what the model does; all or nothing.

    With ``range="auto"`` weights keep their full range where the engine's products do not saturate on this processor,
    or the model's cannot. Else both ranges are tried: the reduced one is kept if it agrees with the model, because it
    is right for every picture, and otherwise the full one, if that agrees.

    Args:
        model: Quantized, on integers.
        path: An ``.onnx`` file.
        settings: How to write it.
        engine: Where to run it.
        threads: For running it; all cores if None.

    Raises:
        ExportError: The engine's output is less than 45 dB from the model's.
        SrquantError: See :func:`~srquant.engines.onnx.write_onnx` and :func:`~srquant.engines.open_exported`.

    Warns:
        SaturationWarning: The file agrees on the test patch, but products of other pictures may saturate here.
    """
    require_onnx(path)
    coarser = can_saturate(model)
    saturating = coarser and saturates(engine)
    forms = _to_try(settings, saturating=saturating)
    with replacing(path) as temporary:

        def write(form: Range) -> None:
            write_onnx(model, temporary, replace(settings, range=form))

        tried: dict[Range, float] = {}
        name = engine
        for form in forms:
            write(form)
            name, tried[form] = _run(model, temporary, settings, engine, threads)
        good: list[Range] = [form for form in forms if tried[form] >= LEAST_AGREEMENT]
        if not good:
            raise ExportError(_refusal(name, tried, coarser=coarser, saturating=saturating))
        kept = good[-1]
        if kept != forms[-1]:
            write(kept)
    found = Agreement(name, kept, coarser and kept == "full", tried)
    if saturating and found.saturates:
        warnings.warn(
            f"{name} adds pairs of eight-bit products in 16 bits on this processor: {path.name} agrees with the model "
            f"on the test patch, but may not on other pictures",
            SaturationWarning,
            stacklevel=2,
        )
    return found


def _to_try(settings: ExportSettings, *, saturating: bool) -> tuple[Range, ...]:
    if settings.range != "auto":
        return (settings.range,)
    return ("full", "reduced") if saturating else ("full",)


def _run(model: Model, path: Path, settings: ExportSettings, engine: str, threads: int | None) -> tuple[str, float]:
    """The engine, and how well it agrees with the model, in dB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaturationWarning)  # that is what is measured
        exported = open_exported(path, engine, threads)
    return exported.engine, psnr_on_patch(model, exported)


def psnr_on_patch(model: Model, exported: Exported) -> float:
    """PSNR in dB between a file's output and the model's on the test patch, images in [0, 1]; infinite if equal."""
    patch = test_patch(*(exported.contract.tile or (_PATCH, _PATCH)))
    expected, found = (run(patch).cpu().clamp(0, 1).double() for run in (model, exported))
    error = float((expected - found).square().mean())
    return -10 * math.log10(error) if error else math.inf


def _refusal(engine: str, tried: Mapping[Range, float], *, coarser: bool, saturating: bool) -> str:
    """Why nothing was written, and what can be done."""
    numbers = " and ".join(f"to {psnr:.1f} dB in {form} range" for form, psnr in tried.items())
    said = (
        f"{engine} agrees with the model {numbers} on a test patch, less than {LEAST_AGREEMENT:g}; nothing was written"
    )
    if not (saturating or (coarser and "reduced" in tried)):
        return f"{said}: a fault of the engine, or of srquant"
    why = "Byte products of full range saturate on this processor"
    fewer_bits = (
        "quantize again with weights of 6 bits, whose products never saturate, and float edges "
        "(--method mse --bits 8 --weight-bits 6 --edges float)"
    )
    if not saturating:
        return f"{said}. The weights of reduced range are too coarse; take --range full, or {fewer_bits}"
    if "reduced" not in tried:
        return f"{said}. {why}; take --range auto, which tries the reduced range too"
    return f"{said}. {why}, and the weights of reduced range are too coarse; {fewer_bits}"


def test_patch(height: int, width: int) -> Tensor:
    """A piece of the embedded photograph, ``1 3 h w`` in [0, 1], mirrored where it ends."""
    picture = read_picture(LOW_RESOLUTION)
    image = planes(picture.pixels)[None, :3].float() / picture.layout.peak
    return pad_to_size(image[..., :height, :width], height, width)
