"""The file of a quantized model: safetensors, weights packed at their own number of bits, a JSON header.

Header (safetensors metadata, key ``srquant.model``): format version and a :class:`Record`, readable as it is.
Tensors:

- ``index``: zlib-compressed JSON; every stored tensor's name, dtype and shape, every quantizer's kind and arguments;
  what looks at images, where bits follow them (``images``);
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
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from srquant.model.adapting import image_factor
from srquant.model.baking import Baked
from srquant.model.folding import Fold
from srquant.model.layer import CodedWeight
from srquant.model.rebuilding import DTYPES, Index, rebuild
from srquant.model.record import Record
from srquant.model.swapping import copy_network, quant_layers
from srquant.networks.base import SRNetwork, check_keys
from srquant.networks.checkpoint import read_metadata
from srquant.networks.custom import CustomNetwork, plain_module
from srquant.networks.recognising import network_named
from srquant.quantizers import ImageFactor, Quantizer
from srquant.quantizers.numerics.packing import pack
from srquant.support.errors import (
    ArgumentError,
    ModelFileError,
    NetworkError,
    OutputError,
    SrquantError,
    UnknownNameError,
    first_line,
)
from srquant.support.files import replacing
from srquant.support.settings import Checked, from_json, to_json
from srquant.support.tensors import names_of, save_safetensors

HEADER = "srquant.model"
FORMAT = 3
"""Of the files that this version reads; it writes the first that can say what a model has: 1; 2 with baked layers; 3
with bits that follow the image."""
_FORMER_FIELDS = ("scores",)
_LARGEST_INDEX = 64 << 20
_MISFITS = (LookupError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError, zlib.error)
"""What making a network from parts that do not fit raises."""


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
    described = cast(dict[str, Any], to_json(record))
    number = 3 if image_factor(network) is not None else 2 if described["baked"] else 1
    if number == 1:
        del described["baked"]
    header = {"format": number, "network": network.name, "config": to_json(network.config), "record": described}
    with replacing(path) as temporary:
        save_safetensors(_pack(network), temporary, {HEADER: json.dumps(header)})
        _require_readable(temporary, network)


def _require_readable(path: Path, network: SRNetwork) -> None:
    """Open what was written, before it takes the place of an earlier file.

    Of a network that was passed from Python only the header and the tensors: :func:`require_reopening` has seen to the
    rest.

    Raises:
        OutputError: It does not open, or as another network.
    """
    try:
        if isinstance(network, CustomNetwork):
            text, found = _read(path)
            _header(path, text)
            wanted = _pack(network)
        else:
            found, wanted = read_model(path)[0].state_dict(), network.state_dict()
    except SrquantError as error:
        raise OutputError(f"the file was written but does not open: {error}") from error
    different = [key for key, value in wanted.items() if key not in found or not torch.equal(value.cpu(), found[key])]
    if different:
        raise OutputError(f"the file was written but opens as another network: {', '.join(different[:3])} differ")


def require_reopening(original: SRNetwork, quantized: SRNetwork, baked: Sequence[Baked], folds: Sequence[Fold]) -> None:
    """See that a quantized network can be made again from what a file of it would hold.

    Args:
        original: The float network.
        quantized: What became of it.
        baked: Plain layers in it.
        folds: Batch normalisations that it has no more.

    Raises:
        NetworkError: It cannot.
    """

    def build(state: dict[str, Tensor]) -> SRNetwork:
        return _build(type(original), original.config, getattr(original, "network", None), state)

    blobs = _pack(quantized)
    try:
        again = rebuild(_unpack_index(blobs["index"]), blobs, build, baked, folds).state_dict()
    except (*_MISFITS, NetworkError) as error:
        raise NetworkError(f"a file of the quantized network could not be opened again: {first_line(error)}") from error
    for key, value in quantized.state_dict().items():
        if key not in again or not torch.equal(value.cpu(), again[key]):
            raise NetworkError(f"a file of the quantized network would open with another {key}")


def _pack(network: SRNetwork) -> dict[str, Tensor]:
    """The tensors of a file."""
    layers = quant_layers(network)
    names = {name: names for name, names in names_of(network).items() if name in layers}
    floats = _float_tensors(network, names)
    floats |= {f"{name}.bias": layer.bias.detach().cpu() for name, layer in layers.items() if layer.bias is not None}
    bounds: list[Tensor] = []
    looking = image_factor(network)
    images = None if looking is None else _describe(looking, bounds)
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
    content = {"tensors": tensors, "points": described} | ({} if images is None else {"images": images})
    index = json.dumps(content, separators=(",", ":")).encode()
    blobs = {"index": torch.frombuffer(bytearray(zlib.compress(index, 9)), dtype=torch.uint8)}
    if codes:
        blobs["codes"] = torch.cat(codes)
    for dtype_name, dtype in DTYPES.items():
        parts = [value.reshape(-1) for value in floats.values() if value.dtype == dtype]
        parts += bounds if dtype == torch.float32 else []
        if parts:
            blobs[dtype_name] = torch.cat(parts)
    return blobs


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
    try:
        kind = CustomNetwork if module is not None else network_named(header.network)
        config = cast(object, from_json(kind.Config, header.config, "config"))
        built = rebuild(
            _unpack_index(blobs["index"]),
            blobs,
            lambda state: _build(kind, config, module, state),
            header.record.baked,
            header.record.folds,
        )
        return built, header.record
    except UnknownNameError as error:
        raise _missing(path, error) from error
    except NetworkError as error:
        raise ModelFileError(f"{path} does not fit its network: {error}") from error
    except ArgumentError as error:
        raise ModelFileError(f"{path} is damaged: {error}") from error
    except SrquantError:
        raise
    except _MISFITS as error:
        raise ModelFileError(f"{path} is damaged: {type(error).__name__}: {first_line(error)}") from error


def _missing(path: Path, error: UnknownNameError) -> ModelFileError:
    if error.what not in ("quantizer", "network"):
        return ModelFileError(f"{path} is damaged: {error}")
    return ModelFileError(f"{path} {error.needed}")


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The header and all tensors."""
    try:
        with safe_open(path, "pt") as file:  # pyright: ignore[reportUnknownVariableType]
            handle = cast(Any, file)
            return handle.metadata()[HEADER], {key: handle.get_tensor(key) for key in list(handle.keys())}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} is no model file, or is damaged or cut short: {first_line(error)}") from error


