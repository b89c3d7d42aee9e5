"""Layers that make their weight anew in each forward pass, replaced by plain layers with the weight that they make.

``weight_norm``, ``spectral_norm``, parametrizations, pruning masks, merged LoRA weights, branches that are fused into
one convolution (SPAN), and subclasses of ``Conv2d`` or ``Linear``: none of them is looked up by name. A module is one
product if that is all that happens in its forward pass, with a weight that no image changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srquant.model.multiplications import KINDS, kind_of
from srquant.model.swapping import replace
from srquant.networks.base import SRNetwork
from srquant.support.settings import Checked
from srquant.support.tensors import modules_of, names_of
from srquant.support.watching import hooks

_Size = Annotated[int, Field(ge=0, le=65_536)]
_Sizes = _Size | tuple[_Size, ...]


@dataclass(frozen=True)
class Baked(Checked):
    """A module in whose place a plain layer is now.

    Args:
        name: Of the module.
        kind: Of the layer; see :data:`~srquant.model.multiplications.KINDS`.
        shape: Of its weight, in the layer's own order.
        biased: Whether it has a bias.
        settings: Those of the layer, but for its channels and the size of its kernel.
        replaced: What the module had in its state dict: key, kind of number, shape.
        also: Further names of the module.
    """

    name: str
    kind: Literal["conv", "conv_transpose", "linear"]
    shape: tuple[_Size, ...]
    biased: bool
    settings: dict[Literal["stride", "padding", "dilation", "groups", "output_padding", "padding_mode"], str | _Sizes]
    replaced: tuple[tuple[str, Literal["float32", "int64", "bool"], tuple[_Size, ...]], ...] = ()
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the module."""
        return (self.name, *self.also)

    def layer(self) -> nn.Module:
        """The plain layer, without memory for its weights."""
        first, second, *kernel = self.shape
        settings = cast(dict[str, Any], self.settings)
        groups = settings.get("groups", 1)
        with torch.device("meta"):
            if self.kind == "linear":
                return nn.Linear(second, first, self.biased)
            if self.kind == "conv":
                return nn.Conv2d(second * groups, first, cast(Any, tuple(kernel)), bias=self.biased, **settings)
            return nn.ConvTranspose2d(first, second * groups, cast(Any, tuple(kernel)), bias=self.biased, **settings)


def bake(network: SRNetwork) -> tuple[Baked, ...]:
    """Put plain layers in the places of modules that are one product with a weight of their own making, in place."""
    suspects = _suspects(network)
    probe = network.probe()
    found = _products(network, suspects, probe) if suspects else {}
    again = _products(network, list(found), probe.flip(-1) / 2) if found else {}
    names = names_of(network)
    baked: list[Baked] = []
    for name in suspects:
        inside_another = any(name.startswith(f"{outer.name}.") for outer in baked)
        if name in again and again[name].same_as(found[name]) and not inside_another:
            product = found[name]
            shape, biased = tuple(product.weight.shape), product.bias is not None
            settings = cast(Any, product.settings)
            replaced = tuple(_listed(network.get_submodule(name)))
            baked.append(Baked(name, product.kind, shape, biased, settings, replaced, names[name][1:]))
            put(network, baked[-1], product.weight, product.bias)
    return tuple(baked)


def _listed(module: nn.Module) -> Iterator[tuple[str, Literal["float32", "int64", "bool"], tuple[int, ...]]]:
    """The tensors of a module: key, kind of number as stored, and shape."""
    for key, value in module.state_dict().items():
        whole = "bool" if value.dtype == torch.bool else "int64"
        yield key, "float32" if value.is_floating_point() else whole, tuple(value.shape)


def put(network: nn.Module, baked: Baked, weight: Tensor, bias: Tensor | None) -> None:
    """Put a plain layer with these weights in the place of a module, in place."""
    layer = baked.layer()
    for name, value in (("weight", weight), ("bias", bias)):
        parameter = None if value is None else nn.Parameter(value.detach().clone(), requires_grad=False)
        layer.register_parameter(name, parameter)
    replace(network, baked.name, layer.eval())


def _suspects(network: nn.Module) -> list[str]:
    """Modules that may make a weight, outer ones first: those with tensors that are not all of one plain layer."""
    modules = modules_of(network)
    plain = {name for name, module in modules.items() if kind_of(module) and not vars(module)["_forward_pre_hooks"]}
    found: list[str] = []
    for name, module in modules.items():
        owners = {f"{name}.{key}".rpartition(".")[0] for key in module.state_dict(keep_vars=True)}
        if name not in plain and owners and (len(owners) > 1 or not owners <= plain):
            found.append(name)
    return found


