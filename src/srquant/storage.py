"""The file of a quantized model: safetensors, weights packed at their own number of bits, a JSON header.

Header (safetensors metadata, key ``srquant.model``): format version and a :class:`Record`, readable as it is.
Tensors:

- ``index``: zlib-compressed JSON; every stored tensor's name, dtype and shape, every quantizer's kind and arguments;
- ``codes``: the packed codes of all quantized weights, layer after layer, each starting at a byte;
- one tensor for each dtype (``float32``, …): all other tensors and the quantizers' bounds, one after the other.

Few, large tensors, because every named tensor costs about 100 bytes of header. Nothing in the file is code, and opening
it imports no method.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from srquant.bridges import save_safetensors
from srquant.errors import ArgumentError, ModelFileError, NetworkError, SrquantError
from srquant.files import replacing
from srquant.layers import CodedWeight, Multiplication, QuantLayer, product_of
from srquant.networks.base import SRNetwork, check_keys
from srquant.networks.checkpoint import read_metadata
from srquant.networks.custom import CustomConfig, CustomNetwork
from srquant.networks.opening import network_named
from srquant.packing import pack, packed_size, unpack
from srquant.quantizers import Quantizer, build_quantizer
from srquant.settings import from_json, to_json
from srquant.surgery import Fold, copy_network, quant_layers, replace, reshape_folded

HEADER = "srquant.model"
FORMAT = 1
_LARGEST_INDEX = 64 << 20
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.int64, torch.bool)}


@dataclass(frozen=True)
class Kept:
    """Something that stayed float, why, and its share of the multiply-adds."""

    name: str
    reason: str
    share: float


@dataclass(frozen=True)
class Record:
    """How a model came about."""

    method: str
    settings: dict[str, Any]
    """The method's resolved configuration."""
    calibration: str
    source: str
    """Name of the file of float weights."""
    multiply_adds: float
    """Of the whole network, per LR pixel."""
    share: float
    """Part of the multiply-adds whose operands are both quantized."""
    kept: tuple[Kept, ...] = ()
    folds: tuple[Fold, ...] = ()
    versions: dict[str, str] = field(default_factory=dict[str, str])
    scores: dict[str, Any] = field(default_factory=dict[str, Any])
    """Scores measured by the one who made the file, if any."""
    curve: tuple[dict[str, Any], ...] = ()
    """Of finetuning: for each epoch its stage and the means of the loss's parts."""


def is_model_file(path: Path) -> bool:
    """Whether a file is a quantized model of this project, by its header."""
    return HEADER in read_metadata(path)


def write_model(path: Path, network: SRNetwork, record: Record) -> None:
    """Write a quantized network, all or nothing.

    Args:
        path: A ``.safetensors`` file.
        network: Its quantized points are finished :class:`QuantLayer`.
        record: Goes into the header.

    Raises:
        OutputError: The file cannot be written.
    """
    layers = quant_layers(network)
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    floats = {key: _storable(value) for key, value in state.items() if not _belongs_to(key, layers)}
    floats |= {f"{name}.bias": layer.bias.detach().cpu() for name, layer in layers.items() if layer.bias is not None}
    bounds: list[Tensor] = []
    codes: list[Tensor] = []
    points: list[dict[str, Any]] = []
    for name, layer in layers.items():
        point: dict[str, Any] = {"name": name, "left": _describe(layer.left, bounds)}
        if isinstance(layer.right, CodedWeight):
            packed = layer.right.get_buffer("codes").cpu()
            point |= {"weight": _describe(layer.right.quantizer, bounds), "shape": list(packed.shape)}
            codes.append(pack(packed, layer.right.quantizer.bits))
        else:
            point["right"] = _describe(cast(Quantizer, layer.right), bounds)
        points.append(point)
    tensors = [[key, str(value.dtype).removeprefix("torch."), list(value.shape)] for key, value in floats.items()]
    index = json.dumps({"tensors": tensors, "points": points}, separators=(",", ":")).encode()
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
    header, blobs = _read(path)
    if header["format"] > FORMAT:
        raise ModelFileError(
            f"{path} has format {header['format']}; this version of srquant reads up to {FORMAT}: update srquant"
        )
    if (module is None) == (header["network"] == CustomNetwork.name):
        raise ArgumentError(
            f"{path} holds a network that was passed from Python; open it there with load(path, network=module)"
            if module is None
            else f"{path} holds a network of the kind {header['network']}, which needs no module"
        )
    try:
        return _rebuild(header, blobs, module)
    except NetworkError as error:
        raise ModelFileError(f"{path} does not fit its network: {error}") from error
    except SrquantError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError, zlib.error) as error:
        raise ModelFileError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:  # pyright: ignore[reportUnknownVariableType]
            handle = cast(Any, file)
            header = json.loads(handle.metadata()[HEADER])
            return header, {key: handle.get_tensor(key) for key in list(handle.keys())}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} is no model file, or is damaged or cut short: {error}") from error


