"""Images, features and bits of a network whose bits are learned. Source: AdaBM §3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from srquant.learning.feature_distance import normalised_distance
from srquant.learning.losses import Outputs
from srquant.support.tensors import vector_norm


@dataclass(frozen=True)
class BitMappingLoss:
    """``L_pix + w · L_skt + v · L_bit``.

    ``L_pix = mean |O − Ô|`` with images in 0…255; ``L_skt`` the mean over blocks and samples of ``‖F/‖F‖₂ − F̂/‖F̂‖₂‖₂``;
    ``L_bit = max(mean bits − target, 0)``, which has a gradient for what decides bits and for nothing else. Its mean is
    over the patches that go through the network together: of a batch that is divided, each part counts for itself.

    Args:
        feature_layers: Modules whose outputs are compared; without any L_skt is zero.
        target: Mean bits from which on L_bit is above zero.
        features: w.
        excess: v.
        as_released: Whether L_skt is that of the released code.
    """

    feature_layers: Sequence[str]
    target: int
    features: float = 10.0
    excess: float = 50.0
    as_released: bool = False
    parts: Sequence[str] = ("L_pix", "L_skt", "L_bit")

    def __call__(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        pixels = 255 * F.l1_loss(student.images, teacher.images)
        distance = _as_released if self.as_released else normalised_distance
        terms = [
            distance(student.features[name], teacher.features[name]).mean().float() for name in self.feature_layers
        ]
        features = torch.stack(terms).mean() if terms else torch.zeros_like(pixels)
        bits = torch.zeros_like(pixels) if student.bits is None else (student.bits.mean() - self.target).clamp(min=0)
        return {"L_pix": pixels, "L_skt": self.features * features, "L_bit": self.excess * bits}


def _as_released(student: Tensor, teacher: Tensor) -> Tensor:
    """Of features divided by the norm of all of them, the distance of each sample, divided by how many there are."""
    near, far = (x / vector_norm(x, tuple(range(x.ndim))) for x in (student, teacher))
    return vector_norm(near - far, tuple(range(1, near.ndim))) / len(near)
