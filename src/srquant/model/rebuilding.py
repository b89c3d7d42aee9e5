"""A quantized network from what its file holds: an index, codes, and rows of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from srquant.model.baking import Baked, put
from srquant.model.folding import Fold, reshape_folded
from srquant.model.layer import CodedWeight, QuantLayer
from srquant.model.multiplications import MultiplicationKind, kind_of, turned
from srquant.model.products import route_products
from srquant.model.swapping import follow_images, replace_all
from srquant.networks.base import SRNetwork
from srquant.quantizers import ImageFactor, Quantizer, build_quantizer, without_factor
from srquant.quantizers.numerics.packing import packed_size, unpack
from srquant.support.settings import Checked, stored_as
from srquant.support.tensors import names_of, untie

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.int64, torch.bool)}
"""Of stored tensors."""
_MOST_REPLACED = 64
"""How many numbers a weight may have been made from, each; SPAN makes one from five."""
_SMALL = 1 << 20
_Size = Annotated[int, Field(ge=0, lt=1 << 40)]
_Stored = tuple[str, dict[str, Any], dict[str, tuple[_Size, ...]]]
"""A quantizer: its name, its arguments, the shapes of its bounds."""


@dataclass(frozen=True)
class StoredLayer(Checked):
    """A quantized layer."""

    name: str
    left: _Stored
    weight: _Stored | None = None
    shape: tuple[_Size, ...] = ()
    """Of the weight's codes, output channels first."""
    inputs_first: Annotated[int, Field(ge=0, le=65_536)] = 0
    """Groups of the weight, where the module has its input channels first."""
    right: _Stored | None = None
    """Where there is no weight."""
    also: tuple[str, ...] = ()
    """Further names of the module."""


@dataclass(frozen=True)
class Index(Checked):
    """What a file holds, in its order."""

    __pydantic_config__: ClassVar[ConfigDict] = Checked.__pydantic_config__ | stored_as(layers="points")

    tensors: tuple[tuple[str, Literal["float32", "int64", "bool"], tuple[_Size, ...]], ...]
    layers: tuple[StoredLayer, ...]
    images: _Stored | None = None
    """What looks at images, where quantizers follow them."""


Build = Callable[[dict[str, Tensor]], SRNetwork]
"""Makes the float network of its whole state dict."""


def rebuild(
    index: Index, blobs: Mapping[str, Tensor], build: Build, baked: Sequence[Baked], folds: Sequence[Fold]
) -> SRNetwork:
    """The quantized network of a file.

    Args:
        index: What the rows hold.
        blobs: Rows of codes and numbers, by their name.
        build: Makes the float network.
        baked: Plain layers in it, in the places of modules that made their weights.
        folds: Batch normalisations that it has no more.

    Raises:
        ValueError, LookupError, TypeError, RuntimeError, AttributeError, ArithmeticError: The parts do not fit.
        NetworkError: The weights are not of such a network.
    """
    takers = {name: _Taker(blobs.get(name, torch.empty(0)), dtype) for name, dtype in DTYPES.items()}
    floats = {key: takers[dtype].take(shape) for key, dtype, shape in index.tensors}
    codes = _Taker(blobs.get("codes", torch.empty(0)), torch.uint8)
    images = None if index.images is None else _image_factor(index.images, takers["float32"])
    left: dict[str, Quantizer] = {}
    right: dict[str, CodedWeight | Quantizer] = {}
    for stored in index.layers:
        left[stored.name] = _quantizer(stored.left, takers["float32"], images)
        if stored.weight is not None:
            quantizer = _quantizer(stored.weight, takers["float32"])
            count = prod(stored.shape)
            packed = codes.take([packed_size(count, quantizer.bits)])
            right[stored.name] = CodedWeight(unpack(packed, quantizer.bits, count).reshape(stored.shape), quantizer)
        elif stored.right is not None:
            right[stored.name] = _quantizer(stored.right, takers["float32"], images)
        else:
            raise ValueError(f"the index gives {stored.name} no right operand")
    state = dict(floats)
    for stored in index.layers:
        operand = right[stored.name]
        if isinstance(operand, CodedWeight):
            state[f"{stored.name}.weight"] = turned(without_factor(operand(), left[stored.name]), stored.inputs_first)
        for end in ("weight", "bias"):
            if (key := f"{stored.name}.{end}") in state:
                state |= {f"{other}.{end}": state[key] for other in stored.also}
    built = _float_network(build, state, baked, folds)
    route_products(built, [stored.name for stored in index.layers])
    names = {name: every for every in names_of(built).values() for name in every}
    made: dict[str, QuantLayer] = {}
    for stored in index.layers:
        if set(names.get(stored.name, ())) != {stored.name, *stored.also}:
            raise ValueError(f"the module {stored.name} has other names than the index says")
        bias = floats.get(f"{stored.name}.bias")
        made[stored.name] = _layer(stored, built, left[stored.name], right[stored.name], bias)
    replace_all(built, made)
    follow_images(built)
    return built.requires_grad_(False).eval()


