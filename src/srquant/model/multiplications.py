"""The kinds of multiplication that networks are made of, and what each computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srquant.networks.modules import MatMul

Multiplication = nn.Conv2d | nn.Linear | MatMul


class Product(Protocol):
    """The bare multiplication: left operand, right operand, bias."""

    def __call__(self, left: Tensor, right: Tensor, bias: Tensor | None, /) -> Tensor:
        """The product."""
        ...


@dataclass(frozen=True)
class Convolution:
    """What a ``Conv2d`` does with its input and weight."""

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
    border: tuple[int, ...]
    """Padding as ``F.pad`` takes it, for modes other than zeros."""

    @classmethod
    def of(cls, module: nn.Conv2d) -> Convolution:
        """Read the settings off a module."""
        border = tuple(cast(Any, module)._reversed_padding_repeated_twice)
        return cls(module.stride, module.padding, module.dilation, module.groups, module.padding_mode, border)

    def __call__(self, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros":
            left = F.pad(left, self.border, self.padding_mode)
            return F.conv2d(left, right, bias, self.stride, 0, self.dilation, self.groups)
        return F.conv2d(left, right, bias, self.stride, self.padding, self.dilation, self.groups)


def linear(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """What a ``Linear`` does with its input and weight."""
    return F.linear(left, right, bias)


def matrix_product(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """What a ``MatMul`` does with its operands."""
    return left @ right if bias is None else left @ right + bias


def product_of(module: Multiplication) -> Product:
    """The bare multiplication of a module."""
    if isinstance(module, nn.Conv2d):
        return Convolution.of(module)
    return linear if isinstance(module, nn.Linear) else matrix_product


Kind = Literal["conv", "linear", "matmul"]


KINDS: dict[type[nn.Module], Kind] = {nn.Conv2d: "conv", nn.Linear: "linear", MatMul: "matmul"}


def is_point(module: nn.Module) -> bool:
    """Whether a module is a multiplication that can be quantized; subclasses may compute something else."""
    return type(module) in KINDS


def count_weights(module: nn.Module) -> int:
    """Elements of its weight; 0 for an attention product."""
    return module.weight.numel() if isinstance(module, nn.Conv2d | nn.Linear) else 0


def flat(tensor: Tensor) -> Tensor:
    """All values as one row, in memory order where that saves a copy."""
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.detach().reshape(1, -1)


def by_channel(tensor: Tensor, kind: Kind) -> Tensor:
    """The values of each channel as a row: axis 1 of a convolution's input, the last of a linear map's. The operand of
    an attention product counts as one channel.
    """
    if kind == "matmul":
        return flat(tensor)
    return tensor.detach().movedim(1 if kind == "conv" else -1, 0).flatten(1)
