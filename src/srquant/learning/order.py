"""Which stage each step of a run learns, and along what its rate falls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from srquant.learning.draws import Drawn


@dataclass(frozen=True)
class Turn:
    """What a step is.

    Args:
        stage: Number of the stage that it learns.
        epoch: How many epochs have made its rate fall, where a rate falls from epoch to epoch.
        done: Part of the steps along which its rate falls, where it falls from step to step; 0 to 1.
    """

    stage: int
    epoch: int
    done: float


Order = Callable[[int, Drawn, int], Turn]
"""What a step is, by its number (the first being 0), the draws of the run, and how many stages there are."""


def alternating(step: int, draws: Drawn, stages: int) -> Turn:
    """Stages take turns, epoch by epoch; one rate falls over all of them. Source: OAPTQ algorithm 1."""
    epoch = step // draws.batches
    return Turn(epoch % stages, epoch, step / draws.total)


def alternating_apart(step: int, draws: Drawn, stages: int) -> Turn:
    """Stages take turns, epoch by epoch; each has a rate of its own, which falls in its own epochs only.

    Source: AdaBM's released code, where each stage has an optimiser and a schedule.
    """
    epoch, batch = divmod(step, draws.batches)
    own, stage = divmod(epoch, stages)
    epochs = -(-draws.total // draws.batches)
    steps = len(range(stage, epochs, stages)) * draws.batches
    return Turn(stage, own, (own * draws.batches + batch) / steps)


def one_after_the_other(step: int, draws: Drawn, stages: int) -> Turn:
    """Each stage has an equal part of the steps, and a rate of its own over that part.

    Source: PTQ4SR, pixel-aware calibration.
    """
    length = -(-draws.total // stages)
    stage, own = divmod(step, length)
    return Turn(stage, own // draws.batches, own / min(length, draws.total - stage * length))


def once_each(*epochs: int) -> Order:
    """Each stage but the last has some epochs at the start; the last has the rest. One rate falls over all of them.

    Source: the releases of PAMS and DDTB.

    Args:
        epochs: Of each stage but the last.
    """

    def order(step: int, draws: Drawn, stages: int) -> Turn:
        epoch = step // draws.batches
        stage = sum(epoch >= end for end in accumulate(epochs))
        return Turn(min(stage, stages - 1), epoch, step / draws.total)

    return order
