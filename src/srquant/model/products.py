"""Products of two activations in networks of other people, made modules: so they are found and replaced like layers.

Attention multiplies by ``@``, ``bmm``, ``einsum`` or ``scaled_dot_product_attention``, which are functions and not
modules. Each product gets a :class:`~srquant.networks.modules.MatMul` in the module whose forward pass computes it, by
the name ``product_0``, ``product_1`` … in the order of the pass; and while that forward pass runs, its products go
through them. Nothing else has to know: calibration, learning, ``--layer``, files and exporting see modules.

An attention in one function (``scaled_dot_product_attention``) is two products; it is computed as such from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial, wraps
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srquant.model.multiplications import kind_of
from srquant.networks.base import SRNetwork
from srquant.networks.modules import MatMul, multiplied
from srquant.support.tensors import modules_of
from srquant.support.watching import hooks

_NAME = "product_"
_ROUTED = "products_are_modules"
"""Marks classes whose products go through modules."""
_SAME = 1e-3
"""Difference of two outputs, as a part of their largest value, that products in another form may make."""

_Product = Callable[[int, Tensor, Tensor], Tensor]
"""Takes the number of a product of a function, 0 or 1, and ``… n k`` and ``… k m``; gives ``… n m``."""
_Function = Callable[[_Product], Tensor]
"""A function of two activations, written with products."""


def name_products(network: SRNetwork) -> None:
    """Make the products of activations that are functions modules, in place.

    What the network computes stays the same up to the order of sums; where it does not, nothing is changed.
    """
    probe = network.probe()
    calls = _Calls()
    with hooks(network, *calls.hooks(network)), torch.no_grad(), calls:
        expected = network(probe.clone())  # some networks write into what they are given
    names = [f"{owner}.{_NAME}{number}" for owner, count in calls.counts.items() for number in range(count)]
    route_products(network, names)
    if not names:
        return
    if not _computes(network, probe, expected):
        for owner in calls.counts:
            _unroute(network.get_submodule(owner))


def _computes(network: SRNetwork, images: Tensor, expected: Tensor) -> bool:
    try:
        with torch.no_grad():
            found = network(images.clone())
    except Exception:  # of the network's own code, which may raise anything
        return False
    return torch.allclose(found, expected, rtol=0, atol=_SAME * float(expected.abs().max()), equal_nan=True)


def route_products(network: nn.Module, names: Iterable[str]) -> None:
    """Put modules in the places of functions, in place.

    Args:
        network: Its modules compute products by functions.
        names: Of modules, as :func:`name_products` gives them; other names are left alone.
    """
    modules = modules_of(network)
    for name in names:
        owner, _, own = name.rpartition(".")
        if name in modules or not own.removeprefix(_NAME).isdecimal() or owner not in modules:
            continue
        module = modules[owner]
        module.add_module(own, MatMul())
        if not _is_routed(module):
            module.__class__ = _routed(type(module))


@cache
def _routed(kind: type[nn.Module]) -> type[nn.Module]:
    """A class that does the same, its products through modules."""
    forward = kind.forward

    @wraps(forward)
    def run(self: nn.Module, *given: Any, **named: Any) -> Any:
        with _Routing(self):
            return forward(self, *given, **named)

    return type(kind.__name__, (kind,), {"forward": run, "__module__": kind.__module__, _ROUTED: True})


def _is_routed(module: nn.Module) -> bool:
    return _ROUTED in vars(type(module))


def _unroute(module: nn.Module) -> None:
    if _is_routed(module):
        for name in [name for name, child in module.named_children() if _is_product(name, child)]:
            delattr(module, name)
        module.__class__ = type(module).__bases__[0]


def _is_product(name: str, child: nn.Module) -> bool:
    return name.startswith(_NAME) and isinstance(child, MatMul)


def _can_be_routed(module: nn.Module) -> bool:
    """Whether another class changes its forward pass. A layer's own product is a layer already."""
    own = "forward" in vars(module) or isinstance(module, torch.jit.ScriptModule)
    return not own and kind_of(module) is None


