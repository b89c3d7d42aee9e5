"""Where compiled code takes over from tensor operations, and how tensors are handed to it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

_WORTH_IT = 1 << 12
"""Values."""


def compiled(x: Tensor, kernels: str) -> Any:
    """A module of compiled functions, or None: where Numba is not installed, or for tensors that they do not take.

    They take float32 and bfloat16 tensors of the CPU that fill a stretch of memory without gaps.

    Args:
        x: What they shall work on.
        kernels: The module's name; it is imported when it is first needed, as compiling takes a moment.
    """
    fits = x.device.type == "cpu" and x.numel() >= _WORTH_IT and x.dtype in (torch.float32, torch.bfloat16)
    return _load(kernels) if fits and x.permute(memory_order(x)).is_contiguous() else None


@cache
def _load(kernels: str) -> Any:
    try:
        return import_module(kernels)
    except (ImportError, RuntimeError):  # Numba is an extra; and it finds no folder to keep what it compiles
        return None


def memory_order(x: Tensor) -> list[int]:
    """The axes as they lie in memory, slowest first."""
    return sorted(range(x.ndim), key=lambda axis: (int(x.stride(axis)), x.shape[axis]), reverse=True)


def flat_array(tensor: Tensor, like: Tensor) -> NDArray[Any]:
    """The values as float32, in the order in which ``like`` has them in memory.

    Args:
        tensor: float32 or bfloat16, on the CPU; copied if it is bfloat16 or laid out in another way.
        like: A tensor without gaps, of the same shape.
    """
    return tensor.detach().permute(memory_order(like)).float().contiguous().view(-1).numpy()
