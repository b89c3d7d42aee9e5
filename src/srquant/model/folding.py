"""Batch normalisations that become part of the convolutions before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from srquant.model.observing import to_network
from srquant.model.survey import PROBE
from srquant.model.swapping import N, copy_network, replace
from srquant.networks.base import SRNetwork
from srquant.support.settings import Checked
from srquant.support.tensors import modules_of
from srquant.support.watching import hooks


@dataclass(frozen=True)
class Fold(Checked):
    """A batch normalisation that went into the convolution before it."""

    convolution: str
    norm: str
    channels: Annotated[int, Field(ge=1)]
    biased: bool
    """Whether the convolution had a bias before."""


def fold_batch_norm(network: SRNetwork) -> tuple[SRNetwork, tuple[Fold, ...]]:
    """A copy in which every batch normalisation that directly follows a convolution is part of it.

    W' = W·γ/σ, b' = (b − μ)·γ/σ + β, with σ = sqrt(var + ε). If the convolution's output has other readers, folding
    would change the result; then nothing is folded.
    """
    folded = without_overwriting(copy_network(network))
    folds = tuple(_find_folds(folded))
    if not folds:
        return folded, ()
    for fold in folds:
        convolution = cast(nn.Conv2d, folded.get_submodule(fold.convolution))
        norm = cast(nn.BatchNorm2d, folded.get_submodule(fold.norm))
        weight, bias = nn.utils.fusion.fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            cast(Tensor, norm.running_mean),
            cast(Tensor, norm.running_var),
            norm.eps,
            norm.weight,
            norm.bias,
        )
        convolution.weight, convolution.bias = weight, bias
    reshape_folded(folded, folds)
    if not _agree(network, folded):
        return without_overwriting(copy_network(network)), ()
    return folded, folds


def without_overwriting(network: N) -> N:
    """Let activations write new tensors, in place: what a hook has seen must not change afterwards."""
    for module in modules_of(network).values():
        if getattr(module, "inplace", False) is True:
            module.__dict__["inplace"] = False
    return network


def _agree(network: SRNetwork, other: SRNetwork) -> bool:
    """Whether two networks give the same, up to rounding, on noise."""
    noise = torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = (n(to_network(n, noise)) for n in (network, other))
    return bool((expected - found).abs().max() <= 1e-3 * expected.abs().max())


def reshape_folded(network: nn.Module, folds: Iterable[Fold]) -> None:
    """Give the convolutions a bias and take the normalisations out, in place; the weights are left alone."""
    for fold in folds:
        convolution = cast(nn.Conv2d, network.get_submodule(fold.convolution))
        if convolution.bias is None:
            convolution.bias = nn.Parameter(convolution.weight.new_zeros(fold.channels))
        replace(network, fold.norm, nn.Identity())


def _find_folds(network: SRNetwork) -> Iterator[Fold]:
    """Watch a forward pass: a norm folds if its input is just what a convolution gave, read by nobody else."""
    makers: dict[int, tuple[str, Tensor]] = {}
    inputs: dict[str, Tensor] = {}
    readers: Counter[int] = Counter()
    alive: list[Tensor] = []  # so that no two tensors have the same id

    def made(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        makers[id(output)] = (name, output)

    def read(name: str, module: nn.Module, operands: tuple[Any, ...]) -> None:
        for operand in operands:
            if isinstance(operand, Tensor) and not list(module.children()):
                alive.append(operand)
                readers[id(operand)] += 1
                if isinstance(module, nn.BatchNorm2d):
                    inputs[name] = operand

    modules = modules_of(network)
    if not any(isinstance(module, nn.BatchNorm2d) for module in modules.values()):
        return
    after = {name: partial(made, name) for name, module in modules.items() if type(module) is nn.Conv2d}
    before = {name: partial(read, name) for name in modules}
    device = next(network.parameters()).device
    with hooks(network, before, after), torch.no_grad():
        network(torch.zeros(1, 3, PROBE, PROBE, device=device))
    for norm, tensor in inputs.items():
        maker = makers.get(id(tensor))
        module = cast(nn.BatchNorm2d, modules[norm])
        if maker is not None and readers[id(tensor)] == 1 and module.running_mean is not None:
            biased = cast(nn.Conv2d, modules[maker[0]]).bias is not None
            yield Fold(maker[0], norm, module.num_features, biased)
