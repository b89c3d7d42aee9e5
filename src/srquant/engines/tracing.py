"""A network as a list of operators, for one image size or for all."""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from srquant.engines.attention import Attention, find_attentions
from srquant.engines.operators import OPERATORS, Convert
from srquant.engines.writer import Writer
from srquant.model import Model
from srquant.model.swapping import without_activation_quantizers
from srquant.support.errors import ArgumentError

_LARGER = 2
"""A constant that another one grows into by more than this is made by the engine instead of stored."""
_SMALL = 4096
"""Values that are stored in any case."""


@dataclass(frozen=True)
class Trace:
    """What a network computes.

    Args:
        graph: Operators of PyTorch.
        values: Parameters, buffers and constants, by the name of their placeholder.
        image: Name of the placeholder of the image.
    """

    graph: fx.Graph
    values: dict[str, Tensor]
    image: str

    def constants(self) -> dict[fx.Node, Tensor]:
        """Tensors that do not depend on the image, by the nodes that give them."""
        found: dict[fx.Node, Tensor] = {}
        for node in self.graph.nodes:
            if node.op == "placeholder" and node.name in self.values:
                found[node] = self.values[node.name]
            elif node.op == "call_function" and all(source in found for source in node.all_input_nodes):
                result = node.target(*_resolve(node.args, found), **_resolve(node.kwargs, found))
                if isinstance(result, Tensor):
                    found[node] = result
        return found


def trace(model: Model, height: int, width: int, batch: int = 1) -> Trace:
    """Follow a model through images of one size. Quantized layers appear as their bare multiplications.

    Args:
        model: ``n 3 h w`` in [0, 1] to ``n 3 scale·h scale·w``.
        height: In pixels.
        width: In pixels.
        batch: Images at once.

    Raises:
        ArgumentError: The network does what cannot be traced.
    """
    contract = _Contract(model).eval()
    with warnings.catch_warnings(), torch.no_grad(), _quietly():
        warnings.simplefilter("ignore")  # of PyTorch, about its own pieces
        try:
            program = torch.export.export(contract, (torch.rand(batch, 3, height, width),), strict=False)
            if any(_overwrites(node) for node in program.graph.nodes):
                program = program.run_decompositions({})  # the same operators, but each gives a new tensor
        except Exception as error:
            # What a network may do wrong here is without limit, and so are the exceptions.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ArgumentError(f"the network cannot be traced for export: {reason}") from error
    signature = program.graph_signature
    stored = {**program.state_dict, **program.constants}
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= signature.inputs_to_lifted_tensor_constants
    values = {name: cast(Tensor, stored[key]) for name, key in names.items()}
    return Trace(program.graph, values, str(next(iter(signature.user_inputs))))


def _overwrites(node: fx.Node) -> bool:
    """Whether an operator writes into one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


@contextmanager
def _quietly() -> Generator[None]:
    """Keep PyTorch from printing the stack of an error that is reported in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def same_for_all_sizes(one: Trace, other: Trace) -> bool:
    """Whether two traces, made at different sizes, are the same operators: then nothing in them depends on the size."""
    return _listing(one) == _listing(other)


def write(trace: Trace, writer: Writer, layers: Mapping[str, Convert]) -> str:
    """Write a trace's operators; gives the name of the enlarged image.

    What does not depend on the image is computed here and stored, unless that makes it larger: then the engine does it.

    Args:
        trace: Of a network.
        writer: Takes the nodes; the image is called ``images``.
        layers: Functions that write quantized layers, by the layers' names; called like those of
            :data:`~srquant.engines.operators.OPERATORS`.

    Raises:
        ArgumentError: The network uses an operator that cannot be written.
    """
    values: dict[fx.Node, Any] = {}
    attentions = find_attentions(trace.graph, trace.constants()) if writer.fixed else []
    last = {attention.result: attention for attention in attentions}
    later = {node for attention in attentions for node in attention.nodes}
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            values[node] = "images" if node.name == trace.image else trace.values[node.name]
        elif node in last:
            values[node] = _grouped(last[node], values, writer, layers)
        elif node in later:
            continue
        elif node.op == "call_function" and node.users:  # the others are checks
            values[node] = _written(node, values, writer, layers)
        elif node.op == "output":
            return writer.name(_resolve(node.args, values)[0][0])
    raise AssertionError("the trace has no output")


