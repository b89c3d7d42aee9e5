"""PyTorch's operators in ONNX: what the networks use between their multiplications, and float multiplications.

Each function takes the writer, the traced node (for shapes) and the operator's arguments: names of values, constant
tensors, numbers, lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Node

from srquant.engines.shuffles import NAME, Shuffle
from srquant.engines.writer import Value, Writer

Convert = Callable[..., Any]
_END = (1 << 63) - 1


def shape_of(node: Any) -> tuple[int, ...]:
    """Shape of what a traced node gives."""
    return tuple(int(size) for size in node.meta["val"].shape)


def convolution(w: Writer, node: Node, x: Value, weight: Value, bias: Value | None = None, *attributes: Any) -> str:
    """A convolution; its attributes are those of :func:`convolution_attributes`."""
    shuffle = Shuffle.after(node) if isinstance(weight, Tensor) and not isinstance(bias, str) else None
    operands = [value for value in (x, weight, bias) if value is not None]
    if shuffle is not None:
        operands[1:] = [shuffle.of_channels(cast(Tensor, value)) for value in operands[1:]]
    return to_shuffle(w, w.node("Conv", *operands, **convolution_attributes(node, *attributes)), shuffle)


def transposed_convolution(
    w: Writer,
    node: Node,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    output_padding: Sequence[int] = (0, 0),
    groups: int = 1,
    dilation: Sequence[int] = (1, 1),
) -> str:
    """A transposed convolution."""
    attributes = convolution_attributes(node, stride, padding, dilation, groups)
    attributes["output_padding"] = list(output_padding) * (2 // len(output_padding))
    return w.node("ConvTranspose", *(value for value in (x, weight, bias) if value is not None), **attributes)


def to_shuffle(w: Writer, name: str, shuffle: Shuffle | None) -> str:
    """Remember that a value's channels are in the order of a shuffle, if there is one."""
    if shuffle is not None:
        w.to_shuffle[name] = shuffle
    return name


