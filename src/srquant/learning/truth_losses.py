"""How methods compare the student's images with photographs, and its features with the float network's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from srquant.learning.comparison import Join
from srquant.learning.losses import Outputs
from srquant.support.tensors import vector_norm

_PEAK = 255.0
_TINY = 1e-30


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


@dataclass(frozen=True)
class PixelsAndMismatch:
    """``L = mean |I − Î|`` of images in 0…255, and ``λ·M``, where M is the mismatch ``Σ ‖X − q(X)‖₂`` of activations X
    with what their quantizers make of them, over all quantizers; of each image, and the mean over images.

    The gradient is ``∇L + (cos(∇L, ∇M) + 1)/2 · λ·∇M``: as much of the mismatch's as agrees with that of the images.

    Source: Hong and Lee, ODM, ECCV 2024.

    Args:
        quantizers: Names of the modules.
        weight: λ.
        peak: Largest value of images in the network; M counts as it would in 0…255.
    """

    quantizers: Sequence[str]
    weight: float
    peak: float
    parts: Sequence[str] = ("pixels", "mismatch")
    teacher: bool = False

    @property
    def feature_layers(self) -> Sequence[str]:
        return self.quantizers

    @property
    def input_layers(self) -> Sequence[str]:
        return self.quantizers

    @property
    def join(self) -> Join:
        return agreeing

    def __call__(self, student: Outputs, truth: Outputs) -> dict[str, Tensor]:
        pixels = _PEAK * F.l1_loss(student.images, truth.images.to(student.images.device))
        images = len(student.images)
        distances = [
            vector_norm((student.inputs[name] - student.features[name]).reshape(images, -1), (1,)).mean()
            for name in self.quantizers
        ]
        return {"pixels": pixels, "mismatch": self.weight * _PEAK / self.peak * torch.stack(distances).sum()}


def agreeing(gradients: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
    """The gradient of the first part, and of that of the second as much as points the same way:
    ``a + (cos(a, b) + 1)/2 · b``, the cosine over all parameters together.
    """
    first, second = gradients.values()
    pairs = list(zip(first, second, strict=True))
    inner, one, other = (
        torch.stack([(a * b).sum() for a, b in each]).sum()
        for each in (pairs, [(a, a) for a in first], [(b, b) for b in second])
    )
    cosine = inner / (one * other).sqrt().clamp(min=_TINY)
    return [a + (cosine + 1) / 2 * b for a, b in pairs]
