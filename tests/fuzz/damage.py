"""Ways to break files."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


def seeds() -> SearchStrategy[Random]:
    """Generators of numbers, each seeded by hypothesis."""
    return st.randoms(use_true_random=True)


ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 255, 10**12, -(10**12), 2**63, 0.5, -0.5, 1e308, math.nan, math.inf),
    *("", "x", "../x", "4", "nan", "é\n\x00", [], [0], [[]], [-1, 3], [10**6, 10**6], {}, {"a": {}}, {"": None}),
]
"""Values that no header holds in their place."""


def damaged(random: Random, content: bytes) -> bytes:
    """Some bytes of a file changed, lost, doubled, or put in."""
    data = bytearray(content)
    for _ in range(random.randint(1, 3)):
        start = random.randint(0, max(len(data) - 1, 0))
        # Most faults at the front, where the structure is.
        start = start % random.choice((64, 1024, len(content) + 1))
        length = random.choice((1, 2, 8, 100))
        stretch = data[start : start + length]
        match random.choice(("flip", "cut", "lose", "double", "zero", "random", "append")):
            case "flip" if stretch:
                data[start] ^= 1 << random.randint(0, 7)
            case "cut":
                del data[start:]
            case "lose":
                del data[start : start + length]
            case "double":
                data[start:start] = stretch
            case "zero":
                data[start : start + length] = bytes(len(stretch))
            case "random":
                data[start : start + length] = random.randbytes(len(stretch))
            case _:
                data += random.randbytes(16)
    return bytes(data)


def places(content: Any) -> list[tuple[Any, ...]]:
    """The paths to all values inside a JSON value, itself left out."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [(key, *rest) for key, value in items for rest in ((), *places(value))]


def edited(random: Random, content: Any, within: tuple[str, ...] | None = None) -> Any:
    """A JSON value with something in it left out, added, or replaced by something odd.

    Args:
        random: Decides what.
        content: It is copied.
        within: Keys of the outermost level to change; all if None.
    """
    content = json.loads(json.dumps(content))
    for _ in range(random.choice((1, 1, 1, 2))):
        known = [path for path in places(content) if within is None or path[0] in within]
        if not known:
            break
        # By levels, because most paths are deep inside lists of layers.
        depth = random.choice(sorted({len(path) for path in known}))
        *way, last = random.choice([path for path in known if len(path) == depth])
        place = content
        for key in way:
            place = place[key]
        match random.choice(("replace", "replace", "replace", "remove", "add", "rename", "nudge")):
            case "remove":
                del place[last]
            case "add" if isinstance(place, dict):
                place["surplus"] = deepcopy(random.choice(ODD))
            case "rename" if isinstance(place, dict):
                place[f"{last}x"] = place.pop(last)
            case "nudge" if isinstance(place[last], int | float):
                place[last] += random.choice((1, -1))
            case _:
                place[last] = deepcopy(random.choice(ODD))
    return content


def split_model(content: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, torch.Tensor]]:
    """Header, index and tensors of a model file."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["srquant.model"])
    blobs = safetensors.torch.load(content)
    return header, json.loads(zlib.decompress(blobs["index"].numpy().tobytes())), blobs


def join_model(header: Any, index: Any, blobs: dict[str, torch.Tensor]) -> bytes:
    """A model file of these; if it has no index, those tensors hold one, or none."""
    blobs = {name: value.contiguous() for name, value in blobs.items()}
    if index is not None:
        packed = zlib.compress(json.dumps(index).encode())
        blobs["index"] = torch.from_numpy(np.frombuffer(packed, np.uint8).copy())
    return safetensors.torch.save(blobs, {"srquant.model": json.dumps(header)})


def edit_text(content: bytes, edit: Callable[[Any], Any]) -> bytes:
    """A safetensors file whose own header, the JSON that says where tensors lie, was edited."""
    length = int.from_bytes(content[:8], "little")
    text = json.dumps(edit(json.loads(content[8 : 8 + length]))).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
