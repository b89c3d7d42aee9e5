"""What a loss compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from srquant.learning.feature_distance import normalised_distance

_TINY = 1e-8
"""Under a root, whose slope at zero has no end."""


@dataclass(frozen=True)
class Outputs:
    """What a network gave for a batch: images in [0, 1], and the outputs and inputs of the modules a loss asked for.

    ``bits`` are the mean bits of the activations of each image, ``(n,)``, where they follow the image.
    """

    images: Tensor
    features: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    bits: Tensor | None = None


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


@dataclass(frozen=True)
class OutputAndFeatures:
    """``mean over patches of √mean (I − Î)² + w · mean over feature layers of ‖F/‖F‖₂ − F̂/‖F̂‖₂‖₂``, images in [0, 1].

    Source: ours. A root for each patch: its slope is as steep for a patch of small error as for one of large error.
    """

    feature_layers: Sequence[str]
    features: float
    parts: Sequence[str] = ("output", "features")

    def __call__(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        squares = (student.images - teacher.images).square().mean((1, 2, 3))
        output = (squares + _TINY).sqrt().mean()
        distances = [
            normalised_distance(student.features[name], teacher.features[name]).mean() for name in self.feature_layers
        ]
        features = torch.stack(distances).mean() if distances else torch.zeros_like(output)
        return {"output": output, "features": self.features * features}