def convolution_attributes(
    node: Node,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] | str = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> dict[str, Any]:
    """A convolution's attributes in ONNX."""
    kernel = shape_of(node.args[1])[2:]
    if isinstance(padding, str):
        whole = [by * (size - 1) if padding == "same" else 0 for size, by in zip(kernel, dilation, strict=True)]
        pads = [total // 2 for total in whole] + [total - total // 2 for total in whole]
    else:
        pads = list(padding) * (2 // len(padding)) * 2
    strides, dilations = (list(values) * (2 // len(values)) for values in (stride, dilation))
    return {
        "kernel_shape": list(kernel), "strides": strides, "pads": pads, "dilations": dilations, "group": groups
    }  # fmt: skip


def as_rows(w: Writer, node: Node, x: Value) -> str:
    """The input of a linear map, ``... c``, as ``1 1 rows c``, for a convolution of single pixels."""
    shape = shape_of(node.args[0])
    return w.node("Reshape", x, w.numbers(1, 1, math.prod(shape[:-1]), shape[-1]))


def from_planes(w: Writer, node: Node, planes: str) -> str:
    """The output of a linear map, ``... c``, of planes ``1 c 1 rows``; they are remembered."""
    name = cast(str, w.node("Reshape", w.node("Transpose", planes, perm=[0, 2, 3, 1]), w.numbers(*shape_of(node))))
    w.planes[name] = planes
    return name


def _single(w: Writer, node: Node, kind: str, x: Value, **attributes: Any) -> str:
    """What acts on single values.

    On planes, if the value has them, or the next linear map would have to make them; and before a shuffle.
    """
    if isinstance(x, str) and x in w.planes:
        return from_planes(w, node, w.node(kind, w.planes[x], **attributes))
    if isinstance(x, str) and x in w.shuffled:
        before, shuffle = w.shuffled[x]
        return shuffle.write(w, w.node(kind, before, **attributes))
    return w.node(kind, x, **attributes)


def _linear(w: Writer, _node: Node, x: Value, weight: Value, bias: Value | None = None) -> str:
    turned = weight.T if isinstance(weight, Tensor) else w.node("Transpose", weight, perm=[1, 0])
    product = w.node("MatMul", x, turned)
    return product if bias is None else w.node("Add", product, bias)


def _plain(kind: str) -> Convert:
    def convert(w: Writer, _node: Node, *operands: Value | float, **_: Any) -> str:
        return w.node(kind, *operands)

    return convert


def _activation(kind: str) -> Convert:
    def convert(w: Writer, node: Node, x: Value, *_: Any) -> str:
        return _single(w, node, kind, x)

    return convert


def _scaled(kind: str) -> Convert:
    """Sums and differences, whose second operand may have a factor."""

    def convert(w: Writer, _node: Node, x: Value, y: Value | float, alpha: float = 1) -> str:
        return w.node(kind, x, y if alpha == 1 else w.node("Mul", y, alpha))

    return convert


def _same(_w: Writer, _node: Node, x: Value, *_: Any, **__: Any) -> Value:
    return x


def _to_dtype(w: Writer, node: Node, x: Value, *_: Any, **__: Any) -> Value:
    """A change of type. What a network computes is float32 in the file, also where it holds whole numbers only."""
    before, after = (cast(Tensor, cast(Node, end).meta["val"]).dtype for end in (node.args[0], node))
    if isinstance(x, Tensor):
        return x.to(after)
    if after in (before, torch.float32):
        return x
    if after not in (torch.int32, torch.int64) or not before.is_floating_point:
        raise NotImplementedError(f"a change from {before} to {after}")
    kinds = w.onnx.TensorProto
    return w.node("Cast", w.node("Cast", x, to=kinds.INT32), to=kinds.FLOAT)


def _silu(w: Writer, _node: Node, x: Value, *_: Any) -> str:
    return w.node("Mul", x, w.node("Sigmoid", x))


def _leaky_relu(w: Writer, node: Node, x: Value, slope: float = 0.01) -> str:
    return _single(w, node, "LeakyRelu", x, alpha=float(slope))


def _prelu(w: Writer, node: Node, x: Value, slope: Tensor) -> str:
    # A slope of its own for each channel; the axes behind are broadcast.
    if isinstance(x, str) and x in w.shuffled:
        before, shuffle = w.shuffled[x]
        slopes = shuffle.of_pixels(slope) if len(slope) > 1 else slope
        return shuffle.write(w, w.node("PRelu", before, slopes.reshape(-1, 1, 1)))
    return w.node("PRelu", x, slope.reshape(-1, *[1] * (len(shape_of(node)) - 2)))


def _gelu(w: Writer, node: Node, x: Value, approximate: str = "none") -> str:
    return _single(w, node, "Gelu", x, approximate=approximate)


def _softmax(w: Writer, _node: Node, x: Value, axis: int, *_: Any) -> str:
    return w.node("Softmax", x, axis=axis)


def _layer_norm(
    w: Writer,
    _node: Node,
    x: Value,
    shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    epsilon: float = 1e-5,
    *_: Any,
) -> str:
    weight = torch.ones(*shape) if weight is None else weight
    operands = (x, weight) if bias is None else (x, weight, bias)
    return w.node("LayerNormalization", *operands, axis=-len(shape), epsilon=epsilon)


def _batch_norm(w: Writer, _node: Node, x: Value, *rest: Any) -> str:
    weight, bias, mean, variance, _training, _momentum, epsilon = rest[:7]
    return w.node("BatchNormalization", x, weight, bias, mean, variance, epsilon=epsilon)


def _pixel_shuffle(w: Writer, _node: Node, x: Value, factor: int) -> str:
    name = w.name(x)
    return w.to_shuffle.get(name, Shuffle(factor)).write(w, name)


def _reshape(w: Writer, node: Node, x: Value, *_: Any) -> str:
    return w.node("Reshape", x, w.numbers(*shape_of(node)))


def _permute(w: Writer, _node: Node, x: Value, order: Sequence[int]) -> str:
    return w.node("Transpose", x, perm=[axis % len(order) for axis in order])


def _transpose(w: Writer, node: Node, x: Value, one: int, other: int) -> str:
    order = list(range(len(shape_of(node))))
    order[one], order[other] = order[other], order[one]
    return w.node("Transpose", x, perm=order)


def _concatenate(w: Writer, _node: Node, parts: Sequence[Value], axis: int = 0) -> str:
    return w.node("Concat", *parts, axis=axis)


def _slice(
    w: Writer, _node: Node, x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    if not start and (end is None or end >= _END) and step == 1:
        return x
    ends = _END if end is None else end
    return w.node("Slice", x, w.numbers(start or 0), w.numbers(ends), w.numbers(axis), w.numbers(step))


def _select(w: Writer, _node: Node, x: Value, axis: int, index: int) -> str:
    return w.node("Gather", x, w.constant(torch.tensor(index).numpy()), axis=axis)


def _unbind(w: Writer, node: Node, x: Value, axis: int = 0) -> list[str]:
    count = shape_of(node.args[0])[axis]
    return [_select(w, node, x, axis, index) for index in range(count)]


def _split(w: Writer, node: Node, x: Value, sizes: int | Sequence[int], axis: int = 0) -> list[str]:
    total = shape_of(node.args[0])[axis]
    if isinstance(sizes, int):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
    parts = w.node("Split", x, w.numbers(*sizes), outputs=len(sizes), axis=axis)
    return cast(list[str], [parts] if len(sizes) == 1 else parts)


def _chunk(w: Writer, node: Node, x: Value, count: int, axis: int = 0) -> list[str]:
    return _split(w, node, x, -(-shape_of(node.args[0])[axis] // count), axis)


def _roll(w: Writer, node: Node, x: Value, shifts: Sequence[int], axes: Sequence[int]) -> Value:
    for shift, axis in zip(shifts, axes, strict=True):
        cut = -shift % shape_of(node)[axis]
        if cut:
            x = w.node("Concat", _slice(w, node, x, axis, cut), _slice(w, node, x, axis, 0, cut), axis=axis)
    return x


def _index(w: Writer, node: Node, x: Value, indices: Sequence[Value | None]) -> Value:
    for axis, index in enumerate(indices):
        if index is not None:
            if sum(other is not None for other in indices) > 1:
                raise NotImplementedError("several indices at once")
            x = w.node("Gather", x, index, axis=axis)
    return x


def _index_select(w: Writer, _node: Node, x: Value, axis: int, index: Value) -> str:
    return w.node("Gather", x, index, axis=axis)


def _unsqueeze(w: Writer, _node: Node, x: Value, axis: int) -> str:
    return w.node("Unsqueeze", x, w.numbers(axis))


def _mean(w: Writer, _node: Node, x: Value, axes: Sequence[int], keep: bool = False, **_: Any) -> str:
    return w.node("ReduceMean", x, w.numbers(*axes), keepdims=int(keep))


def _clamp(w: Writer, _node: Node, x: Value, low: float | None = None, high: float | None = None) -> str:
    return w.node("Clip", x, "" if low is None else low, *(() if high is None else (high,)))


def _pad(
    w: Writer, node: Node, x: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> str:
    rank = len(shape_of(node))
    before, after = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        before[-1 - i], after[-1 - i] = pad[2 * i], pad[2 * i + 1]
    names = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    filling = (float(value or 0),) if mode == "constant" else ()
    return w.node("Pad", x, w.numbers(*before, *after), *filling, mode=names[mode])


def _resize(kind: str, kernel: float = -0.75) -> Convert:
    def convert(
        w: Writer, node: Node, x: Value, _size: Any, *rest: Any
    ) -> str:  # corners follow the size, except for nearest
        corners = bool(rest[0]) if kind != "nearest" else False
        before, after = shape_of(node.args[0]), shape_of(node)
        if kernel == KEYS and any(b < a for a, b in zip(before[2:], after[2:], strict=True)):
            raise NotImplementedError("antialiasing where an image is made smaller")
        scales = torch.tensor([1.0, 1.0, *(b / a for a, b in zip(before[2:], after[2:], strict=True))])
        where = "align_corners" if corners else ("asymmetric" if kind == "nearest" else "half_pixel")
        options: dict[str, Any] = {"mode": kind, "coordinate_transformation_mode": where}
        if kind == "nearest":
            options["nearest_mode"] = "floor"
        if kind == "cubic":
            options |= {"cubic_coeff_a": kernel, "exclude_outside": int(kernel == KEYS)}
        return w.node("Resize", x, "", scales, **options)

    return convert


KEYS = -0.5
"""Parameter of Keys' cubic kernel, which PyTorch's antialiased resizing has; enlarging needs no wider one."""
OPERATORS: dict[str, Convert] = {
    "aten.conv2d.default": convolution,
    "aten.conv2d.padding": convolution,
    "aten.conv_transpose2d.input": transposed_convolution,
    "aten.linear.default": _linear,
    "aten.matmul.default": _plain("MatMul"),
    "aten.bmm.default": _plain("MatMul"),
    "aten.add.Tensor": _scaled("Add"),
    "aten.sub.Tensor": _scaled("Sub"),
    "aten.mul.Tensor": _plain("Mul"),
    "aten.div.Tensor": _plain("Div"),
    "aten.neg.default": _plain("Neg"),
    "aten.relu.default": _activation("Relu"),
    "aten.sigmoid.default": _activation("Sigmoid"),
    "aten.tanh.default": _activation("Tanh"),
    "aten.silu.default": _silu,
    "aten.leaky_relu.default": _leaky_relu,
    "aten.prelu.default": _prelu,
    "aten.gelu.default": _gelu,
    "aten.softmax.int": _softmax,
    "aten.layer_norm.default": _layer_norm,
    "aten.batch_norm.default": _batch_norm,
    NAME: _pixel_shuffle,
    "aten.view.default": _reshape,
    "aten.view_as.default": _reshape,
    "aten.reshape.default": _reshape,
    "aten.flatten.using_ints": _reshape,
    "aten.squeeze.dim": _reshape,
    "aten.permute.default": _permute,
    "aten.transpose.int": _transpose,
    "aten.cat.default": _concatenate,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.unbind.int": _unbind,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.chunk.default": _chunk,
    "aten.roll.default": _roll,
    "aten.index.Tensor": _index,
    "aten.index_select.default": _index_select,
    "aten.unsqueeze.default": _unsqueeze,
    "aten.mean.dim": _mean,
    "aten.clamp.default": _clamp,
    "aten.pad.default": _pad,
    "aten.upsample_bilinear2d.vec": _resize("linear"),
    "aten.upsample_bicubic2d.vec": _resize("cubic"),
    "aten._upsample_bicubic2d_aa.vec": _resize("cubic", KEYS),
    "aten.upsample_nearest2d.vec": _resize("nearest"),
    "aten.alias.default": _same,
    "aten.clone.default": _same,
    "aten.contiguous.default": _same,
    "aten.detach.default": _same,
    "aten.dropout.default": _same,
    "aten.to.dtype": _to_dtype,
    "aten.to.device": _to_dtype,
    "aten.type_as.default": _to_dtype,
}
"""By PyTorch's full name."""
