"""RDN (Zhang et al., CVPR 2018): residual dense blocks and global feature fusion."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srquant.networks.base import Channels, Count, Edges, Scale, SRNetwork, State, ValueRange, count_blocks
from srquant.networks.modules import conv
from srquant.support.errors import ArgumentError
from srquant.support.settings import Checked


@dataclass(frozen=True)
class RDNConfig(Checked):
    """Hyper-parameters; the defaults are the paper's larger network (D=16, C=8, G=64)."""

    scale: Scale = 4
    channels: Channels = 64
    """G0: channels between the blocks."""
    blocks: Count = 16
    """D."""
    layers: Count = 8
    """C: dense convolutions in a block."""
    growth: Channels = 64
    """G: channels each dense convolution adds."""
    value_range: ValueRange = 255.0


class _DenseConv(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(inputs, growth), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.conv(x)), 1)


class _DenseBlock(nn.Module):
    def __init__(self, config: RDNConfig) -> None:
        super().__init__()
        widths = [config.channels + config.growth * i for i in range(config.layers + 1)]
        self.convs = nn.Sequential(*(_DenseConv(width, config.growth) for width in widths[:-1]))
        self.LFF = conv(widths[-1], config.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.LFF(self.convs(x)) + x


class RDN(SRNetwork):
    """RDN with the keys of EDSR-PyTorch (``SFENet1``, ``RDBs.0.convs.0.conv.0``, ``GFF.0``, ``UPNet.0``).

    The weights do not tell the value range; 255, that of EDSR-PyTorch, is assumed unless given.
    """

    name = "rdn"
    Config = RDNConfig

    def __init__(self, config: RDNConfig) -> None:
        super().__init__(config)
        self.SFENet1 = conv(3, config.channels)
        self.SFENet2 = conv(config.channels, config.channels)
        self.RDBs = nn.ModuleList(_DenseBlock(config) for _ in range(config.blocks))
        self.GFF = nn.Sequential(
            conv(config.blocks * config.channels, config.channels, 1), conv(config.channels, config.channels)
        )
        self.UPNet = _upsampler(config)
        depth = len(self.UPNet) // 2
        above = sum(1 / 2**i for i in range(depth + 1))
        self.receptive_field = 3 + config.blocks * config.layers + math.ceil(above)

    def forward(self, images: Tensor) -> Tensor:
        first = self.SFENet1(images)
        features = self.SFENet2(first)
        outputs: list[Tensor] = []
        for block in self.RDBs:
            features = block(features)
            outputs.append(features)
        return self.UPNet(self.GFF(torch.cat(outputs, 1)) + first)

    @property
    def edges(self) -> Edges:
        stages = tuple(f"UPNet.{i}" for i in range(0, len(self.UPNet) - 1, 2))
        return Edges(first=("SFENet1", "SFENet2"), upsampler=stages, last=(f"UPNet.{len(self.UPNet) - 1}",))

    @property
    def feature_layers(self) -> tuple[str, ...]:
        return tuple(f"RDBs.{i}" for i in range(self.config.blocks))

    @classmethod
    def read(cls, state: State, value_range: float | None) -> tuple[RDNConfig, State] | None:
        if not {"SFENet1.weight", "RDBs.0.convs.0.conv.0.weight", "UPNet.0.weight"} <= state.keys():
            return None
        growth = state["RDBs.0.convs.0.conv.0.weight"].shape[0]
        stages = [state[k].shape[0] // growth for k in state if re.fullmatch(r"UPNet\.\d+\.weight", k)][:-1]
        config = RDNConfig(
            scale=math.prod(math.isqrt(stage) for stage in stages),
            channels=state["SFENet1.weight"].shape[0],
            blocks=count_blocks(state, "RDBs"),
            layers=count_blocks(state, "RDBs.0.convs"),
            growth=growth,
            value_range=255.0 if value_range is None else value_range,
        )
        return config, state


def _upsampler(config: RDNConfig) -> nn.Sequential:
    factors = {2: (2,), 3: (3,), 4: (2, 2)}.get(config.scale)
    if factors is None:
        raise ArgumentError(f"scale={config.scale}: RDN is defined for 2, 3 and 4")
    stages: list[nn.Module] = []
    inputs = config.channels
    for factor in factors:
        stages += [conv(inputs, config.growth * factor * factor), nn.PixelShuffle(factor)]
        inputs = config.growth
    return nn.Sequential(*stages, conv(config.growth, 3))