class _Functions(TorchFunctionMode):
    """While it is entered: functions that are products of two activations are done in another way."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        written = None if func not in _WRITTEN else _WRITTEN[func](*args, **(kwargs or {}))
        plain = partial(func, *args, **(kwargs or {}))
        return (
            plain() if written is None else self.of(written, 2 if func is F.scaled_dot_product_attention else 1, plain)
        )

    def of(self, written: _Function, count: int, plain: Callable[[], Any]) -> Any:
        """What a function gives.

        Args:
            written: The function, written with products.
            count: How many products it is.
            plain: The function as it is.
        """
        raise NotImplementedError


class _Calls(_Functions):
    """Counts the products in each module's own forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self._running: list[tuple[str, list[None]]] = []

    def hooks(self, network: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is to be called before and after modules run."""

        def enter(name: str, _module: nn.Module, _operands: object) -> None:
            self._running.append((name, []))

        def leave(name: str, _module: nn.Module, _operands: object, _output: object) -> None:
            _, seen = self._running.pop()
            if seen:
                self.counts[name] = max(len(seen), self.counts.get(name, 0))

        able = [name for name, module in modules_of(network).items() if _can_be_routed(module)]
        return {name: partial(enter, name) for name in able}, {name: partial(leave, name) for name in able}

    def of(self, written: _Function, count: int, plain: Callable[[], Any]) -> Any:
        if self._running:
            self._running[-1][1].extend([None] * count)
        return plain()


class _Routing(_Functions):
    """While a module's forward pass runs: its products go through the modules that it has for them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module, self._done, self._within = module, 0, 0

    def __enter__(self) -> Any:
        self._outer = [mode for mode in _entered() if isinstance(mode, _Routing)]
        for mode in self._outer:
            mode._within += 1
        return super().__enter__()

    def __exit__(self, *error: Any) -> Any:
        for mode in self._outer:
            mode._within -= 1
        return super().__exit__(*error)

    def of(self, written: _Function, count: int, plain: Callable[[], Any]) -> Any:
        if self._within:  # it is another module's product
            return plain()
        start, self._done = self._done, self._done + count
        own = [getattr(self._module, f"{_NAME}{start + number}", None) for number in range(count)]
        if not any(own):
            return plain()

        def product(number: int, left: Tensor, right: Tensor) -> Tensor:
            module = own[number]
            return multiplied(left, right) if module is None else cast(Tensor, module(left, right))

        return written(product)


def _entered() -> list[TorchFunctionMode]:
    return cast(Any, torch.overrides)._get_current_function_mode_stack()


def _product_of(left: object, right: object) -> _Function | None:
    if not (isinstance(left, Tensor) and isinstance(right, Tensor)) or min(left.ndim, right.ndim) < 2:
        return None
    return lambda product: product(0, left, right)


def _matmul(input: object, other: object = None, *, mat2: object = None, **more: Any) -> _Function | None:
    return None if more else _product_of(input, mat2 if other is None else other)


def _turned(other: object, input: object) -> _Function | None:
    return _product_of(input, other)


def _einsum(equation: object, *operands: Any) -> _Function | None:
    """Of two operands, each letter once in each: ``b… n… k…`` times ``b… k… m…``."""
    tensors = (
        cast(Sequence[Any], operands[0]) if len(operands) == 1 and not isinstance(operands[0], Tensor) else operands
    )
    if not isinstance(equation, str) or len(tensors) != 2 or "." in equation:
        return None
    sources, arrow, target = equation.replace(" ", "").partition("->")
    if not arrow or sources.count(",") != 1:
        return None
    first, second = sources.split(",")
    if any(len(set(letters)) < len(letters) for letters in (first, second, target)):
        return None
    batch = [letter for letter in first if letter in second and letter in target]
    summed = [letter for letter in first if letter in second and letter not in target]
    rows = [letter for letter in first if letter not in second]
    columns = [letter for letter in second if letter not in first]
    if not summed or {*batch, *rows, *columns} != set(target):
        return None
    left, right = cast(tuple[Tensor, Tensor], tuple(tensors))
    sizes = dict(zip(first, left.shape, strict=True)) | dict(zip(second, right.shape, strict=True))

    def laid_out(operand: Tensor, letters: str, *groups: list[str]) -> Tensor:
        ordered = operand.permute([letters.index(letter) for group in (batch, *groups) for letter in group])
        return ordered.reshape([sizes[letter] for letter in batch] + [_many(sizes, group) for group in groups])

    def written(product: _Product) -> Tensor:
        found = product(0, laid_out(left, first, rows, summed), laid_out(right, second, summed, columns))
        order = [*batch, *rows, *columns]
        found = found.reshape([sizes[letter] for letter in order])
        return found.permute([order.index(letter) for letter in target])

    return written


def _many(sizes: dict[str, int], letters: Iterable[str]) -> int:
    count = 1
    for letter in letters:
        count = count * sizes[letter]
    return count


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> _Function | None:
    """softmax(query·keyᵀ·scale + mask)·value, as PyTorch documents it."""
    if dropout_p or is_causal or enable_gqa:
        return None
    factor = query.shape[-1] ** -0.5 if scale is None else scale

    def written(product: _Product) -> Tensor:
        scores = product(0, query * factor, key.transpose(-2, -1))
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return product(1, scores.softmax(-1), value)

    return written


_WRITTEN: dict[Any, Callable[..., _Function | None]] = {
    torch.matmul: _matmul,
    torch.bmm: _matmul,
    torch.mm: _matmul,
    Tensor.matmul: _matmul,
    Tensor.bmm: _matmul,
    Tensor.mm: _matmul,
    Tensor.__matmul__: _matmul,
    Tensor.__rmatmul__: _turned,
    torch.einsum: _einsum,
    F.scaled_dot_product_attention: _attention,
}
"""What is a product of two activations; each gives None where it is none that can be written with ``@``."""
