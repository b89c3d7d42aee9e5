"""Post-training quantization for image super-resolution networks.

>>> import srquant
>>> model = srquant.load("edsr_x4.pth")
>>> patches = srquant.Calibration.from_photographs("photos/", model.scale)
>>> small = srquant.quantize(model, patches, srquant.configure("plq", bits=4))
>>> small.save("edsr_x4_w4a4.safetensors")

The names are imported when they are first used: opening a saved model imports no method.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srquant.api import configure as configure
    from srquant.api import evaluate as evaluate
    from srquant.api import export as export
    from srquant.api import quantize as quantize
    from srquant.api import upscale as upscale
    from srquant.engines import open_exported as open_exported
    from srquant.images.calibration import Calibration as Calibration
    from srquant.model import Model as Model
    from srquant.model import load as load
    from srquant.support.errors import SrquantError as SrquantError

_HOMES = {
    "configure": "srquant.api",
    "evaluate": "srquant.api",
    "export": "srquant.api",
    "open_exported": "srquant.engines",
    "quantize": "srquant.api",
    "upscale": "srquant.api",
    "SrquantError": "srquant.support.errors",
    "Calibration": "srquant.images.calibration",
    "Model": "srquant.model",
    "load": "srquant.model",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'srquant' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
