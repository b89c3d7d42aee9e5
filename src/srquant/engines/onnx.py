"""A quantized model as an ONNX file that engines run in eight-bit integers.

Every quantized layer becomes QuantizeLinear – DequantizeLinear on its input (unsigned), DequantizeLinear on its weight
(signed, a scale for each output channel) and the float operator between them: the form that engines recognise and
replace by one integer operator (U8S8). Weights of fewer bits are widened to int8: engines compute with four-bit weights
in float. Everything else stays float: biases, residual additions, norms, softmax.

Attention products are written as products of floats that were rounded to the grids' values: of two operands that change
with the image, with their own offsets, OpenVINO makes no integer product, and so the integers would only be in the way.

Which models fit. An operand must lie on integers (:func:`srquant.quantizers.numerics.integers.integer_grid`), at most
256 neighbouring ones, zero among them: the engine's zero point is an integer, and zero padding inserts an exact 0. Free
bounds do not give that, not even uniform ones, whose zero point is ``−l / scale``, and neither do symmetric weights of
8 bits, whose levels are half-integers. The remedy is ``grid=int8`` when quantizing, which moves bounds by less than an
interval. The other way out, a padded tensor of ones for the offset, would need a second convolution.

A piecewise-linear grid on integers is rounded before the quantization, which then finds nothing left to round. As its
levels are not equally far apart, values are bent at the knots until they are, rounded, clipped and bent back::

    t = (x / scale − K_d) / r_d;   above: t ← p − leaky(p − t);   below: t ← p + leaky(t − p);   round, clip, and back

with d the dense segment, K_d its first knot, r_i the integers between neighbouring levels of segment i, and p a knot's
position counted in levels; ``leaky`` has the slope r_i / r_i+1 where it is negative. Every operator takes one value and
gives one, so OpenVINO computes all of them in the convolution before. (A sum over segments, each clipped and rounded,
needs the value several times and is a pass over memory of its own; a table of levels is slower still.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import Node

from srquant.engines.exported import Contract, Length
from srquant.engines.operators import (
    Convert,
    as_rows,
    convolution_attributes,
    from_planes,
    to_shuffle,
    transposed_convolution,
)
from srquant.engines.shuffles import Shuffle
from srquant.engines.tracing import Trace, same_for_all_sizes, trace, write
from srquant.engines.writer import IR_VERSION, OPSET, Value, Writer
from srquant.model import Model
from srquant.model.layer import CodedWeight, QuantLayer
from srquant.model.multiplications import turned
from srquant.model.swapping import quant_layers
from srquant.quantizers import Quantizer, ScaledUniform
from srquant.quantizers.numerics.integers import WIDTH, IntegerGrid
from srquant.support.errors import ArgumentError, first_line
from srquant.support.files import replacing, require_writable
from srquant.support.settings import Checked, to_json

Storage = Literal["int8", "int4"]
Range = Literal["auto", "full", "reduced"]
_INT32 = (1 << 31) - 1
_REDUCED = 64
"""Two products of 255 and this fit 16 bits, in which processors without VNNI or AMX add pairs."""


@dataclass(frozen=True)
class ExportSettings(Checked):
    """How a model is written.

    Args:
        tile: Height and width of the images the file takes; None for any.
        storage: ``int4`` stores weights of up to four bits in half a byte each, widened when the file is opened.
        range: ``reduced`` makes weights coarser where they are beyond ±64, so that no two products leave 16 bits;
            ``full`` keeps them. ``auto`` is for :func:`~srquant.engines.agreement.export_onnx` to decide; where a file
            is written without running it, it is ``full``.
    """

    tile: tuple[Length, Length] | None = None
    storage: Storage = "int8"
    range: Range = "auto"


def require_onnx(path: Path) -> None:
    """Refuse a name that does not end in ``.onnx``.

    Raises:
        ArgumentError: It does not.
    """
    if path.suffix != ".onnx":
        raise ArgumentError(f"{path}: exported models are .onnx files; give a name that ends so")


def write_onnx(model: Model, path: Path, settings: ExportSettings) -> Contract:
    """Write a quantized model as ONNX, all or nothing, without running it.

    Args:
        model: Quantized, on integers.
        path: An ``.onnx`` file.
        settings: How.

    Returns:
        What the file says of itself.

    Raises:
        ArgumentError: The model does not fit integers, is float, or its network cannot be written; a tile is needed and
            not given, or too small.
        MissingExtraError: The ``onnx`` extra is not installed.
        OutputError: The file cannot be written.
    """
    require_onnx(path)
    if model.record is None:
        raise ArgumentError(f"{model.source} is a float network; quantize it first, with grid=int8")
    if settings.range == "auto":
        settings = replace(settings, range="full")
    layers = _operands(model, settings)
    contract = replace(
        _contract(model, settings.tile),
        saturates=any(operands.saturates for operands in layers.values()),
        method=model.record.method,
        settings=model.record.settings,
        calibration=model.record.calibration,
        versions=model.record.versions,
        export=to_json(settings),
    )
    converts = {name: partial(_QUANTIZED[found.layer.product.kind], found) for name, found in layers.items()}
    _write(model, path, contract, converts)
    return contract


def can_saturate(model: Model) -> bool:
    """Whether two products of a quantized model, in full range, can add up to more than 16 bits hold.

    Raises:
        ArgumentError: It does not fit integers.
    """
    return any(operands.saturates for operands in _operands(model, ExportSettings(range="full")).values())


def _operands(model: Model, settings: ExportSettings) -> dict[str, IntegerOperands]:
    return {name: IntegerOperands(name, layer, settings) for name, layer in quant_layers(model.network).items()}


def write_float_onnx(model: Model, path: Path, tile: tuple[int, int] | None = None) -> Contract:
    """Write a float model as ONNX, so that integers can be compared with the same engine's floats.

    Raises:
        SrquantError: As :func:`write_onnx`.
    """
    require_onnx(path)
    contract = _contract(model, tile)
    _write(model, path, contract, {})
    return contract


def _contract(model: Model, tile: tuple[int, int] | None) -> Contract:
    return Contract(
        scale=model.scale,
        tile=tile,
        alignment=model.network.alignment,
        receptive_field=model.receptive_field,
        saturates=False,
        network=model.network.name,
        source=model.source,
        method="float",
    )


def _write(model: Model, path: Path, contract: Contract, layers: Mapping[str, Convert]) -> None:
    require_writable(path)
    writer = Writer(fixed=contract.tile is not None)
    output = write(_traced(model, contract), writer, layers)
    content = _model_proto(writer, output, contract)
    with replacing(path) as temporary:
        temporary.write_bytes(content.SerializeToString())


def _traced(model: Model, contract: Contract) -> Trace:
    if contract.tile is not None:
        contract.tiling()  # refuses tiles that are too small
        return trace(model, *contract.tile)
    size = 2 * model.network.alignment
    found = trace(model, 3 * size, 4 * size)
    if not same_for_all_sizes(found, trace(model, 5 * size, 3 * size, batch=2)):
        raise ArgumentError(
            f"{model.network.name} computes with the height and width of its image, so one file cannot serve all "
            f"sizes; give the size of tiles: --tile 128x128"
        )
    return found


def _model_proto(writer: Writer, output: str, contract: Contract) -> Any:
    helper, kind = writer.onnx.helper, writer.onnx.TensorProto.FLOAT
    height, width = contract.tile or ("height", "width")
    enlarged = [
        f"{contract.scale}*{size}" if isinstance(size, str) else contract.scale * size for size in (height, width)
    ]
    count = "images" if contract.tile is None else 1
    nodes, constants = writer.used(output)
    nodes.append(helper.make_node("Identity", [output], ["enlarged"], name="enlarged"))
    graph = helper.make_graph(
        nodes,
        "srquant",
        [helper.make_tensor_value_info("images", kind, [count, 3, height, width])],
        [helper.make_tensor_value_info("enlarged", kind, [count, 3, *enlarged])],
        initializer=constants,
    )
    content = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="srquant",
        producer_version=contract.versions.get("srquant", ""),
    )
    helper.set_model_props(content, {Contract.KEY: json.dumps(to_json(contract))})
    try:
        writer.onnx.checker.check_model(content, full_check=True)
    except Exception as error:
        # The checker's and the shape inference's errors have no common base.
        raise ArgumentError(f"the network computes what srquant cannot write as ONNX: {first_line(error)}") from error
    return content


class IntegerOperands:
    """The two operands of a quantized layer as eight-bit integers.

    Args:
        name: Of the layer.
        layer: Finished.
        settings: Of the export.

    Raises:
        ArgumentError: An operand does not fit eight bits, or a sum could leave 32.
    """

    def __init__(self, name: str, layer: QuantLayer, settings: ExportSettings) -> None:
        self.layer = layer
        self.settings = settings
        self.left = _fitting(name, "input", layer.left)
        factor = layer.left.factor.detach() if isinstance(layer.left, ScaledUniform) else None
        self.multiplier = None if factor is None or bool((factor == 1).all()) else torch.reciprocal(factor).cpu()
        """What channels of the input are multiplied by before they are quantized; ``c 1 1`` or ``c``."""
        coded = layer.right if isinstance(layer.right, CodedWeight) else None
        self.right = _fitting(name, "right operand" if coded is None else "weight", layer.quantizers()["right"])
        self.weight: Tensor | None = None
        if coded is not None:
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
        return self.weight is not None and int(self.weight_integers()[0].abs().max()) > _REDUCED


def _fitting(name: str, operand: str, quantizer: Quantizer) -> IntegerGrid:
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


def _quantized_product(operands: IntegerOperands, w: Writer, _node: Node, left: Value, right: Value, *_: Any) -> str:
    return w.node("MatMul", _rounded(w, left, operands.left), _rounded(w, right, operands.right))


def _quantized_transposed(operands: IntegerOperands, w: Writer, node: Node, *arguments: Any) -> str:
    integers, scale = operands.weight_integers()
    groups = operands.layer.product.inputs_first
    if groups > 1:
        raise NotImplementedError(f"{groups} groups, which have no scale for each output channel in ONNX")
    left = _activation(w, arguments[0], operands.left, torch.uint8, operands.multiplier)
    weight = _weight(w, turned(integers, groups), scale, operands, 1)
    return transposed_convolution(w, node, left, weight, operands.bias(), *arguments[3:])


def _quantized_convolution(operands: IntegerOperands, w: Writer, node: Node, *arguments: Any) -> str:
    left = _activation(w, arguments[0], operands.left, torch.uint8, operands.multiplier)
    shuffle = Shuffle.after(node)
    of_channels = (*operands.weight_integers(), operands.bias())
    integers, scale, bias = of_channels if shuffle is None else map(shuffle.of_channels, of_channels)
    weight = _weight(w, integers, scale, operands, 0)
    attributes = convolution_attributes(node, *arguments[3:])
    return to_shuffle(w, w.node("Conv", left, weight, bias, **attributes), shuffle)


def _quantized_linear(operands: IntegerOperands, w: Writer, node: Node, x: str, *_: Any) -> str:
    """A linear map: where shapes are known a convolution of single pixels, in OpenVINO up to three times as fast."""
    integers, scale = operands.weight_integers()
    multiplier = operands.multiplier
    if not w.fixed:
        left = _activation(w, x, operands.left, torch.uint8, multiplier)
        product = w.node("MatMul", left, _weight(w, integers.T.contiguous(), scale, operands, 1))
        return product if operands.layer.bias is None else w.node("Add", product, operands.layer.bias)
    if x in w.planes:
        of_planes = None if multiplier is None else multiplier[:, None, None]
        left = _activation(w, w.planes[x], operands.left, torch.uint8, of_planes)
    else:
        # Quantized before the axes change places, but not in the shape in which it was made: OpenVINO would join
        # the quantization with a norm before it, and its kernel for that is slow.
        rows = _activation(w, as_rows(w, node, x), operands.left, torch.uint8, multiplier)
        left = w.node("Transpose", rows, perm=[0, 3, 1, 2])
    weight = _weight(w, integers[..., None, None], scale, operands, 0)
    return from_planes(w, node, w.node("Conv", left, weight, operands.bias(), kernel_shape=[1, 1]))


_QUANTIZED: dict[str, Callable[..., str]] = {
    "conv": _quantized_convolution,
    "conv_transpose": _quantized_transposed,
    "linear": _quantized_linear,
    "matmul": _quantized_product,
}
"""How a quantized layer is written, by the name of its kind (:data:`~srquant.model.multiplications.KINDS`)."""


def _activation(w: Writer, x: Value, grid: IntegerGrid, dtype: torch.dtype, multiplier: Tensor | None = None) -> str:
    """Quantize an activation, its channels multiplied; before a shuffle, which then moves bytes."""
    if isinstance(x, str) and x in w.shuffled:
        before, shuffle = w.shuffled[x]
        multiplier = None if multiplier is None else shuffle.of_pixels(multiplier)
        codes, scale, zero = _codes(w, before, grid, dtype, multiplier)
        codes = shuffle.write(w, codes)
    else:
        codes, scale, zero = _codes(w, x, grid, dtype, multiplier)
    return w.node("DequantizeLinear", codes, scale, zero)


def _codes(
    w: Writer, x: Value, grid: IntegerGrid, dtype: torch.dtype, multiplier: Tensor | None = None
) -> tuple[str, Tensor, Tensor]:
    """Quantize a value, its channels multiplied: its bytes, their scale and their zero point."""
    if grid.low == 0:
        x = w.given_to("Relu", x)  # the quantization clips as well
    if multiplier is not None:
        # Not a scale for each channel: ONNX Runtime joins such a quantization with a convolution before it wrongly.
        x = w.node("Mul", x, multiplier)
    lowest = torch.iinfo(dtype).min
    scale, zero = grid.scale.float().cpu(), torch.tensor(lowest - grid.low, dtype=dtype)
    piecewise = bool((grid.strides > 1).any())
    if piecewise:
        x = _piecewise(w, x, grid)
    codes = w.node("QuantizeLinear", x, scale, zero)
    width = grid.high - grid.low
    if width < WIDTH and not piecewise:
        # After the quantization: between it and a sum with a constant, OpenVINO 2026.4 fuses a clip wrongly where the
        # height and width are free.
        ends = (torch.tensor(end, dtype=dtype) for end in (lowest, lowest + width))
        codes = w.node("Clip", codes, *ends)
    return codes, scale, zero


def _rounded(w: Writer, x: Value, grid: IntegerGrid) -> str:
    """Quantize an activation, but leave it float: the grid's values."""
    scale = grid.scale.float().cpu()
    if bool((grid.strides > 1).any()):
        x = _piecewise(w, x, grid)
    whole = w.node("Round", w.node("Div", x, scale))
    return w.node("Mul", w.node("Clip", whole, float(grid.low), float(grid.high)), scale)


