"""How long and in which steps to learn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from srquant.support.settings import Checked, Former, Seed

Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Minutes = Annotated[float, Field(gt=0, le=1_000_000)]


@dataclass(frozen=True)
class LearningSettings(Checked):
    """How long and in which steps to learn. The defaults are OAPTQ's (§4.1)."""

    former: ClassVar[Former] = {"chunk": ("micro_batch", {})}

    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = 10
    """Passes over the calibration patches; None leaves it to ``steps`` or to the method."""
    steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Instead of ``epochs``: batches to learn from, all of them full; where one pass ends within a batch, the next
    begins. An epoch of the curve is then a thirtieth of the steps."""
    batch: Annotated[int, Field(ge=1, le=10_000)] = 2
    micro_batch: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Patches of a batch that go through the networks together, where all of them take too much memory; the gradients
    of micro-batches are added up. None takes the batch at once."""
    rate: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate of Adam at the start."""
    schedule: Literal["exponential", "cosine", "constant"] = "exponential"
    """``exponential`` multiplies the rate by ``decay`` after each epoch; ``cosine`` takes it smoothly to ``end``."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    end: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of the cosine, as a part of ``rate``."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of convolutions; auto is bf16 on a GPU and float32 elsewhere."""
    seed: Seed = 0
    """Decides the order of the patches."""
    cache: Annotated[int, Field(ge=0, le=1 << 30)] | None = None
    """MiB for what the float network gives: kept for as many patches as fit, computed again for the others. A number,
    whatever it is, gives the same bytes: the float network then works on one patch at a time. None lets it work on
    the batches of the quantized one and keeps nothing."""

    def deciding(self) -> LearningSettings:
        """The same but for what changes no result, the size of the cache."""
        return self if self.cache is None else replace(self, cache=0)


@dataclass(frozen=True)
class TruthSettings(Checked):
    """How long and in which steps a quantized network learns from photographs. The defaults are PAMS's for EDSR ×4."""

    steps: Steps = 30_000
    """The budget. Epochs are equal parts of it, so that a shorter run goes through all that a long one does."""
    batch: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Crops of a step, over all processes."""
    patch: Annotated[int, Field(ge=16, le=4096)] = 48
    """Height and width of an LR crop."""
    rate: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate of Adam for weights, at the start."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    decay: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What the rates are multiplied by after every ``decay_every`` epochs."""
    decay_every: Annotated[int, Field(ge=1, le=100_000)] = 10
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    micro_batch: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Crops that go through the network together, where all of them take too much memory; the gradients of
    micro-batches are added up. None takes the batch at once."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of convolutions; auto is bf16 on a GPU and float32 elsewhere."""
    seed: Seed = 0
    """Decides the crops."""


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """How to train. The defaults suit small networks; EDSR's paper uses lr 1e-4, batch 16, LR patches of 48."""

    steps: Steps = 100_000
    batch: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Crops of a step, over all processes."""
    patch: Annotated[int, Field(ge=1, le=4096)] = 48
    """Height and width of an LR crop."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4
    """At the start; a cosine takes it to a hundredth."""
    warmup: Annotated[int, Field(ge=0, le=10_000_000)] = 500
    """Steps over which the learning rate rises linearly at the start."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the moving average of the weights, which is what is validated and kept."""
    validation: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Photographs held out of training; their PSNR is shown, never used to choose anything."""
    validation_every: Steps = 2_000
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of the forward pass; auto is bf16 on a GPU and float32 elsewhere. CPUs with AMX train faster in bf16."""
    seed: Seed = 0
    minutes: Minutes | None = None
    """The run also ends when its stretches have taken so long together; the learning rate then falls with the clock.
    Such a run does not repeat bit by bit."""
