"""The state of a run that takes long, kept on disk so that the run goes on after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from srquant.support.errors import SrquantError
from srquant.support.files import replacing


def write_state(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Keep a state, all or nothing.

    Args:
        path: Where.
        identity: Of the run; whoever reads the state must have the same.
        state: Tensors, numbers, texts, and lists and dictionaries of them.

    Raises:
        OutputError: The file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({"identity": identity, **state}, file)


def read_state(path: Path, identity: str, device: torch.device, error: type[SrquantError]) -> dict[str, Any] | None:
    """What :func:`write_state` kept, its tensors on a device; None if nothing is there. Reading never runs code.

    Raises:
        error: The file is damaged, no state, or that of another run.
    """
    if not path.exists():
        return None
    try:
        content: Any = torch.load(path, map_location=device, weights_only=True)
    except Exception as reason:
        # The reader raises whatever Python raises on a damaged file.
        raise error(f"{path} is no state of an unfinished run, or is damaged; remove it to start anew") from reason
    found = cast(dict[str, Any], content) if isinstance(content, dict) else {}
    if "identity" not in found:
        raise error(f"{path} is no state of an unfinished run; remove it, or choose another name for the output")
    if found["identity"] != identity:
        raise error(
            f"{path} holds an unfinished run of another configuration; give the same options to go on with "
            f"it, or remove the file to start anew"
        )
    return found
