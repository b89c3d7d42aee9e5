"""What the markers, and a few operators that PyTorch's exporter does not know, are in ONNX.

A quantized value becomes QuantizeLinear – DequantizeLinear, a decoded weight DequantizeLinear: the form that engines
recognise around a float product and replace by one integer operator. A grid of fewer levels than 256 is clipped between
the two.

A piecewise-linear grid on integers is rounded before the quantization, which then finds nothing left to round. As its
levels are not equally far apart, values are bent at the knots until they are, rounded, clipped and bent back::

    t = (x / scale − K_d) / r_d;   above: t ← p − leaky(p − t);   below: t ← p + leaky(t − p);   round, clip, and back

with d the dense segment, K_d its first knot, r_i the integers between neighbouring levels of segment i, and p a knot's
position counted in levels; ``leaky`` has the slope r_i / r_i+1 where it is negative. Every operator takes one value and
gives one, so OpenVINO computes all of them in the convolution before. (A sum over segments, each clipped and rounded,
needs the value several times and is a pass over memory of its own; a table of levels is slower still.)

These functions are run by PyTorch's exporter, which takes down the operators that they call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from srquant.engines.markers import DECODED, QUANTIZED
from srquant.engines.standard import OPSET
from srquant.quantizers.numerics.integers import WIDTH
from srquant.support.extras import import_extra

_END = (1 << 31) - 1


def translations() -> dict[Any, Callable[..., Any]]:
    """By PyTorch's operator."""
    return {QUANTIZED: write_quantized, DECODED: write_decoded, torch.ops.aten.sort.stable: write_sort}


def operators() -> Any:
    """ONNX's operators as functions.

    Raises:
        MissingExtraError: The ``onnx`` extra is not installed.
    """
    return getattr(import_extra("onnxscript", "exporting to ONNX", "onnx"), f"opset{OPSET}")


def constant(value: float | int, kind: Any) -> Any:
    """A number that an operator is given."""
    ir = import_extra("onnx_ir", "exporting to ONNX", "onnx")
    return operators().Constant(value=ir.tensor(np.array(value, kind)))


def number(value: float) -> Any:
    """A float32 number."""
    return constant(value, np.float32)


def write_quantized(x: Any, scale: float, knots: Sequence[int], intervals: Sequence[int], as_bytes: bool) -> Any:
    """The marker of :mod:`srquant.engines.markers`."""
    op = operators()
    strides = [(high - low) // n for low, high, n in zip(knots[:-1], knots[1:], intervals, strict=True)]
    piecewise = max(strides) > 1
    if piecewise:
        x = write_piecewise(x, scale, knots, intervals, strides)
    if not as_bytes:
        # Of two operands that change with the image OpenVINO makes no integer product: integers would be in the way.
        whole = op.Round(op.Div(x, number(scale)))
        return op.Mul(op.Clip(whole, number(knots[0]), number(knots[-1])), number(scale))
    size, zero = number(scale), constant(-knots[0], np.uint8)
    codes = op.QuantizeLinear(x, size, zero)
    width = knots[-1] - knots[0]
    if width < WIDTH and not piecewise:
        # After the quantization: between it and a sum with a constant, OpenVINO 2026.4 fuses a clip wrongly where the
        # height and width are free.
        codes = op.Clip(codes, constant(0, np.uint8), constant(width, np.uint8))
    return op.DequantizeLinear(codes, size, zero)


def write_decoded(integers: Any, scale: Any, axis: int) -> Any:
    """The marker of :mod:`srquant.engines.markers`."""
    return operators().DequantizeLinear(integers, scale, axis=axis)


def write_sort(x: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort: of equal values TopK gives the first first."""
    op = operators()
    ir = import_extra("onnx_ir", "exporting to ONNX", "onnx")
    start, end = (op.Constant(value=ir.tensor(np.array([n], np.int64))) for n in (dim, dim + 1 or _END))
    return op.TopK(x, op.Slice(op.Shape(x), start, end), axis=dim, largest=int(descending), sorted=1)


def write_piecewise(
    x: Any, scale: float, knots: Sequence[int], intervals: Sequence[int], strides: Sequence[int]
) -> Any:
    """Values rounded to a piecewise grid; see the module."""
    dense = strides.index(min(strides))
    unit = scale * strides[dense]
    bends = list(_bends(strides, intervals, dense))
    line = Line(x, 1 / unit, -knots[dense] / strides[dense])
    for bend in bends:
        line = line.bent(*bend)
    line = line.rounded(-sum(intervals[:dense]), sum(intervals[dense:]))
    for sign, position, slope in reversed(bends):
        line = line.bent(sign, position, 1 / slope)
    return replace(line, factor=line.factor * unit, offset=line.offset * unit + scale * knots[dense]).written()


def _bends(strides: Sequence[int], intervals: Sequence[int], dense: int) -> Iterator[tuple[int, int, float]]:
    """Where segments meet, from the dense one outwards: the side that stays, the position, the slope of the other."""
    for i in range(dense + 1, len(strides)):
        yield -1, sum(intervals[dense:i]), strides[i - 1] / strides[i]
    for i in range(dense, 0, -1):
        yield 1, -sum(intervals[i:dense]), strides[i] / strides[i - 1]


@dataclass(frozen=True)
class Line:
    """``factor · value + offset``, of which nothing is written before it is needed."""

    value: Any
    factor: float = 1.0
    offset: float = 0.0

    def written(self) -> Any:
        """Write it."""
        op = operators()
        scaled = self.value if self.factor == 1 else op.Mul(self.value, number(self.factor))
        return scaled if self.offset == 0 else op.Add(scaled, number(self.offset))

    def bent(self, sign: int, position: float, slope: float) -> Line:
        """The same on one side of a position (above if sign is 1), with another slope on the other."""
        away = replace(self, factor=sign * self.factor, offset=sign * (self.offset - position))
        return Line(operators().LeakyRelu(away.written(), alpha=slope), sign, position)

    def rounded(self, low: int, high: int) -> Line:
        """The nearest whole number from low to high."""
        if abs(self.factor) != 1 or not float(self.offset).is_integer():
            return Line(self.written()).rounded(low, high)
        op = operators()
        ends = sorted(self.factor * (end - self.offset) for end in (low, high))
        return replace(self, value=op.Clip(op.Round(self.value), number(ends[0]), number(ends[1])))
