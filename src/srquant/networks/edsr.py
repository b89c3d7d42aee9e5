"""EDSR (Lim et al., CVPR workshops 2017): residual blocks without normalisation, sub-pixel upsampling."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from srquant.networks.base import Channels, Count, Edges, Fraction, Scale, SRNetwork, State, ValueRange, count_blocks
from srquant.networks.modules import conv, upsampler
from srquant.support.overriding import override
from srquant.support.settings import Checked

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of the DIV2K training images, in [0, 1]; the published networks subtract it."""


@dataclass(frozen=True)
class EDSRConfig(Checked):
    """Hyper-parameters; the defaults are EDSR-baseline."""

    scale: Scale = 4
    channels: Channels = 64
    blocks: Count = 16
    residual_scale: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Factor on each block's residual: 1 for the baseline, 0.1 for the 256-channel network (section 3.3)."""
    value_range: ValueRange = 255.0
    mean: tuple[Fraction, Fraction, Fraction] = DIV2K_MEAN
    """RGB, in [0, 1], subtracted from the input and added to the output."""


class ResidualBlock(nn.Module):
    """x + residual_scale · conv(relu(conv(x)))."""

    def __init__(self, channels: int, residual_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels), nn.ReLU(), conv(channels, channels))
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        residual = self.body(x)
        return x + (residual if self.residual_scale == 1 else residual * self.residual_scale)


class EDSR(SRNetwork):
    """EDSR with the keys of EDSR-PyTorch (``head.0``, ``body.N.body.0``, ``tail.0.0`` …) and a ``mean`` buffer.

    Reads the layouts of EDSR-PyTorch (``sub_mean``, ``add_mean``, range 255) and BasicSR (``conv_first``,
    ``body.N.conv1``, ``upsample.0`` …). The residual scale is not in the weights: 0.1 is assumed from 256 channels on.
    Nor is the mean in all of them; that of DIV2K is assumed then.
    """

    name = "edsr"
    Config = EDSRConfig
    untold = ("residual_scale", "value_range", "mean")

    def __init__(self, config: EDSRConfig) -> None:
        super().__init__(config)
        blocks = [ResidualBlock(config.channels, config.residual_scale) for _ in range(config.blocks)]
        self.head = nn.Sequential(conv(3, config.channels))
        self.body = nn.Sequential(*blocks, conv(config.channels, config.channels))
        stages = upsampler(config.scale, config.channels)
        self.tail = nn.Sequential(stages, conv(config.channels, 3))
        self.register_buffer("mean", _mean(config))
        self.stages = len(stages) // 2
        self.receptive_field = 2 * config.blocks + 2 + math.ceil(sum(1 / 2**i for i in range(1 + self.stages)))

    def forward(self, images: Tensor) -> Tensor:
        mean = self.get_buffer("mean").view(3, 1, 1)
        features = self.head(images - mean)
        return self.tail(self.body(features) + features) + mean

    @property
    def edges(self) -> Edges:
        stages = tuple(f"tail.0.{i}" for i in range(0, 2 * self.stages, 2))
        return Edges(first=("head.0",), after_body=(f"body.{self.config.blocks}",), upsampler=stages, last=("tail.1",))

    @property
    def feature_layers(self) -> tuple[str, ...]:
        return tuple(f"body.{i}" for i in range(self.config.blocks))

    @classmethod
    def read(cls, state: State, value_range: float | None) -> tuple[EDSRConfig, State] | None:
        if {"conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight"} <= state.keys():
            state = _from_basicsr(state)
            value_range = 255.0 if value_range is None else value_range
        if not {"head.0.weight", "body.0.body.0.weight", "tail.1.weight"} <= state.keys():
            return None
        state = dict(state)
        if "sub_mean.bias" in state:
            state = {k: v for k, v in state.items() if not k.startswith(("sub_mean.", "add_mean."))} | {
                "mean": -state["sub_mean.bias"] / state["sub_mean.weight"].flatten(1).amax(1)
            }
        told = state.get("mean")
        told_range = 1.0 if told is not None and float(told.max()) <= 1 else 255.0
        mean = DIV2K_MEAN if told is None else tuple(round(float(v) / told_range, 6) for v in told.flatten())
        channels = state["head.0.weight"].shape[0]
        stages = [state[k].shape[0] // channels for k in state if re.fullmatch(r"tail\.0\.\d+\.weight", k)]
        config = EDSRConfig(
            scale=math.prod(math.isqrt(stage) for stage in stages),
            channels=channels,
            blocks=count_blocks(state, "body") - 1,
            residual_scale=0.1 if channels >= 256 else 1.0,
            value_range=told_range if value_range is None else value_range,
            mean=cast(Any, mean),
        )
        if told is None or config.value_range != told_range:
            state["mean"] = _mean(config)
        return config, state

    @classmethod
    def configured(cls, config: EDSRConfig, state: State, settings: Iterable[str]) -> tuple[EDSRConfig, State]:
        new = override(config, settings)
        if (new.mean, new.value_range) != (config.mean, config.value_range):
            state = state | {"mean": _mean(new)}
        return new, state


def _mean(config: EDSRConfig) -> Tensor:
    return torch.tensor(config.mean) * config.value_range


def _from_basicsr(state: State) -> State:
    blocks = count_blocks(state, "body")
    names = {"conv_first": "head.0", "conv_after_body": f"body.{blocks}", "conv_last": "tail.1", "upsample": "tail.0"}
    renamed: State = {}
    for key, value in state.items():
        own = re.sub(r"^body\.(\d+)\.conv([12])\.", lambda m: f"body.{m[1]}.body.{2 * int(m[2]) - 2}.", key)
        first, _, rest = own.partition(".")
        renamed[f"{names[first]}.{rest}" if first in names else own] = value
    return renamed
