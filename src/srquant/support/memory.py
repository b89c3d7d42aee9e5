"""Memory of the process."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch

from srquant.support.errors import MemoryLimitError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensor instead of giving it back to the system.

    Every large tensor otherwise costs a page fault per 4 KiB when it is first written, which takes longer than the
    arithmetic of an element-wise operation. All threads share what is kept; else each would keep as much for itself.
    It is a setting of the whole process, so only the command line makes it. On C libraries other than glibc it does
    nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _NEVER)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    mallopt(_M_ARENA_MAX, 1)


@contextmanager
def memory_errors(advice: str) -> Generator[None]:
    """Turn an allocation that failed, on any device, into an error that says what to do.

    Raises:
        MemoryLimitError: The body ran out of memory.
    """
    try:
        yield
    except MemoryLimitError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryLimitError(f"out of memory; {advice}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is an allocation that failed, on any device."""
    texts = ("can't allocate memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in texts)


def available(device: torch.device) -> int | None:
    """Bytes that may still be taken on a device without others being swapped or ended; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError):
        return None
    return 1024 * int(kilobytes)