def _piecewise(w: Writer, x: Value, grid: IntegerGrid) -> str:
    """Values rounded to a piecewise grid; see the module."""
    knots, strides = ([int(number) for number in numbers] for numbers in (grid.knots, grid.strides))
    dense = strides.index(min(strides))
    unit = float(grid.scale) * strides[dense]
    bends = list(_bends(strides, grid.intervals, dense))
    line = Line(w, x, 1 / unit, -knots[dense] / strides[dense])
    for bend in bends:
        line = line.bent(*bend)
    line = line.rounded(-sum(grid.intervals[:dense]), sum(grid.intervals[dense:]))
    for sign, position, slope in reversed(bends):
        line = line.bent(sign, position, 1 / slope)
    return replace(line, factor=line.factor * unit, offset=line.offset * unit + float(grid.scale) * knots[dense]).name()


def _bends(strides: Sequence[int], intervals: Sequence[int], dense: int) -> Iterator[tuple[int, int, float]]:
    """Where segments meet, from the dense one outwards: the side that stays, the position, the slope of the other."""
    for i in range(dense + 1, len(strides)):
        yield -1, sum(intervals[dense:i]), strides[i - 1] / strides[i]
    for i in range(dense, 0, -1):
        yield 1, -sum(intervals[i:dense]), strides[i] / strides[i - 1]


