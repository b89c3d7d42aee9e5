"""Watching a forward pass: functions called around modules, and which operator made a tensor."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

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
