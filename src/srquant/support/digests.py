"""Digests of what decides a result: two things of one digest are the same, whatever they are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from srquant.support.errors import ImageError
from srquant.support.settings import to_json


def digest_of_settings(*values: object) -> str:
    """Of dataclasses, lists and dictionaries of numbers and texts; the order of a dictionary's keys does not count."""
    return hashlib.sha256(json.dumps(to_json(values), sort_keys=True).encode()).hexdigest()


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and values; where the tensors lie, and in which memory layout, does not count."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_of_pictures(paths: Iterable[Path]) -> str:
    """Of the contents of image files, in this order; their names do not count.

    Raises:
        ImageError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
