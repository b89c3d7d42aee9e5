"""A multiplication whose operands are quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from srquant.model.multiplications import Product, turned
from srquant.quantizers import Quantizer, without_factor
from srquant.support.tensors import in_one_layout


class LearnableWeight(nn.Module):
    """A float weight and its quantizer, while bounds are being learned."""

    def __init__(self, weight: Tensor, quantizer: Quantizer) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.quantizer = quantizer

    def forward(self) -> Tensor:
        return self.quantizer(self.weight)

    def coded(self) -> CodedWeight:
        """The finished weight."""
        return CodedWeight.of(self.weight, self.quantizer)


class FollowingWeight(LearnableWeight):
    """A float weight that is trained, and a quantizer whose bounds follow it: measured anew whenever it multiplies.

    ``bounds = measure(W) · factor``; the factor can be learned, no gradient goes through the measure.

    Args:
        weight: Output channels first.
        quantizer: Of the weight as it is now.
        measure: The bounds of a weight, by the quantizer's names for them.
        straight: Whether weights beyond the bounds are learned too, and bounds are not: the gradient goes straight
            through everywhere.
    """

    def __init__(
        self,
        weight: Tensor,
        quantizer: Quantizer,
        measure: Callable[[Tensor], Mapping[str, Tensor]],
        *,
        straight: bool = False,
    ) -> None:
        super().__init__(weight, quantizer)
        self._straight = straight
        self.factor = nn.Parameter(torch.ones(()))
        self._measure = measure

    def bounds(self) -> dict[str, Tensor]:
        """Those of the weight as it is now, differentiable in the factor."""
        return {name: value * self.factor for name, value in self._measure(self.weight.detach()).items()}

    def forward(self) -> Tensor:
        found = torch.func.functional_call(self.quantizer, self.bounds(), (self.weight,))
        return self.weight + (found - self.weight).detach() if self._straight else found

    @torch.no_grad()
    def coded(self) -> CodedWeight:
        bounds = self.bounds()
        for name, parameter in self.quantizer.named_parameters():
            parameter.copy_(bounds[name])
        return super().coded()


class CodedWeight(nn.Module):
    """A finished weight: integer codes and how to decode them. The float weight is gone.

    Args:
        codes: Integers in [0, 2^bits), any integer dtype, in the shape of the weight.
        quantizer: Decodes them.
    """

    def __init__(self, codes: Tensor, quantizer: Quantizer) -> None:
        super().__init__()
        self.register_buffer("codes", in_one_layout(codes.detach().to(torch.uint8)))
        self.quantizer = quantizer

    @classmethod
    def of(cls, weight: Tensor, quantizer: Quantizer) -> CodedWeight:
        """Round a float weight."""
        return cls(quantizer.codes(weight.detach()), quantizer)

    def forward(self) -> Tensor:
        return self.quantizer.decode(self.get_buffer("codes"))


class QuantLayer(nn.Module):
    """``product(left(a), right(b)) + bias``: a convolution, a linear map or an attention product.

    Args:
        product: The bare multiplication.
        left: Quantizer of the input, or of the left operand.
        right: The weight, output channels first, or the quantizer of the right operand.
        bias: Stays float.
    """

    def __init__(
        self, product: Product, left: Quantizer, right: LearnableWeight | CodedWeight | Quantizer, bias: Tensor | None
    ) -> None:
        super().__init__()
        self.product = product
        self.left = left
        self.right = right
        self.bias: nn.Parameter | None
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))

    def quantizers(self) -> dict[str, Quantizer]:
        """Its two quantizers, by operand: ``left`` and ``right``."""
        right = self.right if isinstance(self.right, Quantizer) else self.right.quantizer
        return {"left": self.left, "right": right}

    @property
    def weight(self) -> Tensor:
        """The weight as it multiplies, in the module's shape; some networks look at their layers' weights."""
        if isinstance(self.right, Quantizer):
            raise AttributeError("a product of two activations has no weight")
        return turned(without_factor(self.right(), self.left), self.product.inputs_first)

    def forward(self, *operands: Tensor, **named: Tensor) -> Tensor:
        """The product of the operands, passed by position, or by the names that the module it stands for gives them."""
        a, *others = _operands(self.product, operands, named)
        return self.product(self.left(a), self.right(*others), self.bias)


def _operands(product: Product, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return (*given, *(named[name] for name in product.operands[len(given) :]))


class BareLayer(nn.Module):
    """The multiplication of a quantized layer, of operands as they come, with its decoded weight.

    Args:
        layer: The quantized layer.
    """

    def __init__(self, layer: QuantLayer) -> None:
        super().__init__()
        self.product = layer.product
        self.bias = layer.bias
        self.weight: Tensor | None
        decoded = None if isinstance(layer.right, Quantizer) else without_factor(layer.right(), layer.left).detach()
        self.register_parameter("weight", None if decoded is None else nn.Parameter(decoded, requires_grad=False))

    def forward(self, *operands: Tensor, **named: Tensor) -> Tensor:
        """The product of the operands; see :meth:`QuantLayer.forward`."""
        a, *others = _operands(self.product, operands, named)
        right = self.weight if self.weight is not None else others[0]
        return self.product(a, right, self.bias)


def finished(layer: QuantLayer) -> QuantLayer:
    """The layer with its weight as codes and nothing left to learn."""
    right = layer.right
    if isinstance(right, LearnableWeight):
        right = right.coded()
    elif isinstance(right, Quantizer):
        right = right.finished()
    return QuantLayer(layer.product, layer.left.finished(), right, layer.bias).requires_grad_(False)
