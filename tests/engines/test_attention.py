"""Masked attention in groups of windows: what is found, and that it gives what it gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import onnxruntime
import pytest
import torch
from tests.conftest import small_networks
from tests.engines.test_operators import Around
from torch import Tensor

from srquant.engines.attention import find_attentions
from srquant.engines.tracing import Trace, trace, write
from srquant.engines.writer import IR_VERSION, OPSET, Writer
from srquant.model import Model

MASKS = torch.tensor([0.0, 0, 0, -100, -100, -50])[:, None, None, None] * torch.eye(8)
BIAS = torch.linspace(-1, 1, 2 * 64).sin().view(2, 8, 8)
IMAGES = torch.rand(1, 3, 32, 8, generator=torch.Generator().manual_seed(0))


def heads(x: Tensor) -> Tensor:
    """Six windows, eight tokens, two heads."""
    return x.reshape(6, 8, 2, 8)


def attention(x: Tensor, mask: Tensor = MASKS, axis: int = -1) -> Tensor:
    q, k, v = heads(x), heads(x.tanh()), heads(2 * x)
    scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) + BIAS + mask
    return (scores.softmax(axis) @ v.transpose(1, 2)).transpose(1, 2)


def shared_scores(x: Tensor) -> Tensor:
    scores = heads(x).transpose(1, 2) @ heads(x).permute(0, 2, 3, 1)
    return ((scores + MASKS).softmax(-1) @ heads(x).transpose(1, 2)) + scores[..., :1]


def across(x: Tensor) -> Tensor:
    """Windows and heads change places before the product."""
    q = heads(x).permute(2, 1, 0, 3)[:, :6]
    return (q @ q.transpose(-2, -1) + MASKS[:2, :, :6, :6]).softmax(-1) @ q


def run(expression: Callable[[Tensor], Tensor], *, fixed: bool) -> tuple[Tensor, Counter[str], Trace]:
    traced = trace(Model(Around(expression), "x"), *IMAGES.shape[-2:])  # type: ignore[arg-type]
    writer = Writer(fixed=fixed)
    output = write(traced, writer, {})
    helper = writer.onnx.helper
    nodes, constants = writer.used(output)
    inputs = [helper.make_tensor_value_info("images", 1, list(IMAGES.shape))]
    results = [helper.make_tensor_value_info(output, 1, None)]
    graph = helper.make_graph(nodes, "g", inputs, results, initializer=constants)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"images": IMAGES.numpy()})[0])
    return found, Counter(node.op_type for node in nodes), traced


def test_windows_with_one_mask_are_one_group() -> None:
    alone, before, _ = run(attention, fixed=False)
    found, kinds, traced = run(attention, fixed=True)
    assert (before["Softmax"], kinds["Softmax"]) == (1, 3)
    assert (before["Add"], kinds["Add"]) == (2, 3 + 2), "the bias in every group, a mask in two of them"
    assert kinds["Split"] == 3
    torch.testing.assert_close(found, alone)
    torch.testing.assert_close(found, attention(IMAGES - 0.5))
    (attentions,) = find_attentions(traced.graph, traced.constants())
    assert [count for count, _ in attentions.groups] == [3, 2, 1]
    assert all(mask.shape == (1, 1, 8, 8) for _, mask in attentions.groups)


@pytest.mark.parametrize(
    "expression",
    [
        lambda x: attention(x, torch.zeros(6, 1, 8, 8)),
        lambda x: attention(x, MASKS[:1]),
        lambda x: attention(x, axis=0),
        lambda x: attention(x, heads(x)[:, :1, :1].tanh()),
        lambda x: heads(x).softmax(-1),
        shared_scores,
        across,
    ],
    ids=["one group", "one mask", "across windows", "of the image", "no products", "scores used twice", "other axis"],
)
def test_what_is_left_alone(expression: Callable[[Tensor], Tensor]) -> None:
    found, kinds, _ = run(expression, fixed=True)
    assert kinds["Softmax"] == 1
    assert not kinds["Split"]
    torch.testing.assert_close(found, expression(IMAGES - 0.5))


def test_too_many_groups_are_left_alone() -> None:
    masks = torch.arange(12.0)[:, None, None] * torch.eye(8)

    def many(x: Tensor) -> Tensor:
        x = x.reshape(12, 8, 8)
        return (x @ x.transpose(1, 2) + masks).softmax(-1) @ x

    found, kinds, _ = run(many, fixed=True)
    assert kinds["Softmax"] == 1
    torch.testing.assert_close(found, many(IMAGES - 0.5))


@pytest.mark.parametrize("network", ["swinir", "swinir_classical"])
def test_every_shifted_block_is_found(network: str) -> None:
    small = small_networks()[network]
    traced = trace(Model(small, "x"), 32, 48)
    found = find_attentions(traced.graph, traced.constants())
    blocks = [block for name, block in small.named_modules() if name.endswith("blocks.1")]
    assert len(found) == len(blocks)
    window = small.config.window  # type: ignore[attr-defined]
    rows, columns = 32 // window - 1, 48 // window - 1
    assert [count for count, _ in found[0].groups] == [rows * columns, rows, columns, 1]
