"""Modules that write their output into their input (``ReLU(inplace=True)``) are made to write new tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from srquant.networks.base import SRNetwork
from srquant.support.tensors import modules_of


def stop_overwriting(network: SRNetwork) -> None:
    """Let modules write new tensors, in place, so that what was seen of a network does not change afterwards.

    A network may count on the overwriting: SPAN's blocks return a tensor after an activation has changed it. Modules
    whose new tensors would change the network's output, by a single bit, go on overwriting.
    """
    writing = [module for module in modules_of(network).values() if vars(module).get("inplace") is True]
    if not writing:
        return
    expected = _output(network)

    def stop(modules: Sequence[nn.Module]) -> None:
        """Halve until only those are left that may not stop."""
        _set(modules, False)
        if torch.equal(_output(network), expected):
            return
        _set(modules, True)
        if len(modules) > 1:
            middle = len(modules) // 2
            stop(modules[:middle])
            stop(modules[middle:])

    stop(writing)


def _output(network: SRNetwork) -> torch.Tensor:
    with torch.no_grad():
        return network(network.probe())


def _set(modules: Sequence[nn.Module], inplace: bool) -> None:
    for module in modules:
        module.__dict__["inplace"] = inplace
