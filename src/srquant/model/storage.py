"""The file of a quantized model: safetensors, weights packed at their own number of bits, a JSON header.

Header (safetensors metadata, key ``srquant.model``): format version and a :class:`Record`, readable as it is.
Tensors:

- ``index``: zlib-compressed JSON; every stored tensor's name, dtype and shape, every quantizer's kind and arguments;
  further names of a layer (``also``), and the groups of its weight where the module has inputs first
  (``inputs_first``; codes always have outputs first);
- ``codes``: the packed codes of all quantized weights, layer after layer, each starting at a byte;
- one tensor for each dtype (``float32``, …): all other tensors and the quantizers' bounds, one after the other.

Few, large tensors, because every named tensor costs about 100 bytes of header. Nothing in the file is code, and opening
it imports no method.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from srquant.model.folding import reshape_folded
from srquant.model.layer import CodedWeight, QuantLayer
from srquant.model.multiplications import MultiplicationKind, kind_of, turned
from srquant.model.record import Record
from srquant.model.swapping import copy_network, quant_layers, replace
from srquant.networks.base import SRNetwork, check_keys
from srquant.networks.checkpoint import read_metadata
from srquant.networks.custom import CustomConfig, CustomNetwork
from srquant.networks.opening import network_named
from srquant.quantizers import Quantizer, build_quantizer
from srquant.quantizers.numerics.packing import pack, packed_size, unpack
from srquant.support.errors import ArgumentError, ModelFileError, NetworkError, SrquantError
from srquant.support.files import replacing
from srquant.support.settings import Checked, from_json, stored_as, to_json
from srquant.support.tensors import names_of, save_safetensors, untie

HEADER = "srquant.model"
FORMAT = 1
_LARGEST_INDEX = 64 << 20
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.int64, torch.bool)}


@dataclass(frozen=True)
class _Format(Checked):
    """What a header of every format has."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    format: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class _Header(Checked):
    format: int
    network: str
    config: dict[str, Any]
    record: Record


_Size = Annotated[int, Field(ge=0, lt=1 << 40)]
_Stored = tuple[str, dict[str, Any], dict[str, tuple[_Size, ...]]]
"""A quantizer: its name, its arguments, the shapes of its bounds."""


@dataclass(frozen=True)
class _StoredLayer(Checked):
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
class _Index(Checked):
    __pydantic_config__: ClassVar[ConfigDict] = Checked.__pydantic_config__ | stored_as(layers="points")

    tensors: tuple[tuple[str, Literal["float32", "int64", "bool"], tuple[_Size, ...]], ...]
    layers: tuple[_StoredLayer, ...]


def is_model_file(path: Path) -> bool:
    """Whether a file is a quantized model of this project, by its header."""
    return HEADER in read_metadata(path)


def write_model(path: Path, network: SRNetwork, record: Record) -> None:
    """Write a quantized network, all or nothing.

    Args:
        path: A ``.safetensors`` file.
        network: Its quantized layers are finished :class:`QuantLayer`.
        record: Goes into the header.

    Raises:
        OutputError: The file cannot be written.
    """
    layers = quant_layers(network)
    names = {name: names for name, names in names_of(network).items() if name in layers}
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    floats = {key: _storable(value) for key, value in state.items() if not _belongs_to(key, names)}
    floats |= {f"{name}.bias": layer.bias.detach().cpu() for name, layer in layers.items() if layer.bias is not None}
    bounds: list[Tensor] = []
    codes: list[Tensor] = []
    described: list[dict[str, Any]] = []
    for name, layer in layers.items():
        stored: dict[str, Any] = {"name": name, "left": _describe(layer.left, bounds)}
        if isinstance(layer.right, CodedWeight):
            packed = layer.right.get_buffer("codes").cpu()
            stored |= {"weight": _describe(layer.right.quantizer, bounds), "shape": list(packed.shape)}
            if layer.product.inputs_first:
                stored["inputs_first"] = layer.product.inputs_first
            codes.append(pack(packed, layer.right.quantizer.bits))
        else:
            stored["right"] = _describe(cast(Quantizer, layer.right), bounds)
        if len(names[name]) > 1:
            stored["also"] = list(names[name][1:])
        described.append(stored)
    tensors = [[key, str(value.dtype).removeprefix("torch."), list(value.shape)] for key, value in floats.items()]
    index = json.dumps({"tensors": tensors, "points": described}, separators=(",", ":")).encode()
    blobs = {"index": torch.frombuffer(bytearray(zlib.compress(index, 9)), dtype=torch.uint8)}
    if codes:
        blobs["codes"] = torch.cat(codes)
    for dtype_name, dtype in _DTYPES.items():
        parts = [value.reshape(-1) for value in floats.values() if value.dtype == dtype]
        parts += bounds if dtype == torch.float32 else []
        if parts:
            blobs[dtype_name] = torch.cat(parts)
    header = {"format": FORMAT, "network": network.name, "config": to_json(network.config), "record": to_json(record)}
    with replacing(path) as temporary:
        save_safetensors(blobs, temporary, {HEADER: json.dumps(header)})


