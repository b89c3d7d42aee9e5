"""How the rate of learning rises and falls: factors on the rate of the settings."""

from __future__ import annotations

import math


def cosine(done: float, end: float = 0.0) -> float:
    """From 1 at the start to ``end``, along half a cosine.

    Args:
        done: Part of the run that is done, 0 to 1.
        end: The factor at the end.
    """
    return end + (1 - end) * (0.5 * (1 + math.cos(math.pi * done)))


def exponential(epoch: int, decay: float) -> float:
    """``decay`` once more after each epoch, the first being 0."""
    return decay**epoch


def warmup(step: int, steps: int) -> float:
    """Rises to 1 in equal parts over the first steps, the first being 0."""
    return min(1.0, (step + 1) / max(steps, 1))