@dataclass(frozen=True)
class Line:
    """``factor · value + offset``, of which nothing is written before it is needed."""

    w: Writer
    value: Value
    factor: float = 1.0
    offset: float = 0.0

    def name(self) -> str:
        """Write it."""
        scaled = self.value if self.factor == 1 else self.w.node("Mul", self.value, self.factor)
        return self.w.name(scaled if self.offset == 0 else self.w.node("Add", scaled, self.offset))

    def bent(self, sign: int, position: float, slope: float) -> Line:
        """The same on one side of a position (above if sign is 1), with another slope on the other."""
        away = replace(self, factor=sign * self.factor, offset=sign * (self.offset - position))
        return Line(self.w, self.w.node("LeakyRelu", away.name(), alpha=slope), sign, position)

    def rounded(self, low: int, high: int) -> Line:
        """The nearest whole number from low to high."""
        if abs(self.factor) != 1 or not float(self.offset).is_integer():
            return Line(self.w, self.name()).rounded(low, high)
        ends = sorted(self.factor * (end - self.offset) for end in (low, high))
        return replace(self, value=self.w.node("Clip", self.w.node("Round", self.value), *ends))


def _weight(w: Writer, integers: Tensor, scale: Tensor, operands: IntegerOperands, axis: int) -> str:
    zero = torch.zeros(len(scale), dtype=torch.int8)
    stored = _widened(w, integers) if operands.settings.storage == "int4" else None
    return w.node("DequantizeLinear", stored or integers, scale, zero, axis=axis)


def _widened(w: Writer, integers: Tensor) -> str | None:
    """Weights of up to four bits stored as such, ``integer = 2 · code + 1`` where all are odd; None for wider ones."""
    odd = bool((integers % 2 != 0).all())
    codes = (integers - 1) // 2 if odd else integers
    if int(codes.min()) < -8 or int(codes.max()) > 7:
        return None
    four_bits = w.onnx.helper.tensor_dtype_to_np_dtype(w.onnx.TensorProto.INT4)
    name = w.node("Cast", w.constant(codes.cpu().numpy().astype(four_bits)), to=w.onnx.TensorProto.INT8)
    if not odd:
        return name
    two, one = (torch.tensor(number, dtype=torch.int8) for number in (2, 1))
    return w.node("Add", w.node("Mul", name, two), one)
