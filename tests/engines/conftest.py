"""Fixtures for engines."""

from __future__ import annotations

import pytest

from srquant.engines import TARGETS


@pytest.fixture
def two_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO and ONNX Runtime alone, whatever engines were added."""
    monkeypatch.setattr(TARGETS, "own", {name: TARGETS[name] for name in ("openvino", "onnxruntime")})
