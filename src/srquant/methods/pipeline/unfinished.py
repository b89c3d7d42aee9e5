"""Where a method that learns keeps its run until it ends."""

from __future__ import annotations

from pathlib import Path

from srquant.learning.finetuning import Unfinished
from srquant.learning.settings import LearningSettings
from srquant.methods.base import Method
from srquant.model import Model
from srquant.support.settings import to_json


def unfinished(path: Path | str | None, method: Method, learning: LearningSettings, model: Model) -> Unfinished | None:
    """What says whose the run is.

    Args:
        path: Of the file of the state; None keeps nothing.
        method: Whose whole configuration decides the result.
        learning: Its field ``finetuning``.
        model: The float model.
    """
    if path is None:
        return None
    settings = to_json(method) | {"finetuning": to_json(learning.deciding())}
    return Unfinished(Path(path), method.name, model.source, settings)
