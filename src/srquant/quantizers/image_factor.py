"""How many bits more or fewer an image gets."""

from __future__ import annotations

from threading import get_ident
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srquant.quantizers.base import NARROWEST
from srquant.support.errors import ArgumentError

_LUMA = (0.299, 0.587, 0.114)


class ImageFactor(nn.Module):
    """−1 for images of little detail, 1 for those of much, 0 for those between.

    With g the mean slope of an image (:func:`mean_slope`): −1 where g < lower, 1 where g > upper. The gradient is that
    of ``tanh((g − (upper + lower)/2) · 2/(upper − lower))``, which goes to the two thresholds.

    It hangs at a network's input (:meth:`hang`): when a pass begins it looks at the batch, and until the pass ends
    :attr:`factors` holds a number for each image. Quantizers that follow the image (``Quantizer.follows_image``) were
    given this object when they were made, and read them there. Nobody else needs to know. Each thread that runs the
    network has factors of its own, and a copy of the network has none.

    Source: AdaBM §3, its image-to-bit mapping; its released code for the filter, the unit and the gradient.

    Args:
        lower: Threshold, in the unit of :func:`mean_slope`.
        upper: Threshold.
        value_range: Largest value of the network's images.
    """

    name: ClassVar[str] = "sobel"
    """Of the kind, in files."""

    def __init__(self, lower: Tensor, upper: Tensor, value_range: float = 1.0) -> None:
        super().__init__()
        if lower.ndim or upper.ndim or not value_range > 0:
            raise ArgumentError("thresholds of images are two numbers, and their largest value is above 0")
        self.value_range = value_range
        self.lower = nn.Parameter(lower.detach().clone())
        self.upper = nn.Parameter(upper.detach().clone())
        self._factors: dict[int, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Of ``n 3 h w`` in [0, value_range], a factor each: ``(n,)``."""
        slope = mean_slope(images / self.value_range)
        hard = (slope > self.upper).to(slope.dtype) - (slope < self.lower).to(slope.dtype)
        if not self.upper.requires_grad:
            return hard
        width = self.upper - self.lower
        soft = torch.tanh((slope - (self.upper + self.lower) / 2) * 2 / width)
        return soft - soft.detach() + hard

    def constrain(self) -> None:
        """Put thresholds that passed each other in order, in place; called without gradients."""
        self.lower.clamp_(min=0)
        self.upper.copy_(torch.maximum(self.upper, self.lower + NARROWEST * self.lower.clamp(min=1)))

    @property
    def factors(self) -> Tensor | None:
        """Of the images that this thread's pass is about; None outside a pass."""
        return self._factors.get(get_ident())

    def hang(self, network: nn.Module) -> None:
        """Look at all that a network is given from now on. It becomes the network's ``image_factor``."""
        network.add_module("image_factor", self)
        network.register_forward_pre_hook(self._look)
        network.register_forward_hook(self._look_away, always_call=True)

    def arguments(self) -> dict[str, Any]:
        """What :meth:`__init__` takes besides the thresholds, as JSON values."""
        return {"value_range": self.value_range}

    def _look(self, _network: nn.Module, given: tuple[Any, ...]) -> None:
        self._factors[get_ident()] = self(given[0])

    def _look_away(self, _network: nn.Module, _given: tuple[Any, ...], _output: object) -> None:
        self._factors.pop(get_ident(), None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_factors": {}}


def mean_slope(images: Tensor) -> Tensor:
    """1000 times the mean magnitude of both Sobel derivatives of the luma: ``n 3 h w`` in [0, 1] to ``(n,)``.

    Borders are repeated. The filter is (−1, 0, 1) along one axis and (1, 2, 1) along the other, divided by 8.
    """
    values = images if images.dtype == torch.float64 else images.float()
    weights = torch.tensor(_LUMA, dtype=values.dtype, device=values.device)[:, None, None]
    luma = F.pad((values * weights).sum(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across, down = luma[..., 2:] - luma[..., :-2], luma[..., 2:, :] - luma[..., :-2, :]
    slopes = _smoothed(across, -2), _smoothed(down, -1)
    return cast(Tensor, sum(slope.abs().mean((1, 2, 3)) for slope in slopes)) * (1000 / 2)


def _smoothed(values: Tensor, axis: int) -> Tensor:
    length = values.shape[axis] - 2
    before, here, after = (values.narrow(axis, start, length) for start in range(3))
    return (before + 2 * here + after) / 8
