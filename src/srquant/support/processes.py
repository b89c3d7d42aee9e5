"""Several processes that ``torchrun`` started, working on one thing, and the device on which each computes."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from srquant.support.errors import ArgumentError, TrainingError

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""What ``torchrun`` tells each process, as variables of its environment."""
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""Where they find each other."""
_WAY_OUT = "start several processes with torchrun, or unset {}"


@dataclass(frozen=True)
class Processes:
    """Which of how many this process is.

    Args:
        rank: Its number among all.
        count: How many there are.
        local: Its number among those of this machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> Self:
        """What the environment says.

        Raises:
            ArgumentError: It says only a part of what ``torchrun`` says, or what cannot be.
        """
        found = {name: os.environ[name] for name in _NUMBERS if name in os.environ}
        if not found:
            return cls()
        said = ", ".join(f"{name}={value}" for name, value in found.items())
        way_out = _WAY_OUT.format(", ".join(found))
        if missing := [name for name in _NUMBERS if name not in found]:
            raise ArgumentError(f"the environment has {said}, but no {' and no '.join(missing)}; {way_out}")
        if not all(value.isdecimal() for value in found.values()):
            raise ArgumentError(f"the environment has {said}, which are not all whole numbers; {way_out}")
        rank, count, local = (int(found[name]) for name in _NUMBERS)
        if not local <= rank < count:
            raise ArgumentError(f"the environment has {said}; ranks count from 0; {way_out}")
        if count > 1 and (missing := [name for name in _MEETING if not os.environ.get(name)]):
            raise ArgumentError(f"the environment has {said}, but no {' and no '.join(missing)}; {way_out}")
        return cls(rank, count, local)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """Make a device of a name; of the GPUs of a machine each process has its own.

        Args:
            name: ``auto`` (a GPU if there is one), or what PyTorch calls ``cpu``, ``cuda``, ``cuda:1``.

        Raises:
            ArgumentError: There is no such device here, or not one for each process.
        """
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            if self.count > 1 and device.type == "cuda":
                device = self._own_gpu(device)
            float(torch.zeros(1, device=device))  # which meta, a device without memory, cannot
        except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
            raise ArgumentError(f"device={name!r} is not available here; use auto or cpu") from error
        return device

    def _own_gpu(self, device: torch.device) -> torch.device:
        if device != torch.device("cuda"):
            raise ArgumentError(f"device={str(device)!r} is one GPU for {self.count} processes; use cuda or auto")
        if self.local >= torch.cuda.device_count():
            raise ArgumentError(
                f"device='cuda': process {self.local} of this machine has no GPU of its own, there are "
                f"{torch.cuda.device_count()}; start as many processes, or use cpu"
            )
        return torch.device("cuda", self.local)

    def part(self, total: int) -> slice:
        """The part of ``total`` items in a row that is this process's."""
        return slice(total * self.rank // self.count, total * (self.rank + 1) // self.count)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count == 1 or not tensors:
            return
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(together)
        start = 0
        for tensor in tensors:
            tensor.copy_(together[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()


@contextmanager
def processes(device: torch.device) -> Generator[Processes]:
    """Join the group that ``torchrun`` started, or be alone.

    Args:
        device: On which this process computes; with GPUs each has its own.

    Raises:
        ArgumentError: The environment says only a part of what ``torchrun`` says.
        TrainingError: The group has another size than was asked for.
    """
    own = Processes.here()
    if own.count == 1:
        yield own
        return
    joined = not dist.is_initialized()
    if joined:
        gpu = device.type == "cuda"
        dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    try:
        if (dist.get_rank(), dist.get_world_size()) != (own.rank, own.count):
            raise TrainingError(
                f"this is process {own.rank} of {own.count} by the environment, and {dist.get_rank()} of "
                f"{dist.get_world_size()} in its group"
            )
        yield own
    finally:
        if joined:
            dist.destroy_process_group()
