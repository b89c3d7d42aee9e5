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
    from srquant import bench as bench
    from srquant.api import configure as configure
    from srquant.api import evaluate as evaluate
    from srquant.api import export as export
    from srquant.api import quantize as quantize
    from srquant.api import register as register
    from srquant.api import upscale as upscale
    from srquant.engines import Target as Target
    from srquant.engines import open_exported as open_exported
    from srquant.engines.exported import Exported as Exported
    from srquant.fetching.fetching import fetch as fetch
    from srquant.images.calibration import Calibration as Calibration
    from srquant.images.evaluation import Scores as Scores
    from srquant.learning.photographs import Photographs as Photographs
    from srquant.methods import DAQ as DAQ
    from srquant.methods import DDTB as DDTB
    from srquant.methods import DOBI as DOBI
    from srquant.methods import MSE as MSE
    from srquant.methods import OAPTQ as OAPTQ
    from srquant.methods import ODM as ODM
    from srquant.methods import PAMS as PAMS
    from srquant.methods import PLQ as PLQ
    from srquant.methods import PTQ4SR as PTQ4SR
    from srquant.methods import AdaBM as AdaBM
    from srquant.methods import Method as Method
    from srquant.methods import MinMax as MinMax
    from srquant.methods import Percentile as Percentile
    from srquant.methods import SRQuant as SRQuant
    from srquant.methods import TwoDQuant as TwoDQuant
    from srquant.methods import describe_methods as methods  # pyright: ignore[reportUnusedImport] # noqa: F401
    from srquant.model import Model as Model
    from srquant.model import load as load
    from srquant.networks import SRNetwork as SRNetwork
    from srquant.pages import compare as compare
    from srquant.pages import report as report
    from srquant.quantizers import Quantizer as Quantizer
    from srquant.quantizers.ranges import UniformRange as UniformRange
    from srquant.support.errors import SrquantError as SrquantError
    from srquant.support.versions import __version__ as __version__

_HOMES = {
    "srquant.api": ("configure", "evaluate", "export", "quantize", "register", "upscale"),
    "srquant.engines": ("Target", "open_exported"),
    "srquant.engines.exported": ("Exported",),
    "srquant.fetching.fetching": ("fetch",),
    "srquant.images.calibration": ("Calibration",),
    "srquant.images.evaluation": ("Scores",),
    "srquant.learning.photographs": ("Photographs",),
    "srquant.methods": (
        "DAQ",
        "DDTB",
        "DOBI",
        "MSE",
        "OAPTQ",
        "ODM",
        "PAMS",
        "PLQ",
        "PTQ4SR",
        "Method",
        "MinMax",
        "Percentile",
        "SRQuant",
        "TwoDQuant",
    ),
    "srquant.model": ("Model", "load"),
    "srquant.networks": ("SRNetwork",),
    "srquant.pages": ("compare", "report"),
    "srquant.quantizers": ("Quantizer",),
    "srquant.quantizers.ranges": ("UniformRange",),
    "srquant.support.errors": ("SrquantError",),
    "srquant.support.versions": ("__version__",),
}
_FOLDERS = ("bench", "methods")
"""Names that are folders; ``methods`` can be called."""
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _FOLDERS:
        return import_module(f"srquant.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name[:1].isupper():
        # Registered methods, and those of files that were added to the folder, are found under their class's name.
        for kind in import_module("srquant.methods").METHODS.values():
            if kind.__name__ == name:
                return kind
    raise AttributeError(f"module 'srquant' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_FOLDERS})
