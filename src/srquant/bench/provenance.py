"""Where and with what a cell was computed."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
"""That change the arithmetic of products, by the names that Linux has for them."""


@cache
def processor() -> str:
    """Its name, and what it can, as "AMD EPYC 9R14 (avx2, avx512f, avx512_vnni)"."""
    name, known = platform.processor() or platform.machine(), list[str]()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
        name = found.get("model name", name)
        flags = found.get("flags", found.get("Features", "")).split()
        known = [each for each in _INSTRUCTIONS if each in flags]
    return f"{name} ({', '.join(known)})" if known else name


def device_name(device: torch.device) -> str:
    """``cpu``, or the name of a GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@cache
def commit() -> str:
    """Of the sources of srquant, with a plus sign if they were changed; empty where they are no checkout."""
    folder = Path(__file__).parent
    try:
        number = _git(folder, "rev-parse", "HEAD")
        # A repository of somebody else's, around an installed srquant, says nothing of it.
        if not _git(folder, "ls-files", "--", Path(__file__).name):
            return ""
        return number + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "..") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.strip()


def forget_peak(device: torch.device) -> None:
    """Begin to watch the memory from here on, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        _CLEAR.write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes that the process (of a GPU: PyTorch) had at most since :func:`forget_peak`; 0 if nobody knows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, IndexError, ValueError):
        return 1024 * int(_STATUS.read_text().split("VmHWM:")[1].split()[0])
    try:
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    except ImportError:  # Windows
        return 0