def _layer(
    stored: StoredLayer, network: SRNetwork, left: Quantizer, right: CodedWeight | Quantizer, bias: Tensor | None
) -> QuantLayer:
    """The layer that takes the place of a float network's module, if it fits."""
    module = network.get_submodule(stored.name)
    kind = kind_of(module)
    if kind is None or kind.has_weight != isinstance(right, CodedWeight):
        raise ValueError(f"{stored.name} is no multiplication of the operands that the index gives it")
    product = kind.product_of(module)
    if product.inputs_first != stored.inputs_first:
        raise ValueError(f"{stored.name} has a weight in another order than the index says")
    for operand in (left, right):
        if isinstance(operand, Quantizer):
            _check_shapes(stored.name, kind, module, operand)
    return QuantLayer(product, left, right, bias)


def _check_shapes(name: str, kind: MultiplicationKind, module: nn.Module, quantizer: Quantizer) -> None:
    """Bounds of an activation are numbers; centres and factors are one for each channel."""
    shape = kind.along_channels(torch.empty(kind.channels_of(module))).shape
    others = [value.shape for bound, value in quantizer.named_parameters() if bound in ("shift", "factor")]
    whole = quantizer.gridless or quantizer.knots().ndim == 1
    if not whole or any(other != shape for other in others):
        raise ValueError(f"the bounds of {name} do not have the shape of its operand")


def _float_network(build: Build, state: dict[str, Tensor], baked: Sequence[Baked], folds: Sequence[Fold]) -> SRNetwork:
    """The float network with decoded weights, its modules baked and its batch normalisations folded as they were.

    The file has neither normalisations nor the tensors that baked weights were made from: the network is built with
    neutral ones and with zeros.
    """
    added: dict[str, Tensor] = {}
    for fold in folds:
        if fold.channels != state[f"{fold.convolution}.bias"].numel():
            raise ValueError(f"{fold.convolution} has not the {fold.channels} channels of {fold.norm}")
        if not fold.biased:
            added[fold.convolution] = state.pop(f"{fold.convolution}.bias")
        neutral = nn.BatchNorm2d(fold.channels).state_dict()
        state |= {f"{fold.norm}.{key}": value for key, value in neutral.items()}
    weights = {layer.name: (state[f"{layer.name}.weight"], state.get(f"{layer.name}.bias")) for layer in baked}
    state = _before_baking(state, baked)
    built = build(state)
    if untie(built):  # what was one parameter in the float network may be codes here and floats there
        built.load_state_dict({key: state[key] for key in built.state_dict()})
    for layer in baked:
        put(built, layer, *weights[layer.name])
    reshape_folded(built, folds)
    for name, bias in added.items():
        cast(nn.Conv2d, built.get_submodule(name)).bias = nn.Parameter(bias)
    return built


def _before_baking(state: dict[str, Tensor], baked: Sequence[Baked]) -> dict[str, Tensor]:
    """The state dict of a network whose modules still make their weights, of zeros where these were made from."""
    if not baked:
        return state
    elements = sum(prod(shape) for layer in baked for _, _, shape in layer.replaced)
    if elements > _MOST_REPLACED * sum(value.numel() for value in state.values()) + _SMALL:
        raise ValueError("the index claims that weights were made from far more numbers than any network does")
    names = {name for layer in baked for name in layer.names}
    kept = {key: value for key, value in state.items() if key.rpartition(".")[0] not in names}
    for layer in baked:
        for key, dtype, shape in layer.replaced:
            zeros = torch.zeros(shape, dtype=DTYPES[dtype])
            kept |= {f"{name}.{key}": zeros for name in layer.names}
    return kept


class _Taker:
    """Takes tensors off the front of a flat one."""

    def __init__(self, data: Tensor, dtype: torch.dtype) -> None:
        if data.numel() and (data.dtype != dtype or data.ndim != 1):
            raise ValueError(f"a row of {dtype} was wanted, not {data.dtype} of shape {tuple(data.shape)}")
        if data.is_floating_point() and not bool(data.isfinite().all()):
            raise ValueError("weights or bounds are NaN or infinite")
        self._data = data.to(dtype)
        self._start = 0

    def take(self, shape: Sequence[int]) -> Tensor:
        count = prod(shape)
        part = self._data[self._start : self._start + count]
        if part.numel() != count:
            raise ValueError("a tensor is shorter than the index says")
        self._start += count
        return part.clone().reshape(shape)


def _quantizer(description: _Stored, taker: _Taker, images: ImageFactor | None = None) -> Quantizer:
    name, arguments, shapes = description
    return build_quantizer(name, arguments, {bound: taker.take(shape) for bound, shape in shapes.items()}, images)


def _image_factor(description: _Stored, taker: _Taker) -> ImageFactor:
    name, arguments, shapes = description
    if name != ImageFactor.name:
        raise ValueError(f"images are looked at by {name!r}, which this version does not know")
    bounds = {bound: taker.take(shape) for bound, shape in shapes.items()}
    return ImageFactor(bounds["lower"], bounds["upper"], **arguments)
