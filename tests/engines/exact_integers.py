"""Every quantized layer computed from codes, with integer products and integer sums only.

A quantizer writes its values as a sum of terms, scale times integers
(:func:`tests.quantizers.terms.terms`), and a layer is bilinear, so::

    layer(a, b) = Σ_i Σ_j  scale_i · scale_j · product(integers_i, integers_j)  +  bias

and no quantizer class is ever asked for. Zero padding is exact by itself: the offset of an affine quantizer is a tensor
of ones, and it is padded with zeros like any other.

Products run on int32 or int64 tensors: PyTorch's CPU convolutions and matrix products compute those in integer
arithmetic. Sums cannot overflow: the largest Σ |right| over what one output sums, times the largest |left|, bounds
them before they are made; below 2^31 they are int32, else int64. Float are the scales, the bias, their products with
the sums (float64), and everything between quantized layers.

It is a yardstick for tests: it takes four integer products where a layer has two terms on each side.
"""

from __future__ import annotations

import dataclasses

import torch
from tests.quantizers.terms import Term, terms
from torch import Tensor, nn

from srquant.model import Model
from srquant.model.layer import CodedWeight, QuantLayer
from srquant.model.multiplications import Convolution, Product
from srquant.model.swapping import copy_network, quant_layers, replace
from srquant.quantizers import Quantizer
from srquant.support.errors import ArgumentError

_INT32 = (1 << 31) - 1


def integer_model(model: Model) -> Model:
    """A model that gives what ``model`` gives, every quantized layer computed in integers, on the CPU.

    Each layer equals the simulated one on equal inputs up to float32's rounding of that one. Whole networks differ
    more: a sum that rounds otherwise tips a code of the next layer here and there.

    Args:
        model: A quantized model.

    Raises:
        ArgumentError: It is a float model.
    """
    if model.record is None:
        raise ArgumentError(f"{model.source} is a float network; only quantized models run in integers")
    network = copy_network(model.to("cpu").network)
    for name, layer in quant_layers(network).items():
        replace(network, name, IntegerLayer(layer))
    return Model(network, model.source, model.record)


class IntegerLayer(nn.Module):
    """A finished layer, computed in integers.

    Args:
        layer: Its weight, if it has one, is codes.
    """

    def __init__(self, layer: QuantLayer) -> None:
        super().__init__()
        self.layer = layer
        self.product = layer.product
        right = layer.right
        self.weight_terms: list[Term] | None = None
        if isinstance(right, CodedWeight):
            self.weight_terms = terms(right.quantizer, right.get_buffer("codes"))
            if isinstance(layer.product, Convolution):
                # PyTorch has no dilated convolution of integers.
                self.weight_terms = [_spread(term, layer.product.dilation) for term in self.weight_terms]
                self.product = dataclasses.replace(layer.product, dilation=(1, 1))

    @property
    def weight(self) -> Tensor:
        """The weight as it multiplies; some networks look at their layers' weights."""
        return self.layer.weight

    def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        left = _terms(self.layer.left, a)
        right = self.weight_terms if b is None else _terms(self.layer.quantizers()["right"], b)
        assert right is not None
        weighted = b is None
        total = torch.zeros((), dtype=torch.float64)
        for one in left:
            for other in right:
                sums = integer_product(self.product, one.integers, other.integers, weighted=weighted)
                total = total + one.scale.double() * _along_outputs(other) * sums
        if self.layer.bias is not None:
            bias = self.layer.bias.double()
            total = total + bias.reshape(-1, *[1] * (right[0].integers.ndim - 2))
        return total.to(a.dtype)


def integer_product(product: Product, left: Tensor, right: Tensor, *, weighted: bool) -> Tensor:
    """A bare multiplication of integer tensors, exact; in int32 where its sums are sure to fit.

    Args:
        product: A convolution, linear map or matrix product.
        left: int64.
        right: int64.
        weighted: Whether the right operand is a weight.
    """
    bound = largest_sum(left, right, weighted=weighted)
    assert bound < 1 << 63, "sums of this layer do not fit 64 bits"
    dtype = torch.int32 if bound <= _INT32 and product.int32 else torch.int64
    return product(left.to(dtype), right.to(dtype), None)


def largest_sum(left: Tensor, right: Tensor, *, weighted: bool) -> int:
    """No sum that the product makes is larger: the largest Σ |right| over what one output sums, times max |left|."""
    if not left.numel() or not right.numel():
        return 0
    # A weight's sums run over all axes but the first; those of a matrix product over the last but one.
    sums = right.abs().flatten(1).sum(1) if weighted else right.abs().sum(-2)
    return int(sums.max()) * int(left.abs().max())


def _terms(quantizer: Quantizer, values: Tensor) -> list[Term]:
    return terms(quantizer, quantizer.codes(values))


def _spread(term: Term, dilation: tuple[int, ...]) -> Term:
    """The weight with zeros between its elements."""
    weight = term.integers
    sides = [by * (side - 1) + 1 for side, by in zip(weight.shape[-2:], dilation, strict=True)]
    wide = weight.new_zeros(*weight.shape[:-2], *sides)
    wide[..., :: dilation[0], :: dilation[1]] = weight
    return Term(term.scale, wide)


def _along_outputs(term: Term) -> Tensor:
    """The scale of a weight's term along the layer's outputs: axis 1 of a convolution's output, the last otherwise."""
    scale = term.scale.double()
    return scale.reshape(-1, *[1] * (term.integers.ndim - 2)) if scale.ndim else scale
