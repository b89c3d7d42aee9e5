"""Any ``nn.Module`` a user passes from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from srquant.networks.base import Alignment, Scale, State, ValueRange
from srquant.networks.undescribed import UndescribedNetwork
from srquant.support.errors import ArgumentError, NetworkError
from srquant.support.settings import Checked


@dataclass(frozen=True)
class CustomConfig(Checked):
    """What a user says of the module."""

    scale: Scale
    value_range: ValueRange = 1.0
    alignment: Alignment = 1


class CustomNetwork(UndescribedNetwork):
    """A user's module behind the common face. A file of it can only be opened together with the module.

    Args:
        module: ``n 3 h w`` to ``n 3 scale·h scale·w``, any size.
        config: Scale, value range, and what tile corners must be multiples of.

    Raises:
        ArgumentError: The module does not enlarge an RGB image by the scale.
    """

    name = "custom"
    Config = CustomConfig

    def __init__(self, module: nn.Module, config: CustomConfig) -> None:
        super().__init__()
        self.network = module
        self.config = config
        self.scale = config.scale
        self.value_range = config.value_range
        self.alignment = config.alignment
        self.eval()
        if next(self.parameters(), None) is None:
            raise ArgumentError("the network has no parameters, so there is nothing to quantize")
        size = 8 * config.alignment
        try:
            with torch.no_grad():
                shape = tuple(self(torch.zeros(1, 3, size, size)).shape)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ArgumentError(f"the network cannot run on an RGB image of {size}x{size}: {reason}") from error
        if shape != (1, 3, config.scale * size, config.scale * size):
            raise ArgumentError(
                f"scale={config.scale}: the network turns 1x3x{size}x{size} into {'x'.join(map(str, shape))}"
            )

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    @classmethod
    def read(cls, state: State, value_range: float | None) -> tuple[Any, State] | None:
        return None

    @classmethod
    def build(cls, config: CustomConfig, state: Mapping[str, Tensor]) -> Self:
        raise NetworkError("a network passed from Python is not in the file; pass it again: load(path, network=...)")
