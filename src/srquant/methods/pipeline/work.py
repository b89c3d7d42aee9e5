"""How much a method computes, in units of the float network."""

from __future__ import annotations

from dataclasses import dataclass

from srquant.images.calibration import Calibration
from srquant.learning.settings import LearningSettings, TruthSettings

OBSERVED = 1.6
"""Float passes that one takes in which ranges are measured."""
_LEARNED = 4.5
"""Float passes that one patch takes in a step: teacher, quantized network and its gradient."""


@dataclass(frozen=True)
class Work:
    """What a method computes; sums of works are what they compute one after the other.

    Args:
        pixels: LR pixels which the float network would compute in the same time.
        at_once: LR pixels of the batches that pass through the network.
        kept: LR pixels of which the outputs of all layers are kept, for gradients.
        memory: Bytes besides.
    """

    pixels: float
    at_once: float
    kept: float = 0.0
    memory: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.pixels + other.pixels,
            max(self.at_once, other.at_once),
            max(self.kept, other.kept),
            max(self.memory, other.memory),
        )


def observing(patches: Calibration, batch: int, passes: float = OBSERVED) -> Work:
    """Of measuring ranges on all patches once."""
    pixels = patches.size**2
    return Work(passes * len(patches) * pixels, min(batch, len(patches)) * pixels)


def training(settings: TruthSettings) -> Work:
    """Of learning from photographs."""
    pixels = settings.patch**2
    at_once = min(settings.micro_batch or settings.batch, settings.batch) * pixels
    return Work(_LEARNED * settings.steps * settings.batch * pixels, at_once, at_once)


def learning(patches: Calibration, settings: LearningSettings, size: int | None = None) -> Work:
    """Of finetuning on patches, or on pieces of them of some size."""
    pixels = (patches.size if size is None else size) ** 2
    steps = settings.steps
    if steps is None:
        steps = (settings.epochs or 0) * -(-len(patches) // settings.batch)
    at_once = min(settings.micro_batch or settings.batch, settings.batch) * pixels
    return Work(_LEARNED * steps * settings.batch * pixels, at_once, at_once)
