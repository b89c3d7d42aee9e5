"""Which ONNX exported files are written in."""

from __future__ import annotations

OPSET = 21
"""Of the operators: the first with four-bit tensors; both engines run it."""
IR_VERSION = 10
"""Of the ONNX release that brought them. The package's own default is newer than what ONNX Runtime takes."""
