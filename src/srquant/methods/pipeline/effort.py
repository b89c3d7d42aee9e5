"""How long to learn."""

from __future__ import annotations

from typing import Literal

Effort = Literal["none", "quick", "standard", "thorough"]

_STEPS: dict[Effort, int] = {"none": 0, "quick": 200, "standard": 1_600, "thorough": 4_000}
"""At most."""
_MULTIPLY_ADDS: dict[Effort, float] = {"none": 0.0, "quick": 1e12, "standard": 8e12, "thorough": 40e12}
"""Of the float network in all steps together, at most: a large network takes fewer steps, not hours."""
_FEWEST = 40


def steps_of(effort: Effort, multiply_adds: float, pixels: int) -> int:
    """How many steps an effort is.

    Args:
        effort: Its name.
        multiply_adds: Of the float network, per LR pixel.
        pixels: LR pixels of a step.
    """
    if not _STEPS[effort]:
        return 0
    affordable = _MULTIPLY_ADDS[effort] / (multiply_adds * pixels)
    return max(min(_STEPS[effort], int(affordable)), _FEWEST)
