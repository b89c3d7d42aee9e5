"""Reading the weights in a checkpoint file, without ever running code from it."""

from __future__ import annotations

import pickle
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from srquant.networks.base import State
from srquant.networks.foreign import HEAD, foreign_file, inflated_size, unknown_file
from srquant.networks.unwrapping import Candidate, candidates, is_training_state
from srquant.support.errors import NetworkError
from srquant.support.files import is_file, is_folder, replacing
from srquant.support.tensors import load_safetensors, save_safetensors

_MOST_SHARING = 16
"""How many times as large as their file weights may be: several may share their values."""
_SMALL = 1 << 20
"""Bytes."""
_LONGEST = 160
"""Letters of another library's words."""


def read_checkpoint(path: Path) -> State:
    """The likeliest mapping of weights in a ``.safetensors`` or PyTorch file, averaged ones before others, whole, and
    with no other prefix than ``module.`` taken off.

    Raises:
        NetworkError: See :func:`read_candidates` and :func:`check_weights`.
    """
    first = next(candidate for candidate in read_candidates(path) if not candidate.beside)
    check_weights(path, first.state)
    whole = all(key.startswith("module.") for key in first.state)
    return {key.removeprefix("module."): value for key, value in first.state.items()} if whole else first.state


def read_candidates(path: Path) -> list[Candidate]:
    """All that may be the weights of a network in a ``.safetensors`` or PyTorch file, the likeliest first.

    There is at least one. Their values are unchecked: :func:`check_weights` looks at those that are used.

    Raises:
        NetworkError: The file is missing, cannot be read, is empty, truncated, no checkpoint, inflates to far more than
            its size, or would run code when opened. What it is instead is said, where that is known.
    """
    if not is_file(path):
        what = "a folder" if is_folder(path) else "not there"
        raise NetworkError(f"{path} is {what}; give a file of weights, or a name that srquant fetch lists")
    head = _head(path)
    if not head:
        raise NetworkError(f"{path} is empty")
    if _is_safetensors(head):
        content: Any = _read_safetensors(path)
    else:
        foreign = foreign_file(path, head)
        if foreign is not None:
            raise NetworkError(f"{path} is {foreign}")
        content = _read_torch(path, head)
    found = candidates(content)
    if not found and is_training_state(content):
        raise NetworkError(
            f"{path} holds no weights, only the state of a training (optimizer, schedule); give the file of "
            f"weights that was written beside it"
        )
    if not found:
        raise NetworkError(f"{path} holds no tensors, or not under keys; give a state dict")
    return found


def check_weights(path: Path, state: State) -> None:
    """Refuse tensors that cannot be weights.

    Args:
        path: The file they are from.
        state: What is to be used of it.

    Raises:
        NetworkError: Some are not finite, complex, of another kind of numbers, not plain tensors, or far larger than
            the file.
    """
    _refuse(path, "not plain tensors (sparse, quantized, or without values)", _named(state, lambda v: not _plain(v)))
    _refuse(path, "complex numbers; a super-resolution network has real ones", _named(state, torch.is_complex))
    _refuse(path, "of a kind that cannot be turned into float32", _named(state, lambda v: not _convertible(v)))
    if sum(value.nbytes for value in state.values()) > _most_bytes(path):
        raise NetworkError(f"{path} claims far more weights than a file of its size holds; it is damaged")
    _refuse(path, "NaN or infinite", _named(state, lambda v: v.is_floating_point() and not _finite(v)))


def _named(state: State, test: Callable[[Tensor], bool]) -> list[str]:
    return [key for key, value in state.items() if test(value)]


def _refuse(path: Path, what: str, keys: list[str]) -> None:
    if keys:
        raise NetworkError(f"{path} has weights that are {what}: {', '.join(keys[:5])}")


def _plain(value: Tensor) -> bool:
    return value.layout == torch.strided and not (value.is_quantized or value.is_meta or value.is_nested)


def _convertible(value: Tensor) -> bool:
    """Not so numbers of four bits, two of which are in one element."""
    try:
        value.new_empty(1).to(torch.float32)
    except (RuntimeError, TypeError):
        return not value.is_floating_point()  # whole numbers are refused where floats are expected
    return True


def _finite(value: Tensor) -> bool:
    # Not every kind of eight-bit number can be asked.
    return bool((value.float() if value.element_size() == 1 else value).isfinite().all())


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; none for files of other kinds, or damaged ones."""
    try:
        if not is_file(path) or not _is_safetensors(_head(path)):
            return {}
    except NetworkError:  # said by whoever reads the whole
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


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise NetworkError(
            f"cannot read {path}: {error.strerror or error}; check its permissions, or copy it elsewhere"
        ) from error


def _is_safetensors(head: bytes) -> bool:
    """By content: the length of the header in eight bytes, then a JSON object."""
    return head[4:9] == b"\0\0\0\0{"


def _most_bytes(path: Path) -> int:
    """What weights in a file of this size may take, at most."""
    return _MOST_SHARING * path.stat().st_size + _SMALL


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_safetensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise NetworkError(f"{path} is damaged or cut short: {error}") from error


def _read_torch(path: Path, head: bytes) -> Any:
    inflated = inflated_size(path)
    if inflated > _most_bytes(path):
        raise NetworkError(
            f"{path} has {path.stat().st_size:,} bytes and would unpack to {inflated:,}; PyTorch writes no such file, "
            f"and it is not opened"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols; what matters is raised
            with torch.serialization.safe_globals([Namespace]):  # options of a training, plain values under names
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The reader raises whatever Python raises on a damaged file.
        raise NetworkError(f"{path} {_fault(path, head, error)}") from error


def _fault(path: Path, head: bytes, error: Exception) -> str:
    """Why PyTorch could not read a file, in words that follow its name; none of PyTorch's own advice."""
    reason = str(error)
    unpickling = isinstance(error, pickle.UnpicklingError)
    if unpickling and "global" in reason.partition("WeightsUnpickler error:")[2].lower():
        return (
            "would run code when opened and is refused; save its plain state dict "
            "(torch.save(network.state_dict(), ...)) on a machine that trusts it"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}"
    unknown = unknown_file(path, head)
    if unknown is not None:
        return f"is {unknown}"
    own = reason.partition("WeightsUnpickler error:")[2] if unpickling else reason
    first = next((line.strip() for line in own.splitlines() if line.strip()), type(error).__name__)
    shown = type(error).__name__ if "weights_only" in first else first.partition(". ")[0][:_LONGEST]
    return f"is not a checkpoint, or is damaged: {shown}"
