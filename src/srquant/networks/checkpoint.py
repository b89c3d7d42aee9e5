"""Reading the weights in a checkpoint file, without ever running code from it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from srquant.networks.base import State
from srquant.support.errors import NetworkError
from srquant.support.files import is_file, is_folder, replacing
from srquant.support.tensors import load_safetensors, save_safetensors

WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "network", "generator")
"""Keys under which published files keep their weights; the first that is there counts."""
_MOST_SHARING = 16
"""How many times as large as their file weights may be: several may share their values."""
_SMALL = 1 << 20
"""Bytes."""


def read_checkpoint(path: Path) -> State:
    """The weights in a ``.safetensors`` or PyTorch file, wrappers and ``module.`` prefixes taken off.

    Raises:
        NetworkError: The file is missing, empty, truncated, not a checkpoint, would run code when opened, or its
            weights are not finite, complex, or not plain tensors.
    """
    if not is_file(path):
        raise NetworkError(f"{path} is {'a folder' if is_folder(path) else 'not there'}; give a file of weights")
    if path.stat().st_size == 0:
        raise NetworkError(f"{path} is empty")
    content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    state = _unwrap(content)
    if not state:
        raise NetworkError(f"{path} holds no tensors; known wrappers are {', '.join(WRAPPERS)}")
    _refuse(path, "not plain tensors (sparse, quantized, or without values)", _named(state, lambda v: not _plain(v)))
    _refuse(path, "complex numbers; a super-resolution network has real ones", _named(state, torch.is_complex))
    if sum(value.nbytes for value in state.values()) > _MOST_SHARING * path.stat().st_size + _SMALL:
        raise NetworkError(f"{path} claims far more weights than a file of its size holds; it is damaged")
    _refuse(path, "NaN or infinite", _named(state, lambda v: v.is_floating_point() and not _finite(v)))
    return state


def _named(state: State, test: Callable[[Tensor], bool]) -> list[str]:
    return [key for key, value in state.items() if test(value)]


def _refuse(path: Path, what: str, keys: list[str]) -> None:
    if keys:
        raise NetworkError(f"{path} has weights that are {what}: {', '.join(keys[:5])}")


def _plain(value: Tensor) -> bool:
    return value.layout == torch.strided and not (value.is_quantized or value.is_meta or value.is_nested)


def _finite(value: Tensor) -> bool:
    # Not every kind of eight-bit number can be asked.
    return bool((value.float() if value.element_size() == 1 else value).isfinite().all())


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; none for files of other kinds, or damaged ones."""
    if not is_file(path) or not _is_safetensors(path):
        return {}
    try:
        with safe_open(path, "pt") as file:  # pyright: ignore[reportUnknownVariableType]
            return cast(dict[str, str], file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return {}


def write_checkpoint(path: Path, state: State, metadata: dict[str, str]) -> None:
    """Write weights as safetensors, all or nothing.

    Raises:
        OutputError: The file cannot be written.
    """
    with replacing(path) as temporary:
        save_safetensors({key: value.contiguous() for key, value in state.items()}, temporary, metadata)


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then a JSON object."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError:  # said by whoever reads the whole
        return False


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_safetensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise NetworkError(f"{path} is damaged or cut short: {error}") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error:")[2].strip() or str(error)
        if "global" in reason.lower():
            raise NetworkError(
                f"{path} would run code when opened and is refused; save its plain state dict "
                f"(torch.save(network.state_dict(), ...)) on a machine that trusts it"
            ) from error
        raise NetworkError(f"{path} is not a checkpoint, or is damaged: {reason.splitlines()[0]}") from error
    except Exception as error:
        # The reader raises whatever Python raises on a damaged file.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise NetworkError(f"{path} is not a checkpoint, or is damaged: {reason}") from error


def _unwrap(content: Any) -> State:
    while isinstance(content, Mapping):
        mapping = cast(Mapping[str, Any], content)
        inner = next((mapping[key] for key in WRAPPERS if isinstance(mapping.get(key), Mapping)), None)
        if inner is None:
            state = {str(key): value for key, value in mapping.items() if isinstance(value, Tensor)}
            return _without_prefix(state)
        content = inner
    return {}


def _without_prefix(state: State, prefix: str = "module.") -> State:
    if state and all(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): value for key, value in state.items()}
    return state
