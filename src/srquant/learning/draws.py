"""Which patches are learned from, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from srquant.learning.settings import LearningSettings
from srquant.support.errors import ArgumentError

_ROWS = 30
"""Of the curve, where the length of a run is given in steps."""


class Drawn(Protocol):
    """Which patches each step learns from; it depends on the settings and the number of the step alone."""

    @property
    def batches(self) -> int:
        """Steps of an epoch."""
        ...

    @property
    def total(self) -> int:
        """Steps of the run."""
        ...

    def __call__(self, step: int, /) -> Sequence[int]:
        """Numbers of the patches of a step, the first being 0."""
        ...


class Draws:
    """Which patches each step draws: it depends on the settings and the number of the step alone.

    Args:
        count: How many patches there are.
        settings: Say how many steps of how many patches.

    Raises:
        ArgumentError: They say neither epochs nor steps.
    """

    def __init__(self, count: int, settings: LearningSettings) -> None:
        if settings.steps is None and settings.epochs is None:
            raise ArgumentError("finetuning: how long to learn is not said; give epochs or steps")
        self._count, self._settings = count, settings
        self.batches = -(-count // settings.batch)
        """Steps of an epoch."""
        self.total = (settings.epochs or 0) * self.batches
        """Steps of the run."""
        if settings.steps is not None:
            self.batches, self.total = -(-settings.steps // _ROWS), settings.steps

    def __call__(self, step: int) -> list[int]:
        """Numbers of the patches of a step, the first being 0."""
        count, size = self._count, self._settings.batch
        first = step * size
        if self._settings.steps is None:
            epoch, batch = divmod(step, self.batches)
            return self._order(epoch)[batch * size : (batch + 1) * size]
        passes = range(first // count, (first + size - 1) // count + 1)
        drawn = [index for number in passes for index in self._order(number)]
        return drawn[first % count : first % count + size]

    def _order(self, number: int) -> list[int]:
        """Of the patches in one pass over them."""
        order = np.random.default_rng((self._settings.seed, number)).permutation(self._count)
        return [int(index) for index in order]
