"""How methods compare the student's images with photographs, and its features with the float network's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from srquant.learning.comparison import Join
from srquant.learning.losses import Outputs

_PEAK = 255.0


@dataclass(frozen=True)
class PixelsAndMap:
    """``mean |I − Î|`` of images in 0…255, and ``w · mean (A(F) − A(F̂))²``, where A(F) of a feature map F is the mean
    over its channels of F², divided by its length over all pixels.

    Source: Li et al., PAMS, ECCV 2020, section 3.3 (structured knowledge transfer), as released.

    Args:
        layer: The module whose input F is; None compares pixels alone.
        weight: w.
    """

    layer: str | None = None
    weight: float = 1000.0
    feature_layers: Sequence[str] = ()
    join: Join | None = None

    @property
    def parts(self) -> Sequence[str]:
        return ("pixels",) if self.layer is None else ("pixels", "map")

    @property
    def input_layers(self) -> Sequence[str]:
        return () if self.layer is None else (self.layer,)

    @property
    def teacher(self) -> bool:
        return self.layer is not None

    def __call__(self, student: Outputs, truth: Outputs) -> dict[str, Tensor]:
        found = {"pixels": _PEAK * F.l1_loss(student.images, truth.images.to(student.images.device))}
        if self.layer is not None:
            near, far = (attention_map(outputs.inputs[self.layer]) for outputs in (student, truth))
            found["map"] = self.weight * F.mse_loss(near, far)
        return found


def attention_map(features: Tensor) -> Tensor:
    """Where a feature map is strong: ``n c …`` to ``n pixels``, each row of length one."""
    return F.normalize(features.float().square().mean(1).flatten(1), dim=1)
