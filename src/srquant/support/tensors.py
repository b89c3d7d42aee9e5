"""Small bridges whose types PyTorch leaves open."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file."""
    return safetensors.torch.load_file(path)


def save_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file. Tensors that lie in the same memory are written each for itself.

    Raises:
        OSError: The file cannot be written. (The library's own writer hides it in an error of no kind.)
    """
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    path.write_bytes(safetensors.torch.save(apart, metadata))


def as_tensor(array: NDArray[Any]) -> Tensor:
    """The array as a tensor; it shares the array's memory unless that is read-only."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def planes(pixels: NDArray[Any]) -> Tensor:
    """``h w c`` pixels as a ``c h w`` tensor; see :func:`as_tensor`."""
    return as_tensor(pixels).permute(2, 0, 1)


def in_one_layout(tensor: Tensor) -> Tensor:
    """The same values in the one memory layout that models keep: channels last where there are four axes.

    Sums are added up in an order that depends on the layout, so the same weights in another one give other last bits.
    Axes of length one have no layout of their own, but operators look at their strides too; a copy settles those.
    """
    layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    settled = torch.empty_like(tensor, memory_format=layout)
    return tensor if tensor.stride() == settled.stride() else settled.copy_(tensor)


def channels_last(network: N) -> N:
    """The network, every weight in one layout, in place: convolutions channels last, several times faster on CPUs."""
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = in_one_layout(tensor.data)
    return network


def autocast(device: torch.device, precision: Literal["auto", "float32", "bf16"]) -> torch.autocast:
    """Forward passes in a precision; auto is bf16 on a GPU and float32 elsewhere."""
    half = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


@contextmanager
def plain_arithmetic(device: torch.device) -> Generator[None]:
    """Compute in float32, with gradients where something learns, whatever the caller has entered.

    ``torch.autocast`` would round levels to its own numbers, and tensors made under ``torch.inference_mode`` cannot be
    learned from.
    """
    with torch.inference_mode(False), torch.enable_grad(), autocast(device, "float32"):
        yield


def modules_of(network: nn.Module) -> dict[str, nn.Module]:
    """All modules in a network by name, itself not among them."""
    named = cast(Iterator[tuple[str, nn.Module]], network.named_modules())
    return {name: module for name, module in named if name}


def names_of(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """All names of each module in a network, by that of :func:`modules_of`, which is the first of them."""
    named = cast(Iterator[tuple[str, nn.Module]], network.named_modules(remove_duplicate=False))
    found: dict[int, list[str]] = {}
    for name, module in named:
        if name:
            found.setdefault(id(module), []).append(name)
    return {names[0]: tuple(names) for names in found.values()}


def untie(network: nn.Module) -> bool:
    """Give every module parameters of its own, in place. Whether any were shared."""
    seen: set[int] = set()
    shared = False
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in seen:
                setattr(module, name, nn.Parameter(parameter.detach().clone(), parameter.requires_grad))
                shared = True
            seen.add(id(parameter))
    return shared


def vector_norm(values: Tensor, axes: tuple[int, ...], *, keepdim: bool = False) -> Tensor:
    """The L2 norm over some axes, in float32 at least."""
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    return cast(Tensor, torch.linalg.vector_norm(values, dim=axes, keepdim=keepdim, dtype=dtype))
