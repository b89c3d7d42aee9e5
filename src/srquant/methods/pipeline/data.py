"""What a method is given, by what it needs."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

from srquant.images.calibration import Calibration
from srquant.methods.base import Data, Method
from srquant.support.errors import ArgumentError

_CALLED = {"patches": "LR patches", "pairs": "photographs and their LR images"}
_WAYS = {
    "patches": "a folder of LR images, Calibration.from_low_resolution(folder) or Calibration.from_photographs(…)",
    "pairs": "a folder of photographs, or Photographs.of(folder, model.scale, patch)",
}


def data_for(
    method: Method, scale: int, patches: Callable[[], Calibration] | None = None, photographs: Path | None = None
) -> Data:
    """What a method needs, of what there is: for commands and tables that run methods of both kinds.

    Args:
        method: Says what it needs.
        scale: Of the network.
        patches: Opens LR patches; called only for a method that needs them.
        photographs: A folder.

    Raises:
        ArgumentError: What the method needs is not there.
        ImageError: The folder holds no photographs, or none is large enough.
    """
    if method.needs == "pairs":
        if photographs is None:
            raise ArgumentError(
                f"{method.name} learns with ground truth: give --data, a folder of photographs; LR images are made of "
                f"them by bicubic"
            )
        return method.open(photographs, scale)
    if patches is None:
        raise ArgumentError(
            f"{method.name} is given LR patches alone: give --calibration, a folder of LR images, or --calibration-hr, "
            f"of photographs"
        )
    return patches()


def require_data(method: Method, given: object) -> Data:
    """Refuse data of another kind than a method needs.

    Raises:
        ArgumentError: They are; the message says what to pass.
    """
    holds = getattr(given, "holds", None)
    if holds != method.needs:
        found = _CALLED.get(str(holds), "neither LR patches nor photographs")
        raise ArgumentError(
            f"data={reprlib.repr(given)} is {found}, and {method.name} needs {_CALLED[method.needs]}; "
            f"pass {_WAYS[method.needs]}"
        )
    return cast(Data, given)
