"""SRResNet (Ledig et al., CVPR 2017), the generator of SRGAN: residual blocks with batch normalisation and PReLU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from srquant.networks.base import Channels, Count, Edges, Scale, SRNetwork, State, ValueRange, count_blocks
from srquant.networks.modules import conv, upsampler
from srquant.support.settings import Checked


@dataclass(frozen=True)
class SRResNetConfig(Checked):
    """Hyper-parameters; the defaults are the paper's."""

    scale: Scale = 4
    channels: Channels = 64
    blocks: Count = 16
    edge_size: Annotated[int, Field(ge=1, le=101)] = 9
    """Kernel of the first and last convolution."""
    value_range: ValueRange = 1.0


class SRResNet(SRNetwork):
    """SRResNet: 9×9 head, (conv, BN, PReLU, conv, BN) blocks, sub-pixel stages with PReLU, 9×9 tail.

    Keys: ``head.0``, ``body.N.0…4``, ``body_end.0/1``, ``upsampler.0…5``, ``tail``.
    """

    name = "srresnet"
    Config = SRResNetConfig

    def __init__(self, config: SRResNetConfig) -> None:
        super().__init__(config)
        channels = config.channels
        self.head = nn.Sequential(conv(3, channels, config.edge_size), nn.PReLU(channels))
        self.body = nn.ModuleList(_block(channels) for _ in range(config.blocks))
        self.body_end = nn.Sequential(conv(channels, channels, bias=False), nn.BatchNorm2d(channels))
        stages = upsampler(config.scale, channels)
        self.upsampler = nn.Sequential(
            *(m for i in range(0, len(stages), 2) for m in (stages[i], stages[i + 1], nn.PReLU(channels)))
        )
        self.tail = conv(channels, 3, config.edge_size)
        edge, depth = config.edge_size // 2, len(stages) // 2
        above = sum(1 / 2**i for i in range(depth)) + edge / 2**depth
        self.receptive_field = edge + 2 * config.blocks + 1 + math.ceil(above)

    def forward(self, images: Tensor) -> Tensor:
        first = features = self.head(images)
        for block in self.body:
            features = features + block(features)
        return self.tail(self.upsampler(self.body_end(features) + first))

    @property
    def edges(self) -> Edges:
        stages = tuple(f"upsampler.{i}" for i in range(0, len(self.upsampler), 3))
        return Edges(first=("head.0",), after_body=("body_end.0",), upsampler=stages, last=("tail",))

    @property
    def feature_layers(self) -> tuple[str, ...]:
        return tuple(f"body.{i}" for i in range(self.config.blocks))

    @classmethod
    def read(cls, state: State, value_range: float | None) -> tuple[SRResNetConfig, State] | None:
        if not {"head.0.weight", "body.0.0.weight", "body_end.0.weight", "tail.weight"} <= state.keys():
            return None
        # Old files lack the counter that PyTorch keeps beside the running statistics; nothing reads it here.
        state = state | {k: v for k, v in _counters(state).items() if k not in state}
        channels = state["head.0.weight"].shape[0]
        stages = [state[k].shape[0] // channels for k in state if k.startswith("upsampler.") and state[k].ndim == 4]
        config = SRResNetConfig(
            scale=math.prod(math.isqrt(stage) for stage in stages),
            channels=channels,
            blocks=count_blocks(state, "body"),
            edge_size=state["head.0.weight"].shape[-1],
            value_range=1.0 if value_range is None else value_range,
        )
        return config, state


def _block(channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv(channels, channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.PReLU(channels),
        conv(channels, channels, bias=False),
        nn.BatchNorm2d(channels),
    )


def _counters(state: State) -> State:
    suffix = "running_mean"
    found = [key.removesuffix(suffix) for key in state if key.endswith(suffix)]
    return {f"{prefix}num_batches_tracked": state[f"{prefix}{suffix}"].new_zeros(()).long() for prefix in found}
