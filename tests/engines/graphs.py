"""Single expressions as graphs of ONNX, to try passes on them one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from srquant.engines.passes.constants import store_constants
from srquant.engines.standard import IR_VERSION
from srquant.engines.tracing import as_onnx


class Around(nn.Module):
    """A network that computes one expression of its image."""

    def __init__(self, expression: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.expression = expression

    def forward(self, images: Tensor) -> Tensor:
        return self.expression(images)


def exported(expression: Callable[[Tensor], Tensor], images: Tensor) -> Any:
    """The expression as PyTorch's exporter writes it for images of one size, its constants stored."""
    model = as_onnx(torch.export.export(Around(expression), (images,), strict=False))
    ir.passes.common.InlinePass()(model)
    store_constants(model)
    return ir.passes.common.ShapeInferencePass()(model).model


def run(model: Any, images: Tensor) -> Tensor:
    """What ONNX Runtime computes of it."""
    model.ir_version = IR_VERSION
    content = ir.to_proto(model).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def kinds(model: Any) -> Counter[str]:
    """How many operators of each kind it has."""
    return Counter(node.op_type for node in model.graph)