def _grouped(attention: Attention, values: dict[fx.Node, Any], writer: Writer, layers: Mapping[str, Convert]) -> str:
    """Write an attention, its windows cut into groups."""
    sizes = writer.numbers(*(count for count, _ in attention.groups))
    parts = {
        source: writer.node("Split", values[source], sizes, outputs=len(attention.groups), axis=0)
        for source in attention.sources
    }
    results: list[str] = []
    for number, (_, mask) in enumerate(attention.groups):
        own = values | {source: part[number] for source, part in parts.items()} | {attention.mask: mask}
        for node in attention.nodes:
            unmasked = attention.mask in node.args and not mask.any()
            own[node] = own[cast(fx.Node, node.args[0])] if unmasked else _written(node, own, writer, layers)
        results.append(writer.name(own[attention.result]))
    return writer.node("Concat", *results, axis=0)


def _written(node: fx.Node, values: dict[fx.Node, Any], writer: Writer, layers: Mapping[str, Convert]) -> Any:
    arguments, options = _resolve(node.args, values), _resolve(node.kwargs, values)
    if node.target is operator.getitem:
        return arguments[0][arguments[1]]
    given = [values[source] for source in node.all_input_nodes]
    name = str(node.target)
    if all(_constant(value) for value in given):
        computed = cast(Any, node.target)(*arguments, **options)
        if not isinstance(computed, Tensor) or name not in _GROWING or not _grows(computed, given):
            return computed
    own = layers.get(_module(node)) if name in _MULTIPLICATIONS else None
    convert = own or OPERATORS.get(name)
    if convert is None:
        raise ArgumentError(f"{_module(node) or 'the network'} uses {name}, which cannot be exported to ONNX")
    try:
        _require_float32(node)
        return convert(writer, node, *arguments, **options)
    except NotImplementedError as error:
        raise ArgumentError(
            f"{_module(node) or 'the network'} uses {name} with {error}; it cannot be exported"
        ) from error


def _require_float32(node: fx.Node) -> None:
    """Refuse what a network computes in another precision: numbers in a file are float32."""
    given = node.meta.get("val")
    if isinstance(given, Tensor) and given.is_floating_point() and given.dtype != torch.float32:
        raise NotImplementedError(f"numbers of {given.dtype}, and exported files compute in float32")


_GROWING = ("aten.add.Tensor", "aten.index.Tensor")
_MULTIPLICATIONS = (
    "aten.conv2d.default",
    "aten.conv2d.padding",
    "aten.conv_transpose2d.input",
    "aten.linear.default",
    "aten.matmul.default",
)


def _constant(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, list | tuple) and all(isinstance(part, Tensor) for part in cast(list[Any], value))
    )


def _grows(computed: Tensor, given: list[Any]) -> bool:
    sizes = [value.numel() for value in given if isinstance(value, Tensor)]
    return computed.is_floating_point() and computed.numel() > max(_SMALL, _LARGER * max(sizes, default=0))


def _module(node: fx.Node) -> str:
    """Name, in the network, of the module that an operator is in."""
    stack = cast(dict[str, tuple[str, Any]], node.meta.get("nn_module_stack") or {})
    path = list(stack.values())[-1][0] if stack else ""
    return path.split("@")[0].removeprefix("network").removeprefix(".")


def _listing(trace: Trace) -> list[tuple[str, ...]]:
    """Operators and arguments, without what a name or a size of an intermediate result could tell."""
    numbers = {node: f"%{number}" for number, node in enumerate(trace.graph.nodes)}
    return [
        (node.op, str(node.target), str(_resolve(node.args, numbers)), str(_resolve(node.kwargs, numbers)))
        for node in trace.graph.nodes
        if node.op != "placeholder"
    ]


def _resolve(arguments: Any, values: Mapping[fx.Node, Any]) -> Any:
    """Arguments of an operator with what the nodes among them gave."""

    def value(node: fx.Node) -> Any:
        return values[node]

    return map_arg(arguments, value)


class _Contract(nn.Module):
    """The network behind the face of a model: images in [0, 1] on both sides."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = without_activation_quantizers(model.network).to("cpu")
        self.value_range = self.network.value_range

    def forward(self, images: Tensor) -> Tensor:
        if self.value_range == 1:
            return self.network(images)
        return self.network(images * self.value_range) * (1 / self.value_range)
