"""Watching a forward pass: functions called around modules, and a record of what modules and operators did."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from srquant.support.tensors import names_of

Hook = Callable[..., object]


def operands_of(module: nn.Module, given: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a module was called with, in the order of its parameters, whether passed by position or by name.

    Raises:
        TypeError: The module does not take these.
    """
    if not named:
        return tuple(given)
    bound = inspect.signature(module.forward).bind(*given, **named)
    return (*bound.args, *bound.kwargs.values())


@contextmanager
def hooks(
    network: nn.Module, before: Mapping[str, Hook] | None = None, after: Mapping[str, Hook] | None = None
) -> Generator[None]:
    """Call functions before or after some modules run, while the body runs.

    Args:
        network: The modules' network.
        before: Functions of (module, operands), by the module's name. Operands are what the module was given, in the
            order of its parameters, whether by position or by name; what a function gives, if not None, replaces them.
        after: Functions of (module, operands, output).
    """

    def start(call: Hook, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        replaced = call(module, operands_of(module, given, named))
        return None if replaced is None else (replaced, {})

    def end(call: Hook, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        call(module, operands_of(module, given, named), output)

    handles = [
        network.get_submodule(name).register_forward_pre_hook(partial(start, call), with_kwargs=True)
        for name, call in (before or {}).items()
    ]
    handles += [
        network.get_submodule(name).register_forward_hook(partial(end, call), with_kwargs=True)
        for name, call in (after or {}).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Seen:
    """A tensor as a module took or gave it.

    Args:
        value: Number of its values. Views have that of their base; an operator that computes or overwrites values makes
            a new number.
        shape: Of the tensor.
        strides: In values.
        offset: Of its first value in memory, in values.
    """

    value: int
    shape: torch.Size
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Call:
    """One run of a module.

    Args:
        name: Of the module; the first one, if it has several.
        operands: The tensors it took, in the order of its parameters, as they were before it ran.
        output: What it gave; None if that was no tensor.
        plain: Whether it took nothing else and gave a tensor.
    """

    name: str
    operands: tuple[Seen, ...]
    output: Seen | None
    plain: bool


@dataclass(frozen=True)
class Watched:
    """What happened in one forward pass.

    Args:
        calls: Runs of modules, in the order in which they ended.
        readers: By number of a value: the innermost module around each operator that read or overwrote it; empty for
            the network itself, also where it gave the value back. Functions, methods and modules are seen alike.
        origins: By number of a value: the operator in ATen that computed it (``softmax``, ``gelu``, ``convolution``,
            …). Copies and shifts of a tensor count as the tensor. Empty if it was not seen.
        names: All names of each module, by the first one.
        multiply_adds: Of the whole pass.
        multiply_adds_in: Of each module without those inside it, by its first name; of the network itself under "".
        pixels: Height times width of the images that went in.
        output: What came out.
    """

    calls: tuple[Call, ...]
    readers: Mapping[int, tuple[str, ...]]
    origins: Mapping[int, str]
    names: Mapping[str, tuple[str, ...]]
    multiply_adds: float
    multiply_adds_in: Mapping[str, float]
    pixels: int
    output: Tensor

    def by_name(self) -> dict[str, list[Call]]:
        """The runs of each module that ran, in the order in which modules first ended."""
        found: dict[str, list[Call]] = {}
        for call in self.calls:
            found.setdefault(call.name, []).append(call)
        return found


def watch(network: nn.Module, images: Tensor) -> Watched:
    """Run a network once, and write down what its modules and operators did. No tensor but the output is kept.

    Args:
        network: ``n 3 h w`` to one tensor.
        images: What it shall run on.
    """
    operators = _Operators()
    calls: list[Call] = []
    taken: list[tuple[Seen, ...]] = []  # of the modules that are running

    def enter(name: str, _module: nn.Module, operands: tuple[Any, ...]) -> None:
        operators.running.append(name)
        taken.append(tuple(operators.seen(operand) for operand in operands if isinstance(operand, Tensor)))

    def leave(name: str, _module: nn.Module, operands: tuple[Any, ...], output: Any) -> None:
        operators.running.pop()
        own = taken.pop()
        plain = len(own) == len(operands) and isinstance(output, Tensor)
        calls.append(Call(name, own, operators.seen(output) if isinstance(output, Tensor) else None, plain))

    names = names_of(network)
    before, after = ({name: partial(call, name) for name in names} for call in (enter, leave))
    with hooks(network, before, after), torch.no_grad(), operators:
        output = network(images)
    operators.read(output)
    readers = {value: tuple(found) for value, found in operators.readers.items()}
    pixels = images.shape[-2] * images.shape[-1]
    work = operators.multiply_adds
    return Watched(tuple(calls), readers, operators.origins, names, sum(work.values()), work, pixels, output)


def _of_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Operations of softmax(query·keyᵀ)·value, two for each multiply-add, as in PyTorch's table."""
    return 2 * query.numel() * key.shape[-2] + 2 * query.shape[:-1].numel() * value.shape[-2:].numel()


def _operations(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Multiplications and additions of a product of tensors; 0 for all other operators."""
    packet = func.overloadpacket
    if packet in flop_registry:
        return flop_registry[packet](*args, **kwargs, out_val=result)
    if packet.__name__.startswith("_scaled_dot_product"):  # those of processors are not in PyTorch's table
        return _of_attention(*args, **kwargs)
    return 0


class _Operators(TorchDispatchMode):
    """While it is entered: what operators read and compute."""

    _SAME_VALUES = frozenset({"clone", "_to_copy", "_unsafe_view", "roll"})

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []
        self.readers: dict[int, list[str]] = {}
        self.origins: dict[int, str] = {}
        self.multiply_adds: dict[str, float] = {}
        self._values: dict[int, int] = {}  # by address; memory that is used again holds new values
        self._count = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.is_view:
            return func(*args, **kwargs)
        given = self.origins.get(self._value(args[0]), "") if args and isinstance(args[0], Tensor) else ""
        self.read((args, kwargs))
        result = func(*args, **kwargs)
        if operations := _operations(func, args, kwargs, result):
            within = self.running[-1] if self.running else ""
            self.multiply_adds[within] = self.multiply_adds.get(within, 0.0) + operations / 2
        name = func.overloadpacket.__name__
        for tensor in (*_tensors(_overwritten(func, args, kwargs)), *_tensors(result)):
            self._values.pop(_address(tensor), None)
            self.origins[self._value(tensor)] = given if name in self._SAME_VALUES else name.strip("_")
        return result

    def read(self, tree: Any) -> None:
        """Note that the values of tensors were read."""
        for value in {self._value(tensor) for tensor in _tensors(tree)}:
            self.readers.setdefault(value, []).append(self.running[-1] if self.running else "")

    def seen(self, tensor: Tensor) -> Seen:
        return Seen(self._value(tensor), tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def _value(self, tensor: Tensor) -> int:
        address = _address(tensor)
        if address not in self._values:
            self._count += 1
            self._values[address] = self._count
        return self._values[address]


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _overwritten(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operator writes into."""
    written = [argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments]
    names = {argument.name for argument, own in zip(func._schema.arguments, written, strict=True) if own}
    given = [value for value, own in zip(args, written, strict=False) if own]
    return given + [value for name, value in kwargs.items() if name in names]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
