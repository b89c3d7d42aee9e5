"""Rounding weights one after the other, each error made good by the weights that are still to come (GPTQ)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from srquant.model.multiplications import Convolution, LinearMap, Product
from srquant.quantizers import Quantizer

_DAMPING = 0.005
"""Added to the diagonal, as a part of its mean."""
_BLOCK = 64
_ROWS = 20_000
"""Positions that are looked at; fewer where a weight has many inputs."""
_WIDE = 1500
"""Inputs of an output, from which on half as many positions are looked at."""


def round_by_inputs(
    product: Product, scaled: Tensor, weight: Tensor, sample: Tensor, left: Quantizer, right: Quantizer
) -> tuple[Tensor, Tensor | None]:
    """Round a weight so that the layer's output changes least for inputs as they come out of their quantizer.

    Columns are rounded in the order of falling ‖input‖; the error of each is spread over those that follow by the
    inverse of H = XᵀX, X being the quantized inputs without their means. What means change goes into the bias.

    Source: Frantar et al., GPTQ, ICLR 2023, algorithm 1, with the order of "act-order" in its released code.

    Args:
        product: Of the layer.
        scaled: The weight as it multiplies quantized inputs, output channels first.
        weight: The weight as it multiplies float inputs.
        sample: Float inputs.
        left: Quantizer of the inputs.
        right: Quantizer of the weight; its bounds stay.

    Returns:
        The rounded weight, and what to add to the bias; the weight as it is and None for products whose inputs are not
        weighted sums of rows (transposed convolutions).
    """
    quantized = left(sample)
    rows = _rows(product, quantized, weight.shape)
    if rows is None:
        return scaled, None
    outputs = product(sample, weight, None)
    axes = tuple(range(1, outputs.ndim))
    relative = 1 / (outputs.var(axes) + 0.05 * outputs.var()).clamp(min=1e-30)
    relative = relative / relative.sum()
    rounded = _round(scaled, _hessian(rows, relative), right)
    missing = (
        (outputs - product(quantized, rounded, None)).movedim(1 if outputs.ndim == 4 else -1, 1).flatten(2).mean(2)
    )
    return rounded, relative @ missing


def _rows(product: Product, inputs: Tensor, shape: torch.Size) -> Tensor | None:
    """What the weights of each output are multiplied with: ``groups n positions inputs``."""
    if isinstance(product, LinearMap):
        return inputs[None]
    if not isinstance(product, Convolution):
        return None
    mode = "constant" if product.padding_mode == "zeros" else product.padding_mode
    padded = F.pad(inputs, product.border, mode)
    columns = F.unfold(padded, shape[2:], product.dilation, 0, product.stride)
    images, _, positions = columns.shape
    return columns.reshape(images, product.groups, -1, positions).permute(1, 0, 3, 2)


def _hessian(rows: Tensor, relative: Tensor) -> Tensor:
    """XᵀX of rows without their means, ``groups inputs inputs``, each image by its weight."""
    _, images, positions, inputs = rows.shape
    step = max(images * positions * (1 if inputs < _WIDE else 2) // _ROWS, 1)
    chosen = rows[:, :, ::step]
    weights = (relative / chosen.shape[2])[:, None, None]
    mean = (chosen * weights).sum((1, 2), keepdim=True)
    centred = ((chosen - mean) * weights.sqrt()).flatten(1, 2)
    return torch.matmul(centred.transpose(1, 2), centred).double()


def _round(weight: Tensor, hessian: Tensor, quantizer: Quantizer) -> Tensor:
    """GPTQ, all groups at once."""
    groups, inputs, _ = hessian.shape
    left = weight.flatten(1).reshape(groups, -1, inputs).double()
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    order = diagonal.argsort(1, descending=True)
    damping = _DAMPING * diagonal.mean(1) + 1e-30
    hessian = hessian + damping[:, None, None] * torch.eye(inputs, dtype=hessian.dtype, device=hessian.device)
    hessian = hessian.gather(1, order[:, :, None].expand_as(hessian)).gather(2, order[:, None].expand_as(hessian))
    along = order[:, None].expand_as(left)
    left = left.gather(2, along)
    inverse = torch.cholesky_inverse(cast(Tensor, torch.linalg.cholesky(hessian)))
    factor = cast(Tensor, torch.linalg.cholesky(inverse, upper=True))
    rounded = torch.empty_like(left)
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = torch.empty_like(left[:, :, start:end])
        for column in range(start, end):
            wanted = left[:, :, column]
            found = quantizer(wanted.reshape(-1, 1).float()).reshape(wanted.shape).double()
            rounded[:, :, column] = found
            error = (wanted - found) / factor[:, None, column, column]
            errors[:, :, column - start] = error
            left[:, :, column + 1 : end] -= error[:, :, None] * factor[:, None, column, column + 1 : end]
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    restored = torch.empty_like(rounded).scatter_(2, along, rounded)
    return restored.reshape(weight.shape).to(weight.dtype)
