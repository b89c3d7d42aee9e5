"""The operands of a quantized layer as integers of eight bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from srquant.engines.exported import Length
from srquant.model.layer import CodedWeight, QuantLayer
from srquant.quantizers import Quantizer, ScaledUniform
from srquant.quantizers.numerics.integers import WIDTH, IntegerGrid
from srquant.support.errors import ArgumentError
from srquant.support.settings import Checked, check

Storage = Literal["int8", "int4"]
Range = Literal["auto", "full", "reduced"]
Activations = Literal["int8", "float"]
Precision = Literal["float32", "float16"]
Processor = Literal["this", "amx", "vnni", "avx2"]
RANGES: dict[Processor, Range] = {"this": "auto", "amx": "full", "vnni": "full", "avx2": "reduced"}
"""What a processor asks for: AMX and VNNI add byte products in 32 bits; AVX2 adds pairs in 16, where they saturate."""
_INT32 = (1 << 31) - 1
_REDUCED = 64
"""Two products of 255 and this fit 16 bits, in which processors without VNNI or AMX add pairs."""


@dataclass(frozen=True)
class ExportSettings(Checked):
    """How a model is written.

    Args:
        tile: Height and width of the images the file takes; None for any, or for 128×128 where a network computes with
            the size of its image.
        storage: ``int4`` stores weights of up to four bits in half a byte each, widened when the file is opened.
        range: ``reduced`` makes weights coarser where they are beyond ±64, so that no two products leave 16 bits;
            ``full`` keeps them. ``auto`` is for :func:`~srquant.engines.agreement.export_onnx` to decide; where a file
            is written without running it, it is ``full``.
        activations: ``float`` rounds no activation: weights are stored as integers, and the engine computes in float.
            A small file whose pictures are nearly those of the float network.
        precision: In which a float network is stored and computed. Images are float32 on both sides all the same.
    """

    tile: tuple[Length, Length] | None = None
    storage: Storage = "int8"
    range: Range = "auto"
    activations: Activations = "int8"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activations == "float" and self.range == "reduced":
            raise ArgumentError("range=reduced with activations=float: there are no byte products; leave it out")


def settings_for(processor: Processor, range: Range = "auto", **fields: Any) -> ExportSettings:
    """How a model is written for a processor.

    Args:
        processor: Decides the range; ``this`` leaves it as it is given.
        range: Of the weights.
        **fields: The other fields.

    Raises:
        ArgumentError: There is no such processor, a range is given beside it, or a field breaks its rule.
    """
    check("processor", processor, Processor)
    if range != "auto" and processor != "this":
        raise ArgumentError(f"range={range} and processor={processor}: the processor decides the range; leave one out")
    return ExportSettings(range=range if processor == "this" else RANGES[processor], **fields)


class IntegerOperands:
    """The two operands of a quantized layer as eight-bit integers; of activations None, where they stay float.

    Args:
        name: Of the layer.
        layer: Finished.
        settings: Of the export.

    Raises:
        ArgumentError: An operand does not fit eight bits, or a sum could leave 32.
    """

    def __init__(self, name: str, layer: QuantLayer, settings: ExportSettings) -> None:
        self.name = name
        self.layer = layer
        self.settings = settings
        bare = settings.activations == "float"
        self.left = None if bare else _fitting(name, "input", layer.left)
        factor = layer.left.factor.detach() if isinstance(layer.left, ScaledUniform) else None
        self.multiplier = None if factor is None or bool((factor == 1).all()) else torch.reciprocal(factor).cpu()
        """What channels of the input are multiplied by before they are quantized; ``c 1 1`` or ``c``."""
        coded = layer.right if isinstance(layer.right, CodedWeight) else None
        self.right: IntegerGrid | None = None
        if coded is not None or not bare:
            right = layer.quantizers()["right"]
            self.right = _fitting(name, "right operand" if coded is None else "weight", right)
        self.weight: Tensor | None = None
        if coded is not None:
            assert self.right is not None
            self.weight = self.right.integers(coded.get_buffer("codes"))
            if self.right.low < -128 or self.right.high > 127:
                raise ArgumentError(
                    f"the weight of {name} takes integers from {self.right.low} to {self.right.high}, beyond int8; "
                    f"quantize again with --set grid=int8 --set weights.symmetric=true"
                )
            # Both as the engine sums them, offsets included, and after it took them off.
            largest = int(self.weight.abs().flatten(1).sum(1).max()) * WIDTH
            if largest > _INT32:
                raise ArgumentError(f"{name}: its sums can reach {largest}, more than 32 bits hold; leave it float")

    def weight_integers(self) -> tuple[Tensor, Tensor]:
        """The weight as int8, and its scale for each output channel."""
        assert self.weight is not None
        assert self.right is not None
        integers, scale = self.weight, self.right.scale.expand(len(self.weight)).clone()
        if self.settings.range == "reduced":
            reach = integers.abs().flatten(1).amax(1).clamp(min=1)
            factor = (reach / _REDUCED).clamp(min=1)
            integers = (integers / factor.reshape(-1, *[1] * (integers.ndim - 1))).round()
            scale = scale * factor
        return integers.to(torch.int8), scale.float()

    def bias(self) -> Tensor:
        """The bias of each output channel of a convolution, never all zero.

        OpenVINO 2026.4 drops a bias of zeros. Where several read the output of a convolution without bias, and one of
        them adds it to another, it then forgets the scale of the integers, and what is added is almost zero. So the
        smallest number there is stands for zero; sums do not feel it.
        """
        assert self.weight is not None
        bias = torch.zeros(len(self.weight)) if self.layer.bias is None else self.layer.bias.cpu()
        return bias if bool(bias.any()) else torch.full_like(bias, torch.finfo(torch.float32).tiny)

    @property
    def saturates(self) -> bool:
        """Whether two products can add up to more than 16 bits hold; attention products run in float."""
        return (
            self.left is not None and self.weight is not None and int(self.weight_integers()[0].abs().max()) > _REDUCED
        )


def _fitting(name: str, operand: str, quantizer: Quantizer) -> IntegerGrid:
    if quantizer.gridless:
        raise ArgumentError(
            f"the {operand} of {name} has a {quantizer.name} quantizer, whose levels follow each image, and those of "
            f"an exported file stay; quantize by a method whose ranges stay, such as srquant with --set grid=int8"
        )
    grid = quantizer.integer_grid()
    if grid is None:
        raise ArgumentError(
            f"the {operand} of {name} has a {quantizer.name} quantizer whose levels are not integers times a scale; "
            f"quantize again with --set grid=int8"
        )
    if operand != "weight" and (grid.high - grid.low > WIDTH or not grid.low <= 0 <= grid.high or grid.scale.ndim):
        raise ArgumentError(
            f"the {operand} of {name} takes integers from {grid.low} to {grid.high}; eight bits hold 256 neighbouring "
            f"ones, zero among them; quantize again with --set grid=int8"
        )
    return grid
