"""Watching a forward pass, and finding the ends of a network that nobody described."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from srquant.networks.base import Edges, SRNetwork
from srquant.support.tensors import modules_of
from srquant.support.watching import hooks

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


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
    after = {
        name: partial(watch_convolution, name) for name, module in modules.items() if type(module) in _CONVOLUTIONS
    }
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
