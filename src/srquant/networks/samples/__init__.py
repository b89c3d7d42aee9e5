"""The float network that ships with the package; its card lies beside it."""

from __future__ import annotations

from pathlib import Path

EDSR_X4 = Path(__file__).parent / "edsr_32x11_x4.safetensors"
"""EDSR ×4 with 11 blocks of 32 channels."""
