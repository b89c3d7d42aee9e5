"""What a quantized network runs on besides PyTorch's float32: ONNX files, and the engines for them.

Nothing here is imported to open or to quantize a model. Engines are the files in ``runtimes``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from srquant.engines.targets import TARGETS as TARGETS
from srquant.engines.targets import Target as Target
from srquant.engines.targets import target_named as target_named

if TYPE_CHECKING:
    from srquant.engines.exported import Exported as Exported

# Whatever needs PyTorch is imported when it is used: the command line reads the names of engines from here.


def open_exported(path: Path | str, engine: str | None = None, threads: int | None = None) -> Exported:
    """Open an exported file in an engine.

    Args:
        path: An ``.onnx`` file that srquant wrote.
        engine: A name in ``srquant.engines.TARGETS``; the first that is installed if None.
        threads: How many to use; all cores if None.

    Raises:
        ArgumentError: The number of threads is not at least 1.
        UnknownNameError: There is no such engine.
        MissingExtraError: It is not installed.
        ModelFileError: The file is damaged, was not exported by srquant, or is refused by the engine.

    Warns:
        SaturationWarning: Products of the file can leave 16 bits, in which this engine adds them on this processor.
    """
    from srquant.engines.exported import open_in
    from srquant.support.settings import Threads, check

    check("threads", threads, Threads | None)
    return open_in(target_named(engine), Path(path), threads)


def saturates(engine: str) -> bool:
    """Whether byte products that leave 16 bits saturate in an engine on this processor; tried once in a process.

    Args:
        engine: A name in ``srquant.engines.TARGETS``.

    Raises:
        UnknownNameError: There is no such engine.
        MissingExtraError: It is not installed.
    """
    from srquant.engines.saturation import products_saturate

    return products_saturate(target_named(engine).compiled)