def _header(path: Path, text: str) -> _Header:
    """The header, checked; that of a newer format only as far as to know that it is one."""
    try:
        found = from_json(_Format, text).format
        if found > FORMAT:
            raise ModelFileError(
                f"{path} has format {found}; this version of srquant reads up to {FORMAT}: update srquant"
            )
        return from_json(_Header, _without_former_fields(text))
    except ArgumentError as error:
        raise ModelFileError(f"{path} is damaged: in its header, {error}") from error


def _without_former_fields(text: str) -> str:
    """A header without what earlier versions wrote into records and nothing reads."""
    try:
        content: Any = json.loads(text)
        for field in _FORMER_FIELDS:
            content["record"].pop(field, None)
        return json.dumps(content)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return text  # reading it says what is wrong


def _unpack_index(data: Tensor) -> Index:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data.numpy().tobytes(), _LARGEST_INDEX)
    if not unpacker.eof:
        raise ValueError("the index is cut short or larger than any network needs")
    return from_json(Index, text, "index")


def _build(kind: type[SRNetwork], config: Any, module: nn.Module | None, state: dict[str, Tensor]) -> SRNetwork:
    """The float network of a state dict."""
    if kind is not CustomNetwork:
        return kind.build(config, state)
    built = CustomNetwork(copy_network(plain_module(module)), config)
    check_keys(built.name, built.state_dict(), state)
    built.load_state_dict(state)
    return built


def _describe(quantizer: Quantizer | ImageFactor, bounds: list[Tensor]) -> list[Any]:
    """Kind, arguments and bound shapes; the bounds themselves are appended to the list."""
    shapes: dict[str, list[int]] = {}
    for name, value in quantizer.named_parameters():
        bounds.append(value.detach().cpu().reshape(-1))
        shapes[name] = list(value.shape)
    return [quantizer.name, quantizer.arguments(), shapes]


def _storable(value: Tensor) -> Tensor:
    """Every other kind of number goes into the widest of its family; loading casts it back."""
    if value.dtype in DTYPES.values():
        return value
    return value.to(torch.float32 if value.is_floating_point() else torch.int64)


def _belongs_to(key: str, names: Mapping[str, tuple[str, ...]]) -> bool:
    return any(key.startswith(f"{name}.") for every in names.values() for name in every)


def _float_tensors(network: SRNetwork, names: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """What is stored as it is: all that belongs neither to a quantized layer nor to what looks at images."""
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    own = {**names, "image_factor": ("image_factor",)} if image_factor(network) is not None else names
    return {key: _storable(value) for key, value in state.items() if not _belongs_to(key, own)}
