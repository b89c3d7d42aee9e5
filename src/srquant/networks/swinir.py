"""SwinIR (Liang et al., ICCV workshops 2021), light and classical: residual groups of shifted-window attention."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from srquant.networks.base import Channels, Count, Edges, Fraction, Scale, SRNetwork, State, ValueRange, count_blocks
from srquant.networks.modules import MatMul, conv, pad_to_multiple, upsampler
from srquant.support.errors import ArgumentError
from srquant.support.settings import Checked

_RGB_MEAN = (0.4488, 0.4371, 0.4040)
_UPSAMPLER_CHANNELS = 64
_MASKED = -10_000.0
"""Its exponential is exactly zero, in half precision too."""


@dataclass(frozen=True)
class SwinIRConfig(Checked):
    """Hyper-parameters; the defaults are SwinIR-light."""

    scale: Scale = 4
    channels: Channels = 60
    depths: tuple[Count, ...] = (6, 6, 6, 6)
    """Blocks in each residual group (RSTB)."""
    heads: tuple[Count, ...] = (6, 6, 6, 6)
    window: Annotated[int, Field(ge=1, le=64)] = 8
    mlp_ratio: Annotated[float, Field(gt=0, le=1000)] = 2.0
    upsampler: Literal["pixelshuffledirect", "pixelshuffle"] = "pixelshuffledirect"
    """``pixelshuffledirect`` (light: one convolution and a shuffle) or ``pixelshuffle`` (classical)."""
    value_range: ValueRange = 1.0
    mean: tuple[Fraction, Fraction, Fraction] = _RGB_MEAN
    """RGB, in [0, 1], subtracted from the input and added to the output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.depths) != len(self.heads) or not self.depths:
            raise ArgumentError(
                f"depths={self.depths}, heads={self.heads}: each residual group has one number of both; give as many"
            )
        if any(self.channels % heads for heads in self.heads):
            raise ArgumentError(f"channels={self.channels} is not a multiple of each of heads={self.heads}")


@dataclass(frozen=True, eq=False)
class Order:
    """An order of some images' tokens.

    Args:
        pixel: Which pixel of the images, counted row by row, each token is of.
        rank: Where in this order the token of each pixel is.
    """

    pixel: Tensor
    rank: Tensor

    @classmethod
    def of(cls, pixel: Tensor, images: int) -> Order:
        """The order that takes the tokens of these pixels of each image."""
        every = torch.arange(images, device=pixel.device)[:, None] * pixel.numel() + pixel.flatten()
        return cls(every.flatten(), every.flatten().argsort())


