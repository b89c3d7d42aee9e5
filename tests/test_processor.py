"""Under ``make test-avx2`` nothing uses instructions that AVX2 does not have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    os.environ.get("ATEN_CPU_CAPABILITY") != "avx2", reason="instruction sets are not capped: make test-avx2 caps them"
)


def printed(script: str, folder: Path) -> str:
    """What a process of its own prints, which finds no kernels compiled before: those cannot be looked into."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder), "ONEDNN_VERBOSE": "1"}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_pytorch_and_onednn_are_capped(tmp_path: Path) -> None:
    text = printed(
        "import torch; print(torch.backends.cpu.get_cpu_capability());"
        "torch.nn.Conv2d(16, 16, 3)(torch.rand(2, 16, 64, 64))",
        tmp_path,
    )
    assert "AVX2\n" in text
    assert "exec,cpu,convolution" in text
    assert not any(name in text for name in ("avx512", "avx10", "amx"))


def test_kernels_are_capped(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    text = printed(
        """
import torch
from srquant.quantizers.numerics import kernels, rounding
for steps in (15,), (4, 7, 4), (1,) * 7:
    x = torch.randn(3, 8, 40, 41).requires_grad_()
    knots = torch.linspace(-2, 2, len(steps) + 1).requires_grad_()
    rounding.quantize(x, knots, steps).sum().backward()
for kernel in vars(kernels).values():
    for code in getattr(kernel, "inspect_asm", dict)().values():
        print(code)
""",
        tmp_path,
    )
    assert "ymm" in text
    assert "zmm" not in text
