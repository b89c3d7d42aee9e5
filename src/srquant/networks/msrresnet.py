"""MSRResNet, BasicSR's modified SRResNet: no normalisation, and a bilinear enlargement that the network corrects."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from srquant.networks.base import Channels, Count, Edges, Scale, SRNetwork, State, ValueRange, count_blocks
from srquant.networks.modules import conv
from srquant.support.settings import Checked


@dataclass(frozen=True)
class MSRResNetConfig(Checked):
    """Hyper-parameters; the defaults are BasicSR's."""

    scale: Scale = 4
    channels: Channels = 64
    blocks: Count = 16
    value_range: ValueRange = 1.0


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.relu = nn.ReLU()
        self.conv2 = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.relu(self.conv1(x)))


class MSRResNet(SRNetwork):
    """MSRResNet with BasicSR's keys (``conv_first``, ``body.N.conv1``, ``upconv1``, ``conv_hr``, ``conv_last``)."""

    name = "msrresnet"
    Config = MSRResNetConfig

    def __init__(self, config: MSRResNetConfig) -> None:
        super().__init__(config)
        channels = config.channels
        self.conv_first = conv(3, channels)
        self.body = nn.Sequential(*(_Block(channels) for _ in range(config.blocks)))
        self.factors = (2, 2) if config.scale == 4 else (config.scale,)
        for number, factor in enumerate(self.factors, start=1):
            self.add_module(f"upconv{number}", conv(channels, channels * factor * factor))
        self.shuffles = nn.ModuleList(nn.PixelShuffle(factor) for factor in self.factors)
        self.conv_hr = conv(channels, channels)
        self.conv_last = conv(channels, 3)
        self.activation = nn.LeakyReLU(0.1)
        depth = len(self.factors)
        self.receptive_field = 1 + 2 * config.blocks + math.ceil(sum(1 / 2**i for i in range(depth)) + 2 / 2**depth)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(self.activation(self.conv_first(images)))
        for number, shuffle in enumerate(self.shuffles, start=1):
            features = self.activation(shuffle(self.get_submodule(f"upconv{number}")(features)))
        base = F.interpolate(images, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return self.conv_last(self.activation(self.conv_hr(features))) + base

    @property
    def edges(self) -> Edges:
        stages = tuple(f"upconv{number}" for number in range(1, len(self.factors) + 1))
        return Edges(first=("conv_first",), upsampler=(*stages, "conv_hr"), last=("conv_last",))

    @property
    def feature_layers(self) -> tuple[str, ...]:
        return tuple(f"body.{i}" for i in range(self.config.blocks))

    @classmethod
    def read(cls, state: State, value_range: float | None) -> tuple[MSRResNetConfig, State] | None:
        if not {"conv_first.weight", "body.0.conv1.weight", "upconv1.weight", "conv_hr.weight"} <= state.keys():
            return None
        channels = state["conv_first.weight"].shape[0]
        stages = [state[k].shape[0] // channels for k in state if re.fullmatch(r"upconv\d\.weight", k)]
        config = MSRResNetConfig(
            scale=math.prod(math.isqrt(stage) for stage in stages),
            channels=channels,
            blocks=count_blocks(state, "body"),
            value_range=1.0 if value_range is None else value_range,
        )
        return config, state
