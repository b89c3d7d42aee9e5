"""Watching a forward pass, and finding the ends of a network that nobody described."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from srquant.bridges import modules_of
from srquant.networks.base import Edges, SRNetwork

Hook = Callable[..., object]


@contextmanager
def hooks(
    network: nn.Module, before: Mapping[str, Hook] | None = None, after: Mapping[str, Hook] | None = None
) -> Generator[None]:
    """Call functions before or after some modules run, while the body runs.

    Args:
        network: The modules' network.
        before: Functions of (module, inputs), by the module's name; what they give, if not None, replaces the inputs.
        after: Functions of (module, inputs, output).
    """
    handles = [network.get_submodule(name).register_forward_pre_hook(call) for name, call in (before or {}).items()]
    handles += [network.get_submodule(name).register_forward_hook(call) for name, call in (after or {}).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Origins(TorchDispatchMode):
    """While it is entered: which operator computed the values of each tensor.

    Modules and plain functions are seen alike. Views, copies and shifts of a tensor count as the tensor.
    """

    _SAME_VALUES = frozenset({"clone", "_to_copy", "_unsafe_view", "roll"})

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[int, str] = {}  # by address; memory that is used again is named again

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = self._names.get(_address(args[0]), "") if args and isinstance(args[0], Tensor) else ""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view:
            made = given if name in self._SAME_VALUES else name.strip("_")
            for tensor in pytree.tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self._names[_address(tensor)] = made
        return result

    def of(self, tensor: Tensor) -> str:
        """The operator's name in ATen (``softmax``, ``gelu``, ``convolution``, …); empty if it was not seen."""
        return self._names.get(_address(tensor), "")


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def find_edges(network: nn.Module, run: Callable[[], object]) -> Edges:
    """Deduce the ends: the first and the last convolution to run, and those that enlarge.

    A convolution enlarges if it works at twice the height of the first one or more (padding inside a network makes
    smaller differences), or if its output goes straight into a pixel shuffle.

    Args:
        network: Any network.
        run: Runs the network once on a probe image, which should not be tiny.
    """
    order: list[str] = []
    enlarging: set[str] = set()
    makers: dict[int, tuple[Tensor, str]] = {}  # holds the tensors, so that ids stay unique
    heights: list[int] = []

    def watch_convolution(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        order.append(name)
        makers[id(output)] = (output, name)
        heights.append(output.shape[-2])
        if heights[-1] >= 2 * heights[0]:
            enlarging.add(name)

    def watch_shuffle(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Any) -> None:
        if id(inputs[0]) in makers:
            enlarging.add(makers[id(inputs[0])][1])

    modules = modules_of(network)
    after = {name: partial(watch_convolution, name) for name, module in modules.items() if type(module) is nn.Conv2d}
    after |= {name: watch_shuffle for name, module in modules.items() if isinstance(module, nn.PixelShuffle)}
    with hooks(network, after=after), torch.no_grad():
        run()
    names = list(dict.fromkeys(order))
    ends = {names[0], names[-1]} if names else set[str]()
    return Edges(
        first=tuple(names[:1]),
        upsampler=tuple(name for name in names if name in enlarging and name not in ends),
        last=tuple(names[-1:]) if len(names) > 1 else (),
    )


class UndescribedNetwork(SRNetwork):
    """A network that says nothing of itself: its ends are deduced from a small forward pass, its taps unknown."""

    network: nn.Module

    @cached_property
    def _edges(self) -> Edges:
        side = -(-64 // self.alignment) * self.alignment
        probe = torch.zeros(1, 3, side, side, device=next(self.parameters()).device)
        return find_edges(self, lambda: self(probe))

    @property
    def edges(self) -> Edges:
        return self._edges

    @property
    def taps(self) -> tuple[str, ...]:
        return ()
