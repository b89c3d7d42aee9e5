"""What a loss compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """What a network gave for a batch: images in [0, 1], and the outputs of the modules a loss asked for."""

    images: Tensor
    features: Mapping[str, Tensor]


class Loss(Protocol):
    """Compares the student's outputs with the teacher's."""

    @property
    def feature_layers(self) -> Sequence[str]:
        """Names of the modules whose outputs it compares."""
        ...

    @property
    def parts(self) -> Sequence[str]:
        """Names of what it gives."""
        ...

    def __call__(self, student: Outputs, teacher: Outputs, /) -> dict[str, Tensor]:
        """The parts whose sum is the loss, each a mean over the samples of the batch."""
        ...
