"""A device that pretends to be a GPU, so that tests without one still find what a GPU would refuse.

Its tensors say that they lie on ``cuda:0``, and compute on the CPU. As those of a GPU they refuse to be operands beside
tensors of the CPU, to become arrays of NumPy, and to take random numbers of the CPU's generator.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda:0")


class GPUTensor(Tensor):
    """A tensor on the pretended GPU; ``held`` is a tensor of the CPU with its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> GPUTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=int(held.storage_offset()),
            dtype=held.dtype,
            layout=held.layout,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"GPUTensor({self.held})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def device(self) -> torch.device:
        """The pretended one."""
        return GPU

    is_cuda, is_cpu = True, False

    def numpy(self, **_: Any) -> Any:
        """Refused, as by a GPU."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")

    __array__ = numpy

    def untyped_storage(self) -> torch.UntypedStorage:
        """Of the values: tensors of one storage have one address."""
        return self.held.untyped_storage()

    @property
    def data(self) -> Tensor:
        """The values without history."""
        return self.detach()

    @data.setter
    def data(self, other: Tensor) -> None:
        if not isinstance(other, GPUTensor):
            raise RuntimeError("a tensor of the CPU cannot become the data of one on the GPU")
        Tensor.data.__set__(self, other)  # type: ignore[attr-defined]
        self.held = other.held

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator on the values, if a GPU would run it.

    Raises:
        RuntimeError: Its operands lie on two devices.
    """
    given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_gpu = [tensor for tensor in given if isinstance(tensor, GPUTensor)]
    name = func.overloadpacket.__name__
    target = kwargs.get("device")
    if on_gpu and name not in _BETWEEN_DEVICES:
        for tensor in given:
            index = name in _INDEXING and tensor is not given[0]
            if not isinstance(tensor, GPUTensor) and tensor.ndim and not index:
                raise RuntimeError(f"{func}: expected all tensors to be on the same device, cuda:0 and cpu are given")
    there = torch.device(target).type == "cuda" if target is not None else bool(on_gpu)
    generator = kwargs.get("generator")
    if there and generator is not None:
        raise RuntimeError(f"{func}: expected a 'cuda' device type for generator but found 'cpu'")
    if name in _BETWEEN_DEVICES and not _MOVING:  # PyTorch's own code keeps a tensor where it thinks that it is
        there = isinstance(given[0], GPUTensor)
    if target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    owners = {id(tensor.held): tensor for tensor in on_gpu}
    plain_args, plain_kwargs = pytree.tree_map_only(GPUTensor, lambda tensor: tensor.held, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)

    def back(tensor: Tensor) -> Tensor:
        if id(tensor) in owners:
            return owners[id(tensor)]
        return GPUTensor(tensor) if there else tensor

    if name == "copy_" and not isinstance(args[0], GPUTensor):
        return args[0]
    return pytree.tree_map_only(Tensor, back, result)


_BETWEEN_DEVICES = ("_to_copy", "copy_", "to", "new_empty_strided")
"""What moves a tensor, or makes one like it: gradients of another memory order are copied so, where PyTorch thinks that
the tensor is."""
_MOVING: list[torch.device] = []
"""Where a tensor is being moved to."""
_INDEXING = ("index", "index_put_", "index_put", "_unsafe_index")
"""A GPU's tensor may be indexed by one of the CPU."""


class _Devices(TorchDispatchMode):
    """Makes tensors on the pretended GPU where it is asked for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return compute(func, args, kwargs or {})


class _Moves(TorchFunctionMode):
    """Moves tensors between the CPU and the pretended GPU, of which PyTorch's own code knows nothing."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.cpu, Tensor.cuda):
            return _moved(args[0], torch.device("cpu") if func is Tensor.cpu else GPU)
        if func is Tensor.to:
            return _to(*args, **kwargs)
        if func is Tensor.tolist and isinstance(args[0], GPUTensor):
            return args[0].held.tolist()
        return func(*args, **kwargs)


def _to(tensor: Tensor, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
    rest: list[Any] = []
    for value in args:
        if isinstance(value, Tensor):
            device, kwargs = value.device, kwargs | {"dtype": value.dtype}
        elif isinstance(value, str | torch.device):
            device = value
        elif isinstance(value, torch.dtype):
            rest.append(value)
    if rest or kwargs:
        tensor = Tensor.to(tensor, *rest, **kwargs)
    return tensor if device is None else _moved(tensor, device)


def _moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        return Tensor.to(tensor, device)
    if device.type == tensor.device.type:
        return tensor
    _MOVING.append(device)
    try:
        return torch.ops.aten._to_copy.default(tensor, device=GPU if device.type == "cuda" else device)
    finally:
        _MOVING.pop()


def _made(function: Callable[..., Tensor], *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
    """Made on the CPU and moved: PyTorch does so where no mode sees it."""
    made = function(*args, **kwargs)
    return made if device is None else _moved(made, device)


def _inference(kind: type[torch.inference_mode], mode: bool = True) -> Any:
    """Without gradients only: in inference mode PyTorch wraps no tensors."""
    return torch.no_grad() if mode else kind(mode)


def _autocast(kind: type[torch.autocast], device_type: str, *args: Any, **kwargs: Any) -> torch.autocast:
    return kind("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextmanager
def pretended_gpu(count: int = 1) -> Generator[torch.device]:
    """While the body runs there are GPUs; gives the first.

    Args:
        count: How many PyTorch says that there are. Tensors are all on the first.
    """
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with (
            patch("torch.cuda.is_available", lambda: True),
            patch("torch.cuda.device_count", lambda: count),
            patch("torch.cuda._lazy_init", lambda: None),
            patch("torch.cuda.get_rng_state", lambda *_: torch.get_rng_state()),
            patch("torch.cuda.set_rng_state", lambda *_: None),
            patch("torch.cuda.get_device_name", lambda *_: "a pretended GPU"),
            patch("torch.tensor", partial(_made, torch.tensor)),
            patch("torch.as_tensor", partial(_made, torch.as_tensor)),
            patch("torch.inference_mode", partial(_inference, torch.inference_mode)),
            patch("torch.autocast", partial(_autocast, torch.autocast)),
            _Moves(),
            _Devices(),
        ):
            yield GPU
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
