"""Where a method that learns keeps its run until the result is safe."""

from __future__ import annotations

from pathlib import Path

from srquant.learning.finetuning import Unfinished
from srquant.learning.settings import LearningSettings
from srquant.methods.base import Method
from srquant.model import Model
from srquant.support.settings import to_json


def unfinished(
    path: Path | str | None, method: Method, learning: LearningSettings | None, model: Model
) -> Unfinished | None:
    """What says whose the run is.

    Args:
        path: Of the file of the state; None keeps nothing.
        method: Whose whole configuration decides the result.
        learning: Its field ``finetuning``, if it has one.
        model: The float model.
    """
    if path is None:
        return None
    settings = to_json(method) | ({} if learning is None else {"finetuning": to_json(learning.deciding())})
    return Unfinished(Path(path), method.name, model.source, settings)


def remove_state(path: Path, method: Method, model: Model) -> None:
    """Remove the state of a run whose result is safe. Any other file of that name is left alone.

    Args:
        path: Of the file, if there is one.
        method: Whose run it was; one that does not learn has none.
        model: The float model.
    """
    learning = getattr(method, "finetuning", None)
    run = unfinished(path, method, learning, model)
    if run is not None:
        run.remove()
