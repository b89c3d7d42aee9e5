"""Taking networks apart and putting them together again: points, folding, observing, swapping.

Everything here returns something new; the network it was given stays as it was.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from srquant.layers import QuantLayer
from srquant.networks.base import SRNetwork
from srquant.networks.modules import MatMul
from srquant.support.errors import ImageError, NetworkError, UnlikeWarning
from srquant.support.settings import Checked
from srquant.support.tensors import modules_of
from srquant.support.watching import Origins, hooks

N = TypeVar("N", bound=nn.Module)
Kind = Literal["conv", "linear", "matmul"]

_KINDS: dict[type[nn.Module], Kind] = {nn.Conv2d: "conv", nn.Linear: "linear", MatMul: "matmul"}
_UNLIKE = 0.03
"""Mean squared error, 15 dB; a working network is above 25 dB, also on noise."""
_PROBE = 48
"""Height and width of the image on which multiply-adds are counted."""


@dataclass(frozen=True)
class Point:
    """A multiplication that can be quantized.

    ``multiply_adds`` is per pixel of the low-resolution input; ``weights`` counts the weight's elements (0 for an
    attention product); ``origins`` names, for each operand that is an activation, the operator whose output it is
    (``softmax``, ``gelu``, ``native_layer_norm``, …; see :class:`~srquant.support.watching.Origins`).
    """

    name: str
    kind: Kind
    role: str
    multiply_adds: float
    weights: int
    origins: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """All points of a network in the order in which they run, and its multiply-adds per LR pixel, points or not.

    ``empty`` names multiplications with an operand or a weight that has no elements, as very narrow networks have them:
    they multiply nothing and are no points.
    """

    points: tuple[Point, ...]
    multiply_adds: float
    empty: tuple[str, ...] = ()


def survey(network: SRNetwork) -> Survey:
    """Find the points by running the network once on a small black image.

    Modules that never run, and subclasses that may compute something else, are no points.

    Raises:
        NetworkError: The network cannot run, or multiplies nothing.
    """
    order: dict[str, float] = {}
    empty: dict[str, None] = {}
    made: dict[str, tuple[str, ...]] = {}
    origins = Origins()
    edges = network.edges
    modules = modules_of(network)
    device = next(network.parameters()).device
    probe = torch.zeros(1, 3, _PROBE, _PROBE, device=device)

    def count(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            work = output.numel() * module.weight[0].numel()
        else:
            work = output.numel() * inputs[0].shape[-1]
        order[name] = order.get(name, 0.0) + work / _PROBE**2

    def look(name: str, module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        made[name] = tuple(origins.of(operand) for operand in operands)
        sizes = [operand.numel() for operand in operands]
        if isinstance(module, nn.Conv2d | nn.Linear):
            sizes.append(module.weight.numel())
        if not all(sizes):
            empty[name] = None

    chosen = [name for name, module in modules.items() if is_point(module)]
    before, after = ({name: partial(call, name) for name in chosen} for call in (look, count))
    with hooks(network, before, after), torch.no_grad(), FlopCounterMode(display=False) as counter, origins:
        network(probe)
    points = (
        Point(name, _KINDS[type(modules[name])], edges.role(name), work, _weights(modules[name]), made[name])
        for name, work in order.items()
        if name not in empty
    )
    total = counter.get_total_flops() / 2 / _PROBE**2
    if not total:
        raise NetworkError(f"{network.name}: not one multiplication ran on an image of {_PROBE}x{_PROBE}")
    return Survey(tuple(points), total, tuple(empty))


def is_point(module: nn.Module) -> bool:
    """Whether a module is a multiplication that can be quantized; subclasses may compute something else."""
    return type(module) in _KINDS


def _weights(module: nn.Module) -> int:
    return module.weight.numel() if isinstance(module, nn.Conv2d | nn.Linear) else 0


Observer = Callable[[str, int, Tensor], None]
"""Takes a point's name, the operand (0 left, 1 right) and the operand's value."""


def observe(
    network: SRNetwork,
    names: Iterable[str],
    batches: Iterable[Tensor],
    observer: Observer,
    outputs: Callable[[str, Tensor], None] | None = None,
) -> None:
    """Show the observer every operand of some points, batch by batch, as the float network computes them.

    Args:
        network: The float network.
        names: Points to watch.
        batches: ``n 3 h w`` in [0, 1].
        observer: Called for every operand that is an activation.
        outputs: Called with the point's name and what it gave.

    Raises:
        NetworkError: A value is NaN or infinite, or an operand has no elements; the point is named.
    """

    def show(name: str, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        for place, operand in enumerate(operands):
            if not operand.numel():
                raise NetworkError(
                    f"an operand of {name} has no elements on images of this size, though it has some at "
                    f"{_PROBE}x{_PROBE}; leave it float: layers={name}=float"
                )
            observer(name, place, operand)

    def gave(name: str, _module: nn.Module, _operands: object, output: Tensor) -> None:
        if outputs is not None:
            outputs(name, output)

    names = list(names)
    before, after = ({name: partial(call, name) for name in names} for call in (show, gave))
    with hooks(network, before, after), torch.inference_mode():
        for number, batch in enumerate(batches):
            if not bool(batch.isfinite().all()):
                raise ImageError("a calibration batch holds NaN or infinite values")
            output = network(to_network(network, batch))
            if number == 0:
                _warn_if_unlike(network, batch, output)


def _warn_if_unlike(network: SRNetwork, images: Tensor, output: Tensor) -> None:
    """Say so if what a network gave, shrunk again, is far from what it was given."""
    shrunk = nn.functional.avg_pool2d(output.cpu(), network.scale) / network.value_range
    error = float((shrunk - images).square().mean())
    if not error < _UNLIKE:
        warnings.warn(
            f"the float network's output does not look like its input (mean squared error {error:.2g} after shrinking, "
            f"images in [0, 1]); is its value range really {network.value_range:g}? Otherwise give value_range",
            UnlikeWarning,
            stacklevel=2,
        )


def to_network(network: SRNetwork, images: Tensor) -> Tensor:
    """Images in [0, 1] as a network takes them: its value range, its device, channels last in memory."""
    device = next(network.parameters()).device
    return images.to(device, memory_format=torch.channels_last) * network.value_range


def flat(tensor: Tensor) -> Tensor:
    """All values as one row, in memory order where that saves a copy."""
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.detach().reshape(1, -1)


def by_channel(tensor: Tensor, kind: Kind) -> Tensor:
    """The values of each channel as a row: axis 1 of a convolution's input, the last of a linear map's. The operand of
    an attention product counts as one channel.
    """
    if kind == "matmul":
        return flat(tensor)
    return tensor.detach().movedim(1 if kind == "conv" else -1, 0).flatten(1)


def require_finite(name: str, values: Iterable[Tensor]) -> None:
    """Refuse bounds that are not finite.

    Raises:
        NetworkError: They are not; ``name`` is named.
    """
    if not all(bool(value.isfinite().all()) for value in values):
        raise NetworkError(
            f"the input of {name} becomes NaN or infinite on the calibration images; the network is broken"
        )


def copy_network(network: N) -> N:
    """An independent copy."""
    return copy.deepcopy(network)


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of a submodule, in place."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def swap(network: N, layers: Mapping[str, QuantLayer]) -> N:
    """A copy of the network with some points replaced."""
    swapped = copy_network(network)
    for name, layer in layers.items():
        replace(swapped, name, layer)
    return swapped


def quant_layers(network: nn.Module) -> dict[str, QuantLayer]:
    """The quantized points of a network, by name."""
    return {name: module for name, module in modules_of(network).items() if isinstance(module, QuantLayer)}


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
    noise = torch.rand(1, 3, _PROBE, _PROBE, generator=torch.Generator().manual_seed(0))
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
        network(torch.zeros(1, 3, _PROBE, _PROBE, device=device))
    for norm, tensor in inputs.items():
        maker = makers.get(id(tensor))
        module = cast(nn.BatchNorm2d, modules[norm])
        if maker is not None and readers[id(tensor)] == 1 and module.running_mean is not None:
            biased = cast(nn.Conv2d, modules[maker[0]]).bias is not None
            yield Fold(maker[0], norm, module.num_features, biased)
