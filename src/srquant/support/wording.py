"""Words for numbers."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """As ``1 layer`` and ``3 layers``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
