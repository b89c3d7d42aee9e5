"""A model with markers where its operands are quantized, ready for PyTorch's exporter.

Two operators stand for all that a quantized model has and a float one has not: a value that is rounded to a grid, and
a weight that is decoded from integers. The product between them is PyTorch's own, whatever it is; so nothing here, nor
behind it, knows how a convolution or a linear map is written as ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from srquant.engines.operands import IntegerOperands
from srquant.model import Model
from srquant.model.multiplications import LinearMap, TransposedConvolution, turned
from srquant.model.swapping import copy_network, replace_all
from srquant.networks.custom import CustomNetwork
from srquant.networks.sizes import Sizes
from srquant.networks.spandrel import SpandrelNetwork
from srquant.quantizers.numerics import rounding
from srquant.quantizers.numerics.integers import IntegerGrid
from srquant.support.errors import ArgumentError


@torch.library.custom_op("srquant::quantized", mutates_args=())
def quantized(x: Tensor, scale: float, knots: Sequence[int], intervals: Sequence[int], as_bytes: bool) -> Tensor:
    """The nearest level of a grid on integers.

    Args:
        x: Any shape.
        scale: Of the integers.
        knots: Increasing integers.
        intervals: Between each two knots.
        as_bytes: Whether the engine shall multiply the integers; else it multiplies floats with the grid's values.
    """
    return rounding.quantize(x, torch.tensor(knots, dtype=x.dtype) * scale, tuple(intervals)).clone()


@torch.library.custom_op("srquant::decoded", mutates_args=())
def decoded(integers: Tensor, scale: Tensor, axis: int) -> Tensor:
    """A weight of its integers.

    Args:
        integers: int8.
        scale: For each channel along the axis.
        axis: Of the output channels.
    """
    return integers.float() * scale.reshape(-1, *[1] * (integers.ndim - 1 - axis))


@quantized.register_fake
def _(x: Tensor, scale: float, knots: Sequence[int], intervals: Sequence[int], as_bytes: bool) -> Tensor:
    return torch.empty_like(x)


@decoded.register_fake
def _(integers: Tensor, scale: Tensor, axis: int) -> Tensor:
    return torch.empty_like(integers, dtype=torch.float32)


QUANTIZED = torch.ops.srquant.quantized.default
DECODED = torch.ops.srquant.decoded.default


class Marked(nn.Module):
    """A quantized layer whose operands are marked.

    Args:
        operands: Of the layer, as integers.

    Raises:
        ArgumentError: ONNX has no such product.
    """

    integers: Tensor
    scale: Tensor

    def __init__(self, operands: IntegerOperands) -> None:
        super().__init__()
        product = operands.layer.product
        self.product = product
        self.left, self.right = operands.left, operands.right
        self.weighted = operands.weight is not None
        self.bias: nn.Parameter | None = None
        self.multiplier: Tensor | None
        self.register_buffer("multiplier", operands.multiplier)
        if self.weighted:
            integers, scale = operands.weight_integers()
            self.axis = int(isinstance(product, TransposedConvolution))
            if isinstance(product, TransposedConvolution):
                if product.groups > 1:
                    raise ArgumentError(
                        f"{operands.name} is a transposed convolution with {product.groups} groups, which have no "
                        f"scale for each output channel in ONNX; leave it float"
                    )
                integers = turned(integers, product.groups)
            self.register_buffer("integers", integers.contiguous())
            self.register_buffer("scale", scale)
            bias = operands.layer.bias if isinstance(product, LinearMap) else operands.bias()
            self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """As the product takes it; some networks look at their layers' weights."""
        weight = DECODED(self.integers, self.scale, self.axis)
        return turned(weight, self.product.groups) if isinstance(self.product, TransposedConvolution) else weight

    def forward(self, left: Tensor, right: Tensor | None = None) -> Tensor:
        """The product of the marked operands."""
        if right is not None:
            return self.product(_marked(left, self.left, False), _marked(right, self.right, False), None)
        # Not a scale for each channel: ONNX Runtime joins such a quantization with a convolution before it wrongly.
        left = _marked(left if self.multiplier is None else left * self.multiplier, self.left, True)
        return self.product(left, self.weight, self.bias)


def _marked(x: Tensor, grid: IntegerGrid | None, as_bytes: bool) -> Tensor:
    return x if grid is None else QUANTIZED(x, float(grid.scale), grid.knots.tolist(), list(grid.intervals), as_bytes)


class Face(nn.Module):
    """A network behind the face of a model: float32 images in [0, 1] on both sides. It fills no image up.

    Args:
        model: Float or quantized; it is left as it is.
        layers: Operands of its quantized layers, by name.
        dtype: In which it computes.
    """

    def __init__(self, model: Model, layers: Mapping[str, IntegerOperands], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = copy_network(model.network).to("cpu", dtype)
        self.dtype = dtype
        self.value_range = self.network.value_range
        if isinstance(self.network, SpandrelNetwork | CustomNetwork):
            self.network.sizes = Sizes()  # whoever runs the file fills images up
        replace_all(self.network, {name: Marked(operands) for name, operands in layers.items()})

    def forward(self, images: Tensor) -> Tensor:
        """``n 3 h w`` to ``n 3 scale·h scale·w``."""
        images = images.to(self.dtype)
        if self.value_range == 1:
            return self.network(images.clone()).float()  # some networks write into what they are given
        return (self.network(images * self.value_range) * (1 / self.value_range)).float()
