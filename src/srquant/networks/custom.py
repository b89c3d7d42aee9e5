"""Any ``nn.Module`` a user passes from Python."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from srquant.networks.base import Alignment, Scale, State, ValueRange
from srquant.networks.luma import enlarge_bicubic, enlarge_on_luma
from srquant.networks.sizes import RunsNowhereError, Sizes, find_sizes
from srquant.networks.undescribed import UndescribedNetwork
from srquant.support.errors import ArgumentError, NetworkError
from srquant.support.settings import Checked


@dataclass(frozen=True)
class CustomConfig(Checked):
    """What a user says of the module."""

    scale: Scale
    value_range: ValueRange = 1.0
    alignment: Alignment = 1


def plain_module(module: object) -> nn.Module:
    """The network that somebody passed, out of ``torch.compile`` or ``DataParallel``.

    Raises:
        ArgumentError: It is no module whose layers can be replaced, or its forward pass takes more than an image.
    """
    while isinstance(inner := getattr(module, "_orig_mod", None) or getattr(module, "module", None), nn.Module):
        module = inner
    if not isinstance(module, nn.Module):
        raise ArgumentError(f"the network is a {type(module).__name__}; pass an nn.Module")
    if isinstance(module, torch.jit.ScriptModule):
        raise ArgumentError(
            "the network is TorchScript, whose layers cannot be replaced; pass the nn.Module that it was made from"
        )
    needed = [
        name
        for name, parameter in list(inspect.signature(module.forward).parameters.items())[1:]
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if needed:
        raise ArgumentError(
            f"the network's forward pass takes more than an image: {', '.join(needed)}; wrap it in a module whose "
            f"forward passes them"
        )
    return module


class CustomNetwork(UndescribedNetwork):
    """A user's module behind the common face. A file of it can only be opened together with the module.

    Args:
        module: ``n c h w`` to ``n c scale·h scale·w``; see :func:`plain_module`. c is 3 (RGB), or 1: then it is run on
            luma, see :func:`~srquant.networks.luma.enlarge_on_luma`. If its output is as large as its input though the
            scale is above 1, it is given images that are enlarged bicubically, as SRCNN and VDSR are. Images are padded
            to sizes that it takes.
        config: Scale, value range, and what tile corners must be multiples of.

    Raises:
        ArgumentError: The module enlarges neither an RGB image nor one of one channel by the scale, or takes images of
            one size alone.
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
        try:
            self.sizes, enlarged = self._try(3)
            self.on_luma = False
        except RunsNowhereError as nowhere:
            try:
                self.sizes, enlarged = self._try(1)
            except RunsNowhereError:
                raise nowhere from None
            self.on_luma = True
        self.on_enlarged = not enlarged

    def enlarge(self, images: Tensor) -> Tensor:
        if self.on_luma:
            return enlarge_on_luma(self._run, images, self.scale, self.value_range)
        return self._run(images)

    def _run(self, images: Tensor) -> Tensor:
        if self.on_enlarged:
            return self.sizes.run(self.network, enlarge_bicubic(images, self.scale), 1)
        return self.sizes.run(self.network, images, self.scale)

    def _try(self, channels: int) -> tuple[Sizes, bool]:
        """The sizes that the module takes, and whether it is the module that enlarges."""
        sizes = find_sizes(lambda height, width: self._output(channels, height, width), self.alignment)
        size = max(sizes.smallest, 8 * self.alignment)
        shape = tuple(self._output(channels, size, size).shape)
        if shape == (1, channels, self.scale * size, self.scale * size):
            return sizes, True
        if shape != (1, channels, size, size):
            turned = "x".join(map(str, shape))
            raise ArgumentError(f"scale={self.scale}: the network turns 1x{channels}x{size}x{size} into {turned}")
        return sizes, False

    def _output(self, channels: int, height: int, width: int) -> Tensor:
        weights = next(self.parameters())
        with torch.no_grad():
            output: object = self.network(weights.new_zeros(1, channels, height, width))
        if isinstance(output, Tensor):
            return output
        several = f" of {len(cast(Sized, output))}" if isinstance(output, list | tuple | dict) else ""
        raise ArgumentError(
            f"the network gives a {type(cast(object, output)).__name__}{several} instead of one image; wrap it in a "
            f"module that returns the image"
        )

    @classmethod
    def read(cls, state: State, value_range: float | None) -> tuple[Any, State] | None:
        return None

    @classmethod
    def build(cls, config: CustomConfig, state: Mapping[str, Tensor]) -> Self:
        raise NetworkError("a network passed from Python is not in the file; pass it again: load(path, network=...)")