def _rebuild(header: dict[str, Any], blobs: dict[str, Tensor], module: nn.Module | None) -> tuple[SRNetwork, Record]:
    record = _record(header["record"])
    index = _unpack_index(blobs["index"])
    takers = {name: _Taker(blobs.get(name, torch.empty(0, dtype=dtype))) for name, dtype in _DTYPES.items()}
    floats = {key: takers[dtype].take(shape) for key, dtype, shape in index["tensors"]}
    codes = _Taker(blobs.get("codes", torch.empty(0, dtype=torch.uint8)))
    left: dict[str, Quantizer] = {}
    right: dict[str, CodedWeight | Quantizer] = {}
    for point in index["points"]:
        name = point["name"]
        left[name] = _quantizer(point["left"], takers["float32"])
        if "weight" in point:
            quantizer = _quantizer(point["weight"], takers["float32"])
            count = prod(point["shape"])
            packed = codes.take([packed_size(count, quantizer.bits)])
            right[name] = CodedWeight(unpack(packed, quantizer.bits, count).reshape(point["shape"]), quantizer)
        else:
            right[name] = _quantizer(point["right"], takers["float32"])
    weights = {f"{name}.weight": side() for name, side in right.items() if isinstance(side, CodedWeight)}
    built = _float_network(header, floats | weights, record.folds, module)
    for name, quantizer in left.items():
        point = cast(Multiplication, built.get_submodule(name))
        replace(built, name, QuantLayer(product_of(point), quantizer, right[name], floats.get(f"{name}.bias")))
    return built.requires_grad_(False).eval(), record


def _unpack_index(data: Tensor) -> dict[str, Any]:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data.numpy().tobytes(), _LARGEST_INDEX)
    if not unpacker.eof:
        raise ValueError("the index is cut short or larger than any network needs")
    return json.loads(text)


def _float_network(
    header: dict[str, Any], state: dict[str, Tensor], folds: tuple[Fold, ...], module: nn.Module | None
) -> SRNetwork:
    """The float network with decoded weights, batch normalisations folded as they were."""
    added: dict[str, Tensor] = {}
    for fold in folds:
        # The file has no normalisations any more; the network is built with neutral ones first.
        if not fold.biased:
            added[fold.convolution] = state.pop(f"{fold.convolution}.bias")
        neutral = nn.BatchNorm2d(fold.channels).state_dict()
        state |= {f"{fold.norm}.{key}": value for key, value in neutral.items()}
    if module is None:
        kind = network_named(header["network"])
        built = kind.build(from_json(kind.Config, header["config"]), state)
    else:
        built = CustomNetwork(copy_network(module), from_json(CustomConfig, header["config"]))
        check_keys(built.name, built.state_dict(), state)
        built.load_state_dict(state)
    reshape_folded(built, folds)
    for name, bias in added.items():
        cast(nn.Conv2d, built.get_submodule(name)).bias = nn.Parameter(bias)
    return built


class _Taker:
    """Takes tensors off the front of a flat one."""

    def __init__(self, data: Tensor) -> None:
        self._data = data
        self._start = 0

    def take(self, shape: list[int]) -> Tensor:
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


def _quantizer(description: list[Any], taker: _Taker) -> Quantizer:
    name, arguments, shapes = description
    return build_quantizer(name, arguments, {bound: taker.take(shape) for bound, shape in shapes.items()})


def _record(content: Mapping[str, Any]) -> Record:
    values = dict(content)
    values["kept"] = tuple(Kept(**row) for row in values["kept"])
    values["folds"] = tuple(Fold(**row) for row in values["folds"])
    values["curve"] = tuple(values.get("curve", ()))
    return Record(**values)


def _storable(value: Tensor) -> Tensor:
    """Every other kind of number goes into the widest of its family; loading casts it back."""
    if value.dtype in _DTYPES.values():
        return value
    return value.to(torch.float32 if value.is_floating_point() else torch.int64)


def _belongs_to(key: str, layers: Mapping[str, QuantLayer]) -> bool:
    return any(key.startswith(f"{name}.") for name in layers)
