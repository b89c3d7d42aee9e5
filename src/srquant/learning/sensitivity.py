"""Features of layers compared by how much the layers matter. Source: OAPTQ §3.3, eq. 4–7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from srquant.learning.feature_distance import normalised_distance
from srquant.learning.losses import Outputs

Weighting = Literal["proportional", "normalised", "raw", "uniform"]


def sensitivities(spread: Mapping[str, float], kind: Weighting) -> dict[str, float]:
    """s_k of each layer, eq. 4; they sum to one.

    Args:
        spread: σ_k of each layer.
        kind: ``proportional`` σ_k/Σσ; ``normalised`` softmax of σ_k over the mean of all σ; ``raw`` softmax of σ_k (the
            largest exponent is subtracted, so that nothing overflows); ``uniform`` 1/K.
    """
    values = torch.tensor(list(spread.values()), dtype=torch.float64)
    if kind == "uniform" or not bool(values.any()):
        values = torch.ones_like(values) / len(values)
    elif kind == "proportional":
        values = values / values.sum()
    else:
        values = (values / values.mean() if kind == "normalised" else values).softmax(0)
    return {name: float(value) for name, value in zip(spread, values, strict=True)}


@dataclass(frozen=True)
class SensitivityLoss:
    """L_sen + λ·L_rec, eq. 5–7.

    ``L_sen = 1/K · Σ_k s_k · mean over samples of ‖F_k/‖F_k‖₂ − F̂_k/‖F̂_k‖₂‖₂``, ``L_rec = mean |I − Î|`` with images
    in [0, 1]; in 0…255 it would swamp L_sen.
    """

    sensitivities: Mapping[str, float]
    reconstruction: float
    parts: Sequence[str] = ("L_sen", "L_rec")

    @property
    def feature_layers(self) -> Sequence[str]:
        """The quantized layers."""
        return list(self.sensitivities)

    def __call__(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        terms = [
            weight * normalised_distance(student.features[name], teacher.features[name]).mean()
            for name, weight in self.sensitivities.items()
        ]
        rec = F.l1_loss(student.images, teacher.images)
        return {"L_sen": torch.stack(terms).sum() / len(terms), "L_rec": self.reconstruction * rec}