@dataclass(frozen=True)
class _Product:
    """A product with a weight: what a module did in every one of its runs."""

    kind: Literal["conv", "conv_transpose", "linear"]
    weight: Tensor
    bias: Tensor | None
    settings: dict[str, Any]

    def same_as(self, other: _Product) -> bool:
        """Whether it is the same product, to the bit."""
        plain = (self.kind, self.settings, self.bias is None) == (other.kind, other.settings, other.bias is None)
        tensors = ((self.weight, other.weight), (self.bias, other.bias))
        return plain and all(one is None or other is None or torch.equal(one, other) for one, other in tensors)


_FUNCTIONS: dict[Any, tuple[Literal["conv", "conv_transpose", "linear"], tuple[str, ...]]] = {
    F.conv2d: ("conv", ("stride", "padding", "dilation", "groups")),
    F.conv_transpose2d: ("conv_transpose", ("stride", "padding", "output_padding", "groups", "dilation")),
    F.linear: ("linear", ()),
}
"""What layers call, and the names of the arguments after input, weight and bias."""


class _Value:
    """A tensor at a moment; it is not the same any more once something was written into it."""

    def __init__(self, value: object) -> None:
        self.value, self.version = value, value._version if isinstance(value, Tensor) else 0

    def same_as(self, other: _Value) -> bool:
        """Whether it is the same tensor, and nothing was written into it between the two moments."""
        return self.value is other.value and self.version == other.version


class _Functions(TorchFunctionMode):
    """While it is entered: the products with a weight, as functions, that the running modules call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[tuple[Any, dict[str, Any], _Value, _Value]]] = []
        """For each running module: function, arguments, input and output of each product in it."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _FUNCTIONS and self.seen:
            given = dict(zip(("input", "weight", "bias", *_FUNCTIONS[func][1]), args, strict=False)) | (kwargs or {})
            for products in self.seen:
                products.append((func, given, _Value(given["input"]), _Value(result)))
        return result


def _products(network: SRNetwork, names: Sequence[str], images: Tensor) -> dict[str, _Product]:
    """Those of some modules whose output is that of one product, the same product in each run."""
    functions = _Functions()
    operand: list[_Value | None] = []  # of each running module
    found: dict[str, _Product | None] = {}

    def enter(_module: nn.Module, operands: tuple[Any, ...]) -> None:
        functions.seen.append([])
        operand.append(_Value(operands[0]) if len(operands) == 1 else None)

    def leave(name: str, module: nn.Module, _operands: tuple[Any, ...], output: Any) -> None:
        given, product = operand.pop(), None
        for function, arguments, taken, gave in functions.seen.pop():
            if gave.same_as(_Value(output)) and given is not None:
                product = _product(module, function, arguments, given.same_as(taken))
        known = found.setdefault(name, product)
        if product is None or known is None or not product.same_as(known):
            found[name] = None

    after = {name: partial(leave, name) for name in names}
    with hooks(network, dict.fromkeys(names, enter), after), torch.no_grad(), functions:
        network(images.clone())  # some networks write into what they are given
    return {name: product for name, product in found.items() if product is not None}


def _product(module: nn.Module, function: Any, given: dict[str, Any], of_operand: bool) -> _Product | None:
    """The product whose output a module gives: it is all the module does, if its input is the module's own, or if the
    module differs from its base class in the weight alone.
    """
    kind, names = _FUNCTIONS[function]
    base = KINDS[kind].module
    if isinstance(module, base) and _computes_as(module, base):
        settings = {name: getattr(module, name) for name in (*names, "padding_mode") if hasattr(module, name)}
    elif of_operand:
        settings = {name: given[name] for name in names if name in given}
    else:
        return None
    bias = given.get("bias")
    weight = cast(Tensor, given["weight"]).detach().clone()
    return _Product(kind, weight, None if bias is None else bias.detach().clone(), settings)


def _computes_as(module: nn.Module, base: type[nn.Module]) -> bool:
    """Whether a module of a class, or of a subclass, computes what the class does."""
    return all(getattr(type(module), name, None) is getattr(base, name, None) for name in ("forward", "_conv_forward"))
