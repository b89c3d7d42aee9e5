"""Batch normalisations that become part of the convolutions before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, cast

from pydantic import Field
from torch import Tensor, nn

from srquant.model.swapping import copy_network, replace_all
from srquant.networks.base import SRNetwork
from srquant.support.settings import Checked
from srquant.support.watching import Watched, watch


@dataclass(frozen=True)
class Fold(Checked):
    """A batch normalisation that went into the convolution before it."""

    convolution: str
    norm: str
    channels: Annotated[int, Field(ge=1)]
    biased: bool
    """Whether the convolution had a bias before."""


class Folded(NamedTuple):
    """A network without the batch normalisations that could be folded, and a pass of it on its own probe."""

    network: SRNetwork
    folds: tuple[Fold, ...]
    watched: Watched


def fold_batch_norm(network: SRNetwork) -> Folded:
    """A copy in which every batch normalisation that directly follows a convolution is part of it.

    W' = W·γ/σ, b' = (b − μ)·γ/σ + β, with σ = sqrt(var + ε). A normalisation is left where anything else reads or
    overwrites the convolution's output or it has not just the tensors of a plain one, which are put back when a file is
    opened; and all of them if the results do not agree. The network runs once, and once
    more if something was folded; it is given back itself if nothing was.
    """
    watched = watch(network, network.probe())
    folds = tuple(_find_folds(network, watched))
    if folds:
        folded = copy_network(network)
        for fold in folds:
            _fold(folded, fold)
        reshape_folded(folded, folds)
        again = watch(folded, folded.probe())
        if _agree(watched.output, again.output):
            return Folded(folded, folds, again)
    return Folded(network, (), watched)


def _fold(network: SRNetwork, fold: Fold) -> None:
    convolution = cast(nn.Conv2d, network.get_submodule(fold.convolution))
    norm = cast(nn.BatchNorm2d, network.get_submodule(fold.norm))
    convolution.weight, convolution.bias = nn.utils.fusion.fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        cast(Tensor, norm.running_mean),
        cast(Tensor, norm.running_var),
        norm.eps,
        norm.weight,
        norm.bias,
    )


def _agree(expected: Tensor, found: Tensor) -> bool:
    """Whether two outputs are the same up to rounding."""
    return bool((expected - found).abs().max() <= 1e-3 * expected.abs().max())


def reshape_folded(network: nn.Module, folds: Sequence[Fold]) -> None:
    """Give the convolutions a bias and take the normalisations out, in place; the weights are left alone."""
    for fold in folds:
        convolution = cast(nn.Conv2d, network.get_submodule(fold.convolution))
        if convolution.bias is None:
            convolution.bias = nn.Parameter(convolution.weight.new_zeros(fold.channels))
    replace_all(network, {fold.norm: nn.Identity() for fold in folds})


def _find_folds(network: SRNetwork, watched: Watched) -> Iterator[Fold]:
    """Normalisations whose every input is just what one convolution gave, read and overwritten by nobody else."""
    runs = watched.by_name()
    plain = nn.BatchNorm2d(1).state_dict().keys()
    modules = {name: network.get_submodule(name) for name in runs if len(watched.names[name]) == 1}
    makers = {
        call.output: call.name for name, calls in runs.items() if type(modules.get(name)) is nn.Conv2d for call in calls
    }
    for name, norm in modules.items():
        if not isinstance(norm, nn.BatchNorm2d) or norm.state_dict().keys() != plain:
            continue
        inputs = {operand for call in runs[name] for operand in call.operands}
        found = {makers.get(operand) for operand in inputs}
        read_elsewhere = any(set(watched.readers.get(operand.value, ())) != {name} for operand in inputs)
        maker = found.pop() if len(found) == 1 else None
        if maker is not None and not read_elsewhere and len(inputs) == len(runs[maker]):
            yield Fold(maker, name, norm.num_features, cast(nn.Conv2d, modules[maker]).bias is not None)
