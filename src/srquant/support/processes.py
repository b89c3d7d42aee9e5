"""Several processes that ``torchrun`` started, working on one thing."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from srquant.support.errors import TrainingError


@dataclass(frozen=True)
class Processes:
    """Which of how many this process is."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

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


def is_first() -> bool:
    """Whether this process, of those that ``torchrun`` started, is the one that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def processes(device: torch.device) -> Generator[Processes]:
    """Join the group that ``torchrun`` started, or be alone.

    Raises:
        TrainingError: The group has another size than was asked for.
    """
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted == 1:
        yield Processes()
        return
    joined = not dist.is_initialized()
    if joined:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        if dist.get_world_size() != wanted:
            raise TrainingError(f"{wanted} processes were asked for, {dist.get_world_size()} run")
        yield Processes(dist.get_rank(), wanted)
    finally:
        if joined:
            dist.destroy_process_group()