def read_model(path: Path, module: nn.Module | None = None) -> tuple[SRNetwork, Record]:
    """Open a quantized model.

    Args:
        path: What :func:`write_model` wrote.
        module: The float ``nn.Module``, where the model was made from one passed from Python.

    Raises:
        ArgumentError: Such a module is needed and not given, or given and not needed.
        ModelFileError: The file is damaged, cut short, or of a newer format.
        MissingExtraError: The network needs an optional dependency.
    """
    text, blobs = _read(path)
    header = _header(path, text)
    if (module is None) == (header.network == CustomNetwork.name):
        raise ArgumentError(
            f"{path} holds a network that was passed from Python; open it there with load(path, network=module)"
            if module is None
            else f"{path} holds a network of the kind {header.network}, which needs no module"
        )
    kind = CustomNetwork if module is not None else network_named(header.network)
    try:
        return _rebuild(header, blobs, kind, module), header.record
    except NetworkError as error:
        raise ModelFileError(f"{path} does not fit its network: {error}") from error
    except ArgumentError as error:
        raise ModelFileError(f"{path} is damaged: {error}") from error
    except SrquantError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError, zlib.error) as error:
        raise ModelFileError(f"{path} is damaged: {type(error).__name__}: {_first_line(error)}") from error


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The header and all tensors."""
    try:
        with safe_open(path, "pt") as file:  # pyright: ignore[reportUnknownVariableType]
            handle = cast(Any, file)
            return handle.metadata()[HEADER], {key: handle.get_tensor(key) for key in list(handle.keys())}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} is no model file, or is damaged or cut short: {_first_line(error)}") from error


def _header(path: Path, text: str) -> _Header:
    """The header, checked; that of a newer format only as far as to know that it is one."""
    try:
        found = from_json(_Format, text).format
        if found > FORMAT:
            raise ModelFileError(
                f"{path} has format {found}; this version of srquant reads up to {FORMAT}: update srquant"
            )
        return from_json(_Header, text)
    except ArgumentError as error:
        raise ModelFileError(f"{path} is damaged: in its header, {error}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _rebuild(
    header: _Header, blobs: Mapping[str, Tensor], kind: type[SRNetwork], module: nn.Module | None
) -> SRNetwork:
    index = _unpack_index(blobs["index"])
    takers = {name: _Taker(blobs.get(name, torch.empty(0)), dtype) for name, dtype in _DTYPES.items()}
    floats = {key: takers[dtype].take(shape) for key, dtype, shape in index.tensors}
    codes = _Taker(blobs.get("codes", torch.empty(0)), torch.uint8)
    left: dict[str, Quantizer] = {}
    right: dict[str, CodedWeight | Quantizer] = {}
    for stored in index.layers:
        left[stored.name] = _quantizer(stored.left, takers["float32"])
        if stored.weight is not None:
            quantizer = _quantizer(stored.weight, takers["float32"])
            count = prod(stored.shape)
            packed = codes.take([packed_size(count, quantizer.bits)])
            right[stored.name] = CodedWeight(unpack(packed, quantizer.bits, count).reshape(stored.shape), quantizer)
        elif stored.right is not None:
            right[stored.name] = _quantizer(stored.right, takers["float32"])
        else:
            raise ValueError(f"the index gives {stored.name} no right operand")
    state = dict(floats)
    for stored in index.layers:
        operand = right[stored.name]
        if isinstance(operand, CodedWeight):
            state[f"{stored.name}.weight"] = turned(operand(), stored.inputs_first)
        for end in ("weight", "bias"):
            if (key := f"{stored.name}.{end}") in state:
                state |= {f"{other}.{end}": state[key] for other in stored.also}
    built = _float_network(kind, header, state, module)
    names = {name: every for every in names_of(built).values() for name in every}
    for stored in index.layers:
        if set(names.get(stored.name, ())) != {stored.name, *stored.also}:
            raise ValueError(f"the module {stored.name} has other names than the index says")
        bias = floats.get(f"{stored.name}.bias")
        replace(built, stored.name, _layer(stored, built, left[stored.name], right[stored.name], bias))
    return built.requires_grad_(False).eval()


def _layer(
    stored: _StoredLayer, network: SRNetwork, left: Quantizer, right: CodedWeight | Quantizer, bias: Tensor | None
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
    """Bounds of an activation are numbers, centres one for each channel."""
    centres = dict(quantizer.named_parameters()).get("shift")
    shape = kind.along_channels(torch.empty(kind.channels_of(module))).shape
    if quantizer.knots().ndim != 1 or (centres is not None and centres.shape != shape):
        raise ValueError(f"the bounds of {name} do not have the shape of its operand")


def _unpack_index(data: Tensor) -> _Index:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data.numpy().tobytes(), _LARGEST_INDEX)
    if not unpacker.eof:
        raise ValueError("the index is cut short or larger than any network needs")
    return from_json(_Index, text, "index")


def _float_network(
    kind: type[SRNetwork], header: _Header, state: dict[str, Tensor], module: nn.Module | None
) -> SRNetwork:
    """The float network with decoded weights, batch normalisations folded as they were."""
    added: dict[str, Tensor] = {}
    folds = header.record.folds
    for fold in folds:
        # The file has no normalisations any more; the network is built with neutral ones first.
        if fold.channels != state[f"{fold.convolution}.bias"].numel():
            raise ValueError(f"{fold.convolution} has not the {fold.channels} channels of {fold.norm}")
        if not fold.biased:
            added[fold.convolution] = state.pop(f"{fold.convolution}.bias")
        neutral = nn.BatchNorm2d(fold.channels).state_dict()
        state |= {f"{fold.norm}.{key}": value for key, value in neutral.items()}
    if module is None:
        built = kind.build(from_json(kind.Config, header.config, "config"), state)
    else:
        built = CustomNetwork(copy_network(module), from_json(CustomConfig, header.config, "config"))
        check_keys(built.name, built.state_dict(), state)
        built.load_state_dict(state)
    if untie(built):  # what was one parameter in the float network may be codes here and floats there
        built.load_state_dict({key: state[key] for key in built.state_dict()})
    reshape_folded(built, folds)
    for name, bias in added.items():
        cast(nn.Conv2d, built.get_submodule(name)).bias = nn.Parameter(bias)
    return built


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


def _describe(quantizer: Quantizer, bounds: list[Tensor]) -> list[Any]:
    """Kind, arguments and bound shapes; the bounds themselves are appended to the list."""
    shapes: dict[str, list[int]] = {}
    for name, value in quantizer.named_parameters():
        bounds.append(value.detach().cpu().reshape(-1))
        shapes[name] = list(value.shape)
    return [quantizer.name, quantizer.arguments(), shapes]


def _quantizer(description: _Stored, taker: _Taker) -> Quantizer:
    name, arguments, shapes = description
    return build_quantizer(name, arguments, {bound: taker.take(shape) for bound, shape in shapes.items()})


def _storable(value: Tensor) -> Tensor:
    """Every other kind of number goes into the widest of its family; loading casts it back."""
    if value.dtype in _DTYPES.values():
        return value
    return value.to(torch.float32 if value.is_floating_point() else torch.int64)


def _belongs_to(key: str, names: Mapping[str, tuple[str, ...]]) -> bool:
    return any(key.startswith(f"{name}.") for every in names.values() for name in every)
