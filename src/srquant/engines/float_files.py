"""Exporting what computes in floats: float networks, and quantized ones whose activations stay float."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srquant.engines import Target
from srquant.engines.comparing import open_quietly, psnr_on_patch
from srquant.engines.onnx import write_onnx
from srquant.engines.operands import ExportSettings, Precision
from srquant.engines.written import as_written
from srquant.model import Model
from srquant.support.errors import ExportError
from srquant.support.files import replacing

_NEEDED: dict[Precision, float] = {"float32": 60.0, "float16": 40.0}
"""PSNR in dB from which on an engine may be right. Right ones agree to 132 dB and more in float32 and to 78 in float16
(EDSR, SPAN, Compact); deep networks may lose some of that, and a wrong file gives 0 to 35."""


@dataclass(frozen=True)
class FloatAgreement:
    """What was exported in floats, and how it was checked; ``str`` says so in one line.

    Args:
        engine: That ran it, with its version.
        form: What was written.
        psnr: PSNR in dB between the engine's output and the model's on test patches, images in [0, 1], the worst;
            infinite if equal. The model is the float network, or the quantized one without rounded activations.
    """

    engine: str
    form: str
    psnr: float

    def __str__(self) -> str:
        return f"{self.form}, good for any processor; {self.engine} and the model agree to {self.psnr:.1f} dB"


def export_floats(
    model: Model, path: Path, settings: ExportSettings, target: Target, threads: int | None = None
) -> FloatAgreement:
    """Write a model as ONNX, run it, and keep it if the engine computes what the model computes; all or nothing.

    Args:
        model: Float; or quantized, with ``activations="float"``.
        path: An ``.onnx`` file.
        settings: How to write it.
        target: The engine that runs it.
        threads: For running it; all cores if None.

    Raises:
        ExportError: The engine's output is too far from the model's.
        SrquantError: See :func:`~srquant.engines.onnx.write_onnx` and :func:`~srquant.engines.open_exported`.
    """
    bits = "float" if model.record is None else "weights as integers, activations float"
    form = f"{settings.precision} network" if model.record is None else bits
    with replacing(path) as temporary:
        write_onnx(model, temporary, settings)
        exported = open_quietly(temporary, target, threads, path)
        psnr = psnr_on_patch(as_written(model, "full", settings.activations), exported)
        needed = _NEEDED[settings.precision]
        if not psnr >= needed:
            way_out = {
                "float32": "export for another engine (--engine), and report it",
                "float16": "its numbers end at 65,504; take float32",
            }[settings.precision]
            raise ExportError(
                f"{exported.engine} and the model agree to {psnr:.1f} dB on test patches, less than {needed:g}, in "
                f"{settings.precision}; nothing was written: {way_out}"
            )
    return FloatAgreement(exported.engine, form, psnr)
