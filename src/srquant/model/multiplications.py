"""The kinds of multiplication that networks are made of: a table with a row for each.

A new kind is a :class:`Product`, a row in :data:`KINDS`, and a function in the exporter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from operator import attrgetter
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srquant.networks.modules import MatMul, multiplied


class Product:
    """The bare multiplication of a module: left operand, right operand, bias.

    A right operand that is a weight has its output channels first, in each kind alike: so a scale for each output
    channel lies along axis 0, with groups too.
    """

    kind: ClassVar[str]
    """Name of its row in :data:`KINDS`."""
    operands: ClassVar[tuple[str, ...]] = ("input",)
    """Names of the module's parameters that are operands."""
    int32: ClassVar[bool] = True
    """Whether PyTorch multiplies int32 tensors in this way; int64 tensors it always does."""

    @property
    def inputs_first(self) -> int:
        """Groups of a weight whose input channels come first in the module; 0 where its output channels do."""
        return 0

    def __call__(self, left: Tensor, right: Tensor, bias: Tensor | None, /) -> Tensor:
        """The product."""
        raise NotImplementedError


def turned(weight: Tensor, groups: int) -> Tensor:
    """A weight with its output and input channels exchanged inside each group; doing it twice changes nothing.

    Args:
        weight: ``groups·a b …``.
        groups: 0 leaves the weight as it is; see :attr:`Product.inputs_first`.

    Returns:
        ``groups·b a …``.
    """
    if not groups:
        return weight
    by_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return by_group.transpose(1, 2).flatten(0, 1).contiguous()


@dataclass(frozen=True)
class Convolution(Product):
    """What a ``Conv2d`` does with its input and weight."""

    kind = "conv"

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


@dataclass(frozen=True)
class TransposedConvolution(Product):
    """What a ``ConvTranspose2d`` does with its input and weight."""

    kind = "conv_transpose"
    int32 = False

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, module: nn.ConvTranspose2d) -> TransposedConvolution:
        """Read the settings off a module."""
        sizes = (module.stride, module.padding, module.output_padding)
        stride, padding, output_padding = (cast(tuple[int, ...], size) for size in sizes)
        return cls(stride, padding, output_padding, module.groups, module.dilation)

    @property
    def inputs_first(self) -> int:
        return self.groups

    def __call__(self, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        right = turned(right, self.groups)
        sizes = (self.stride, self.padding, self.output_padding)
        return F.conv_transpose2d(left, right, bias, *sizes, self.groups, self.dilation)


@dataclass(frozen=True)
class LinearMap(Product):
    """What a ``Linear`` does with its input and weight."""

    kind = "linear"

    def __call__(self, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(left, right, bias)


@dataclass(frozen=True)
class MatrixProduct(Product):
    """What a ``MatMul`` does with its operands."""

    kind = "matmul"
    operands = ("left", "right")

    def __call__(self, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        found = multiplied(left, right)
        return found if bias is None else found + bias


linear = LinearMap()
matrix_product = MatrixProduct()

MultiplyAdds = Callable[[nn.Module, Sequence[torch.Size], torch.Size], int]
"""Multiply-adds of one call, from the module and the shapes of its operands and its output."""


@dataclass(frozen=True)
class MultiplicationKind:
    """A row of the table.

    Args:
        name: In reports and in the exporter.
        module: Modules of just this type are of this kind; a subclass may compute something else.
        product_of: Makes the bare multiplication of a module.
        multiply_adds: Counts those of one call.
        channel_axis: Of the channels of an activation; None where all of an operand counts as one channel.
        channels_of: How many channels the activations of a module have.
        has_weight: Whether the right operand is a weight, not an activation.
        role: What ``scope`` calls it: part of a convolutional network or of a transformer.
    """

    name: str
    module: type[nn.Module]
    product_of: Callable[[Any], Product]
    multiply_adds: MultiplyAdds
    channel_axis: int | None
    channels_of: Callable[[Any], int]
    has_weight: bool
    role: Literal["convolution", "transformer"]

    def weight_of(self, module: nn.Module) -> Tensor | None:
        """The weight of a module, output channels first; None if its right operand is an activation."""
        if not self.has_weight:
            return None
        return turned(cast(Tensor, module.weight), self.product_of(module).inputs_first)

    def bias_of(self, module: nn.Module) -> Tensor | None:
        """The bias of a module, if it has one."""
        return cast(Tensor | None, module.bias) if self.has_weight else None

    def by_channel(self, operand: Tensor) -> Tensor:
        """The values of each channel of an activation as a row."""
        if self.channel_axis is None:
            return flat(operand)
        return operand.detach().movedim(self.channel_axis, 0).flatten(1)

    def along_channels(self, values: Tensor) -> Tensor:
        """A number for each channel, ``c``, in the shape in which it meets an activation: ``c 1 1`` or ``c``."""
        return values[:, None, None] if self.channel_axis == 1 else values


def _of_each_output(module: nn.Module, _operands: Sequence[torch.Size], output: torch.Size) -> int:
    return output.numel() * prod(cast(Tensor, module.weight).shape[1:])


def _of_each_input(module: nn.Module, operands: Sequence[torch.Size], _output: torch.Size) -> int:
    return operands[0].numel() * prod(cast(Tensor, module.weight).shape[1:])


def _of_rows(_module: nn.Module, operands: Sequence[torch.Size], output: torch.Size) -> int:
    return output.numel() * operands[0][-1]


KINDS = {
    kind.name: kind
    for kind in (
        MultiplicationKind(
            name="conv",
            module=nn.Conv2d,
            product_of=Convolution.of,
            multiply_adds=_of_each_output,
            channel_axis=1,
            channels_of=attrgetter("in_channels"),
            has_weight=True,
            role="convolution",
        ),
        MultiplicationKind(
            name="conv_transpose",
            module=nn.ConvTranspose2d,
            product_of=TransposedConvolution.of,
            multiply_adds=_of_each_input,
            channel_axis=1,
            channels_of=attrgetter("in_channels"),
            has_weight=True,
            role="convolution",
        ),
        MultiplicationKind(
            name="linear",
            module=nn.Linear,
            product_of=lambda _: linear,
            multiply_adds=_of_rows,
            channel_axis=-1,
            channels_of=attrgetter("in_features"),
            has_weight=True,
            role="transformer",
        ),
        MultiplicationKind(
            name="matmul",
            module=MatMul,
            product_of=lambda _: matrix_product,
            multiply_adds=_of_rows,
            channel_axis=None,
            channels_of=lambda _: 1,
            has_weight=False,
            role="transformer",
        ),
    )
}
"""All kinds, by name."""
_BY_MODULE = {kind.module: kind for kind in KINDS.values()}


def kind_of(module: nn.Module) -> MultiplicationKind | None:
    """The kind of a module; None if it is no multiplication that can be quantized.

    A module whose weight is no parameter, but made anew in each pass (as by ``weight_norm``), is none; see
    :mod:`srquant.model.baking`.
    """
    kind = _BY_MODULE.get(type(module))
    return kind if kind is None or not kind.has_weight or "weight" in _parameters(module) else None


def _parameters(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_parameters(recurse=False)}


def product_of(module: nn.Module) -> Product:
    """The bare multiplication of a module.

    Raises:
        TypeError: It is none.
    """
    kind = kind_of(module)
    if kind is None:
        raise TypeError(f"{type(module).__name__} is no multiplication that can be quantized")
    return kind.product_of(module)


def flat(tensor: Tensor) -> Tensor:
    """All values as one row, in memory order where that saves a copy."""
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.detach().reshape(1, -1)
