"""How long quantizing will take, and how much memory: a timed float pass, times what the method computes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from srquant.methods.base import Data, Method
from srquant.methods.pipeline.layer_losses import work as work_of_losses
from srquant.model import Model
from srquant.model.multiplications import kind_of
from srquant.model.observing import to_network
from srquant.model.survey import survey
from srquant.support.tensors import modules_of
from srquant.support.watching import hooks

_TIMED = 3
"""Passes; others may need the processor during some."""
_COPIES = 5
"""Of the largest output, that are in memory at once where ranges are measured."""


@dataclass(frozen=True)
class Estimate:
    """Of quantizing, here.

    Args:
        seconds: By the clock.
        memory: Bytes of the whole process, or of the GPU.
    """

    seconds: float
    memory: float

    def __str__(self) -> str:
        return f"about {_rounded(self.seconds)} and {self.memory / 2**30:.1f} GiB of memory"


def estimate(model: Model, method: Method, data: Data, clock: Callable[[], float] = time.perf_counter) -> Estimate:
    """Time passes of the float network on a patch, after a first one; the fastest of three counts.

    Args:
        model: Float, on the device where it will be quantized.
        method: Says how much it computes.
        data: What it is given.
        clock: In seconds.
    """
    network, patches = model.network, method.patches_of(data)
    images = to_network(network, patches.batch([0]))
    outputs: dict[int, int] = {}

    def note(_module: nn.Module, _operands: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs[len(outputs)] = output.nbytes

    modules = modules_of(network)
    leaves = {name: note for name, module in modules.items() if not any(module.children())}
    with torch.no_grad():
        with hooks(network, after=leaves):
            float(network(images.clone()).sum())
        seconds = math.inf
        for _ in range(_TIMED):
            start = clock()
            float(network(images.clone()).sum())  # a number, for which a GPU must have finished
            seconds = min(seconds, clock() - start)
    pixels = images.shape[-1] * images.shape[-2]
    layers = sum(kind_of(module) is not None for module in modules.values())
    multiply_adds = survey(network).multiply_adds
    work = method.work(patches, layers, multiply_adds) + work_of_losses(patches, layers)
    largest, all_of_them = max(outputs.values()) / pixels, sum(outputs.values()) / pixels
    memory = _in_use(images.device) + work.at_once * _COPIES * largest + work.kept * all_of_them + work.memory
    return Estimate(work.pixels * seconds / pixels, memory)


def _in_use(device: torch.device) -> float:
    """Bytes that the process has now."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    statistics = Path("/proc/self/statm")
    return float(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statistics.exists() else 0.0


def _rounded(seconds: float) -> str:
    if seconds < 60:
        return f"{max(math.ceil(seconds / 5) * 5, 5)} seconds"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} {'minute' if minutes == 1 else 'minutes'}" if minutes < 120 else f"{minutes / 60:.1f} hours"