@dataclass(frozen=True, eq=False)
class Windows:
    """Orders of images' tokens, window after window, and what the cyclic shift must not bring together.

    Args:
        image: Row by row.
        straight: By windows.
        shifted: By windows shifted by half of one; those with equal masks follow one another, those with none first.
        mask: For shifted windows, windows 1 tokens tokens: a large negative number between tokens that only the shift
            made neighbours. Source: Swin Transformer, section 3.2; SwinIR's released code stores it in the file for one
            image size, with -100, whose exponential is a denormal number: it changes no sum, but makes the softmax and
            the product after it several times slower.
    """

    image: Order
    straight: Order
    shifted: Order
    mask: Tensor

    @classmethod
    def of(cls, features: Tensor, window: int) -> Windows:
        """For features n c h w, with h and w multiples of the window."""
        images, _, height, width = features.shape
        pixel = torch.arange(height * width, device=features.device).view(height, width)
        row, column = _regions(height, window, features.device), _regions(width, window, features.device)
        region = _split_windows(3 * row[:, None] + column[None, :], window)
        shifted = _split_windows(pixel.roll((-(window // 2), -(window // 2)), (0, 1)), window)
        # A window's last token says which regions meet in it.
        sorting = region[:, -1].argsort(stable=True)
        region, shifted = region[sorting], shifted[sorting]
        different = region[:, None, :] != region[:, :, None]
        return cls(
            image=Order.of(pixel, images),
            straight=Order.of(_split_windows(pixel, window), images),
            shifted=Order.of(shifted, images),
            mask=different.unsqueeze(1).to(features.dtype) * _MASKED,
        )


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias per relative position.

    Queries, keys and values are three linear maps, where the published layout has one (``qkv``) three times as wide:
    each is a multiplication with operands of its own, as 2DQuant quantizes them.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, channels)
        self.scores = MatMul()
        self.mix = MatMul()
        self.register_buffer("position", _relative_positions(window), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x``: windows, n·w tokens channels; ``mask``: w 1 tokens tokens, or None."""
        windows, tokens, channels = x.shape
        parts = self.q(x) * (channels // self.heads) ** -0.5, self.k(x), self.v(x)
        q, k, v = (part.view(windows, tokens, self.heads, -1) for part in parts)
        scores = self.scores(q.transpose(1, 2), k.permute(0, 2, 3, 1))
        bias = self.relative_position_bias_table[self.get_buffer("position")].permute(2, 0, 1).contiguous()
        if mask is None:
            scores = scores + bias
        elif len(mask) == windows and torch.compiler.is_exporting():
            # One image: without a fifth axis engines recognise the attention, and masks apart from the bias stay small.
            scores = scores + bias + mask
        else:
            scores = (scores.view(-1, len(mask), *scores.shape[1:]) + (bias + mask)).view_as(scores)
        scores = scores.softmax(-1)  # the largest tensors here: two of them are in the cache sooner than three
        mixed = self.mix(scores, v.transpose(1, 2))
        return self.proj(mixed.transpose(1, 2).reshape(windows, tokens, channels))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class SwinBlock(nn.Module):
    """Window attention and an MLP, each with a norm before and a residual around; every other block shifts."""

    def __init__(self, config: SwinIRConfig, heads: int, *, shifted: bool) -> None:
        super().__init__()
        self.window = config.window
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(config.channels)
        self.attn = WindowAttention(config.channels, heads, config.window)
        self.norm2 = nn.LayerNorm(config.channels)
        self.mlp = Mlp(config.channels, int(config.channels * config.mlp_ratio))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x``: tokens c, window after window; ``mask``: between windows' tokens, for shifted windows."""
        windows = self.attn(self.norm1(x).view(-1, self.window**2, x.shape[-1]), mask)
        x = x + windows.view_as(x)
        return x + self.mlp(self.norm2(x))


class BlockStack(nn.Module):
    """The Swin blocks of one group."""

    def __init__(self, config: SwinIRConfig, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(config, heads, shifted=i % 2 == 1) for i in range(depth))

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """``x``: n h w c with h and w multiples of the window."""
        tokens, order = x.flatten(0, 2), windows.image
        for block in cast(Iterable[SwinBlock], self.blocks):
            # All but attention acts on single tokens: they stay in the order of windows until that changes.
            wanted = windows.shifted if block.shifted else windows.straight
            tokens, order = reorder(tokens, order, wanted), wanted
            tokens = block(tokens, windows.mask if block.shifted else None)
        return reorder(tokens, order, windows.image).view_as(x)


class RSTB(nn.Module):
    """Residual Swin transformer block: a stack of Swin blocks, a convolution, a residual."""

    def __init__(self, config: SwinIRConfig, depth: int, heads: int) -> None:
        super().__init__()
        self.residual_group = BlockStack(config, depth, heads)
        self.conv = conv(config.channels, config.channels)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        return x + _channels_last(self.conv(_channels_first(self.residual_group(x, windows))))


class PatchEmbed(nn.Module):
    """Only the norm of the published class: SwinIR's patches are single pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class SwinIR(SRNetwork):
    """SwinIR; the masks and position indices in published files are recomputed, not read.

    Its keys are the published ones but for ``qkv``, which is cut into ``q``, ``k`` and ``v`` when it is
    read and joined again when it is written.
    """

    name = "swinir"
    Config = SwinIRConfig
    untold = ("value_range", "mean")

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__(config)
        self.alignment = config.window
        self.conv_first = conv(3, config.channels)
        self.patch_embed = PatchEmbed(config.channels)
        self.layers = nn.ModuleList(RSTB(config, d, h) for d, h in zip(config.depths, config.heads, strict=True))
        self.norm = nn.LayerNorm(config.channels)
        self.conv_after_body = conv(config.channels, config.channels)
        if config.upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(conv(config.channels, 3 * config.scale**2), nn.PixelShuffle(config.scale))
        else:
            self.conv_before_upsample = nn.Sequential(conv(config.channels, _UPSAMPLER_CHANNELS), nn.LeakyReLU())
            self.upsample = upsampler(config.scale, _UPSAMPLER_CHANNELS)
            self.conv_last = conv(_UPSAMPLER_CHANNELS, 3)
        self.register_buffer("mean", torch.tensor(config.mean) * config.value_range, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        mean = self.get_buffer("mean").view(3, 1, 1)
        shallow = self.conv_first(pad_to_multiple(images, self.config.window) - mean)
        windows = Windows.of(shallow, self.config.window)
        features = self.patch_embed(_channels_last(shallow))
        for layer in self.layers:
            features = layer(features, windows)
        deep = self.conv_after_body(_channels_first(self.norm(features))) + shallow
        if self.config.upsampler == "pixelshuffledirect":
            enlarged = self.upsample(deep)
        else:
            enlarged = self.conv_last(self.upsample(self.conv_before_upsample(deep)))
        return enlarged[..., : height * self.scale, : width * self.scale] + mean

    @property
    def edges(self) -> Edges:
        common = {"first": ("conv_first",), "after_body": ("conv_after_body",)}
        if self.config.upsampler == "pixelshuffledirect":
            return Edges(**common, last=("upsample.0",))
        stages = tuple(f"upsample.{i}" for i in range(0, len(self.upsample), 2))
        return Edges(**common, upsampler=("conv_before_upsample.0", *stages), last=("conv_last",))

    @property
    def feature_layers(self) -> tuple[str, ...]:
        return tuple(f"layers.{i}" for i in range(len(self.config.depths)))

    @classmethod
    def read(cls, state: State, value_range: float | None) -> tuple[SwinIRConfig, State] | None:
        table = "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"
        if not {table, "conv_first.weight", "layers.0.conv.weight", "upsample.0.weight"} <= state.keys():
            return None  # the variants for real photographs and denoising have other ends
        state = cls.from_published(state)
        groups = [f"layers.{i}.residual_group.blocks" for i in range(count_blocks(state, "layers"))]
        channels = state["conv_first.weight"].shape[0]
        config = SwinIRConfig(
            scale=_scale(state),
            channels=channels,
            depths=tuple(count_blocks(state, group) for group in groups),
            heads=tuple(state[f"{group}.0.attn.relative_position_bias_table"].shape[1] for group in groups),
            window=(math.isqrt(state[table].shape[0]) + 1) // 2,
            mlp_ratio=state[f"{groups[0]}.0.mlp.fc1.weight"].shape[0] / channels,
            upsampler="pixelshuffle" if "conv_last.weight" in state else "pixelshuffledirect",
            value_range=1.0 if value_range is None else value_range,
        )
        return config, state

    @classmethod
    def from_published(cls, state: State) -> State:
        own: State = {}
        for key, value in state.items():
            before, joined, kind = key.rpartition(".attn.qkv.")
            if joined:
                own |= {f"{before}.attn.{name}.{kind}": part for name, part in zip("qkv", value.chunk(3), strict=True)}
            elif not key.endswith((".attn_mask", ".relative_position_index")):
                own[key] = value
        return own

    @classmethod
    def to_published(cls, state: State) -> State:
        published: State = {}
        for key, value in state.items():
            before, found, kind = key.rpartition(".attn.q.")
            if found:
                parts = [state[f"{before}.attn.{name}.{kind}"] for name in "qkv"]
                published[f"{before}.attn.qkv.{kind}"] = torch.cat(parts)
            elif not re.search(r"\.attn\.[kv]\.\w+$", key):
                published[key] = value
        return published


def _scale(state: State) -> int:
    if "conv_last.weight" not in state:
        return math.isqrt(state["upsample.0.weight"].shape[0] // 3)
    keys = [k for k in state if re.fullmatch(r"upsample\.\d+\.weight", k)]
    return math.prod(math.isqrt(state[k].shape[0] // state[k].shape[1]) for k in keys)


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _relative_positions(window: int) -> Tensor:
    """Row of the bias table for every pair of tokens, tokens × tokens."""
    line = torch.arange(window)
    row, column = (grid.flatten() for grid in torch.meshgrid(line, line, indexing="ij"))
    rows = row[:, None] - row[None, :] + window - 1
    columns = column[:, None] - column[None, :] + window - 1
    return rows * (2 * window - 1) + columns


def _split_windows(x: Tensor, window: int) -> Tensor:
    """H w to windows tokens."""
    h, w = x.shape
    return x.view(h // window, window, w // window, window).transpose(1, 2).reshape(-1, window * window)


def _regions(size: int, window: int, device: torch.device) -> Tensor:
    pixel = torch.arange(size, device=device)
    return (pixel >= size - window).long() + (pixel >= size - window // 2).long()


def reorder(x: Tensor, before: Order, after: Order) -> Tensor:
    """Tokens, rows of a matrix, in another order."""
    return x if before is after else cast(Tensor, _Reorder.apply(x, before.rank[after.pixel], after.rank[before.pixel]))


class _Reorder(torch.autograd.Function):
    """A permutation whose gradient is the permutation back; PyTorch's own adds up, one token after the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradients[0].index_select(0, back), None, None
