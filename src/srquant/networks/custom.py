"""Any ``nn.Module`` a user passes from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from srquant.networks.base import Alignment, Scale, State, ValueRange
from srquant.networks.luma import enlarge_bicubic, enlarge_on_luma
from srquant.networks.undescribed import UndescribedNetwork
from srquant.support.errors import ArgumentError, NetworkError
from srquant.support.settings import Checked

_FAULTS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What a module meets in images that it does not take."""


@dataclass(frozen=True)
class CustomConfig(Checked):
    """What a user says of the module."""

    scale: Scale
    value_range: ValueRange = 1.0
    alignment: Alignment = 1


class CustomNetwork(UndescribedNetwork):
    """A user's module behind the common face. A file of it can only be opened together with the module.

    Args:
        module: ``n c h w`` to ``n c scale·h scale·w``, any size. c is 3 (RGB), or 1: then it is run on luma, see
            :func:`~srquant.networks.luma.enlarge_on_luma`. If its output is as large as its input though the scale is
            above 1, it is given images that are enlarged bicubically, as SRCNN and VDSR are.
        config: Scale, value range, and what tile corners must be multiples of.

    Raises:
        ArgumentError: The module enlarges neither an RGB image nor one of one channel by the scale.
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
        self.on_luma, self.on_enlarged = self._probe(8 * config.alignment)

    def forward(self, images: Tensor) -> Tensor:
        if self.on_luma:
            return enlarge_on_luma(self._run, images, self.scale, self.value_range)
        return self._run(images)

    def _run(self, images: Tensor) -> Tensor:
        return self.network(enlarge_bicubic(images, self.scale) if self.on_enlarged else images)

    def _probe(self, size: int) -> tuple[bool, bool]:
        """Whether the module takes luma, and whether it takes images that are enlarged already."""
        fault: Exception | None = None
        for channels in (3, 1):
            try:
                shape = self._output(channels, size)
            except _FAULTS as error:
                fault = fault or error
                continue
            if fault is not None and shape[:2] != (1, 1):
                break
            if shape == (1, channels, size, size):
                return channels == 1, self.scale > 1
            if shape != (1, channels, self.scale * size, self.scale * size):
                raise ArgumentError(
                    f"scale={self.scale}: the network turns 1x{channels}x{size}x{size} into {'x'.join(map(str, shape))}"
                )
            return channels == 1, False
        reason = (str(fault).splitlines() or [""])[0]
        raise ArgumentError(f"the network cannot run on an RGB image of {size}x{size}: {reason}") from fault

    def _output(self, channels: int, size: int) -> tuple[int, ...]:
        with torch.no_grad():
            return tuple(self.network(torch.zeros(1, channels, size, size)).shape)

    @classmethod
    def read(cls, state: State, value_range: float | None) -> tuple[Any, State] | None:
        return None

    @classmethod
    def build(cls, config: CustomConfig, state: Mapping[str, Tensor]) -> Self:
        raise NetworkError("a network passed from Python is not in the file; pass it again: load(path, network=...)")
