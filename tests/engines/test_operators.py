"""Every operator that can be written, run in ONNX Runtime, gives what PyTorch gives."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srquant.engines.operators import OPERATORS
from srquant.engines.tracing import trace, write
from srquant.engines.writer import IR_VERSION, OPSET, Writer
from srquant.model import Model
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.support.errors import ArgumentError

WEIGHT = torch.linspace(-1, 1, 5 * 3 * 9).sin().view(5, 3, 3, 3)
LINE = torch.linspace(-1, 1, 12).view(4, 3)


def overwriting(x: Tensor) -> Tensor:
    """Reads a tensor before and after something was written into it."""
    y = x.relu()
    before = y * 3
    y += x
    y.mul_(2)
    return before + y


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "conv2d": lambda x: F.conv2d(x, WEIGHT, torch.arange(5.0), stride=2, padding=1, dilation=2),
    "conv2d, same": lambda x: F.conv2d(x, WEIGHT[..., :2, :], padding="same"),
    "conv2d, groups": lambda x: F.conv2d(x, WEIGHT[:3, :1], groups=3),
    "conv_transpose2d": lambda x: F.conv_transpose2d(
        x, WEIGHT[:3], torch.arange(3.0), stride=2, padding=2, output_padding=1, dilation=2
    ),
    "conv_transpose2d, groups": lambda x: F.conv_transpose2d(x, WEIGHT[:3], stride=(1, 2), groups=3),
    "linear": lambda x: F.linear(x.permute(0, 2, 3, 1), LINE, torch.arange(4.0)),
    "matmul": lambda x: x @ x.transpose(-2, -1),
    "add, alpha": lambda x: torch.add(x, x.relu(), alpha=3) - torch.sub(2 * x, x / 3, alpha=0.5),
    "neg": lambda x: -x,
    "in place": lambda x: overwriting(x),
    "silu, type_as": lambda x: F.silu(x) + torch.ones(1).type_as(x),
    "activations": lambda x: F.leaky_relu(x, 0.2) + F.gelu(x) * torch.sigmoid(x) - torch.tanh(x),
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, -0.3])),
    "prelu, one": lambda x: F.prelu(x, torch.tensor([0.3])),
    "softmax": lambda x: x.softmax(-1) + x.softmax(1),
    "layer_norm": lambda x: F.layer_norm(x, (8,), torch.arange(8.0), torch.ones(8)) + F.layer_norm(x, (6, 8)),
    "batch_norm": lambda x: F.batch_norm(x, torch.arange(3.0), torch.arange(1.0, 4), torch.ones(3) * 2, torch.ones(3)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(torch.cat((x, x, x, -x), 1), 2),
    "views": lambda x: x.view(1, 3, 48).reshape(3, 6, -1).flatten(1).view_as(x[0].flatten(1)).unsqueeze(0).squeeze(0),
    "slices": lambda x: x[:, 1:, ::2, 2:-1] + x[:, -1:, ::2, 0:5] + x[:, :2, 1][..., None, :5],
    "parts": lambda x: torch.cat((*x.unbind(1), x.split(1, 1)[2][:, 0], x.chunk(2, 1)[1][:, 0]), 1),
    "unequal parts": lambda x: x.split([2, 4], 2)[1],
    "one part": lambda x: x.split(10, 2)[0],
    "roll": lambda x: x.roll((-2, 3), (2, 3)).roll((0,), (1,)),
    "index": lambda x: x[:, :, torch.tensor([5, 0, 0])][..., torch.tensor([1])],
    "index_select": lambda x: x.index_select(2, torch.tensor([3, 3, 0])),
    "mean": lambda x: x.mean((2, 3), keepdim=True) + x.mean((1,))[:, None],
    "clamp": lambda x: x.clamp(-0.2, 0.3) + x.clamp(min=0.1) + x.clamp(max=0.5),
    "pads": lambda x: (
        F.pad(x, (1, 2, 0, 3), value=0.5)
        + F.pad(x, (1, 2, 0, 3), mode="reflect")
        + F.pad(x, (1, 2, 0, 3), mode="replicate")
        + F.pad(x, (1, 2, 0, 3), mode="circular")
    ),
    "resizes": lambda x: (
        F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        + F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        + F.interpolate(x, scale_factor=2, mode="bicubic")
        + F.interpolate(x, scale_factor=2, mode="nearest")
    ),
    "resize, antialiased": lambda x: F.interpolate(x, scale_factor=3, mode="bicubic", antialias=True),
    "sizes": lambda x: F.interpolate(x, size=(9, 20), mode="bilinear"),
    "nothing": lambda x: (
        F.dropout(x, training=False)[:, :3].clone().to(torch.float32).detach()
        + x.transpose(2, 3).contiguous().transpose(2, 3)
    ),
    "whole numbers": lambda x: (5 * x).to(torch.int64).to(torch.float32) / 2 + (3 * x).int() * 0.5 - (4 * x).int() / 3,
    "types of others": lambda x: x.type_as(x.relu()) + x.to(x.abs()) + torch.arange(8).type_as(x),
    "bmm": lambda x: torch.bmm(x[0], x[0].transpose(1, 2)),
    "large sums of constants": lambda x: x[:, :1, :1, :1] * (torch.arange(100.0)[:, None] + torch.arange(100.0)),
    "large gathers": lambda x: x[:, :1, :1, :1] * torch.arange(5.0)[torch.arange(10000) % 5],
}
used: set[str] = set()


class Around(nn.Module):
    """A network that computes one expression of its image."""

    def __init__(self, expression: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.expression = expression
        self.scale, self.value_range = 1, 1.0
        self.register_buffer("nothing", torch.zeros(1))
        self.alignment, self.receptive_field = 1, None
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.expression(images - 0.5)


def run(expression: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Writer]:
    traced = trace(Model(Around(expression), "x"), *images.shape[-2:])  # type: ignore[arg-type]
    used.update(str(node.target) for node in traced.graph.nodes if node.op == "call_function")
    writer = Writer()
    output = write(traced, writer, {})
    helper = writer.onnx.helper
    values = [helper.make_tensor_value_info("images", 1, list(images.shape))]
    results = [helper.make_tensor_value_info(output, 1, list(expression(images - 0.5).shape))]
    graph = helper.make_graph(writer.nodes, "g", values, results, initializer=writer.constants)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    writer.onnx.checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), writer


@pytest.mark.parametrize("case", CASES)
def test_an_operator_gives_what_pytorch_gives(case: str) -> None:
    images = torch.rand(1, 3, 6, 8)
    found, _ = run(CASES[case], images)
    torch.testing.assert_close(found, CASES[case](images - 0.5), rtol=1e-4, atol=1e-5)


def test_every_operator_is_tested() -> None:
    for expression in CASES.values():
        traced = trace(Model(Around(expression), "x"), 6, 8)  # type: ignore[arg-type]
        used.update(str(node.target) for node in traced.graph.nodes if node.op == "call_function")
    assert OPERATORS.keys() <= used


def test_constants_that_grow_are_left_to_the_engine() -> None:
    _, writer = run(CASES["large sums of constants"], torch.rand(1, 3, 6, 8))
    assert sum(len(tensor.raw_data) for tensor in writer.constants) < 2000


def test_equal_constants_are_stored_once() -> None:
    big = torch.rand(1000)
    _, writer = run(lambda x: x[0, 0, 0, 0] * big + (x[0, 0, 0, 0] - big.clone()), torch.rand(1, 3, 6, 8))
    assert sum(len(tensor.raw_data) for tensor in writer.constants) < 5000


def test_equal_operators_are_written_once() -> None:
    writer = Writer()
    one, other = (writer.node("Transpose", "images", perm=[0, 2, 1]) for _ in range(2))
    assert one == other
    assert writer.node("Transpose", "images", perm=[2, 0, 1]) != one
    assert writer.node("Split", "images", outputs=2, axis=0) == writer.node("Split", "images", outputs=2, axis=0)
    assert len(writer.nodes) == 3


def test_what_nothing_needs_is_left_out() -> None:
    writer = Writer()
    needed = writer.node("Relu", writer.node("Mul", "images", torch.tensor(2.0)))
    writer.node("Add", needed, torch.tensor(3.0))
    nodes, constants = writer.used(needed)
    assert [node.op_type for node in nodes] == ["Mul", "Relu"]
    assert [float(writer.onnx.numpy_helper.to_array(tensor)) for tensor in constants] == [2.0]


def test_an_unknown_operator_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"the network uses aten.erfinv.default, which cannot be exported"):
        run(torch.erfinv, torch.rand(1, 3, 6, 8))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (lambda x: x.half().float(), r"aten.to.dtype with numbers of torch.float16, .* compute in float32; it cannot"),
        (lambda x: (x.double() * 3).float(), "aten.to.dtype with numbers of torch.float64"),
        (lambda x: x.softmax(1, dtype=torch.float64).float(), "aten.softmax.int with numbers of torch.float64"),
        (lambda x: (300 * x).to(torch.uint8).float(), r"a change from torch.float32 to torch.uint8"),
        (lambda x: x * x.bool(), r"a change from torch.float32 to torch.bool"),
    ],
)
def test_other_types_are_refused(expression: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        run(expression, torch.rand(1, 3, 6, 8))


def test_what_cannot_be_traced_says_so() -> None:
    with pytest.raises(ArgumentError, match="cannot be traced for export"):
        run(lambda x: x if float(x.sum()) > 0 else -x, torch.rand(1, 3, 6, 8))


def test_a_module_that_cannot_be_written_is_named() -> None:
    network = EDSR(EDSRConfig(scale=2, channels=4, blocks=1)).eval()
    network.body[0].body[1] = nn.Hardsigmoid()
    with pytest.raises(ArgumentError, match=r"body.0.body.1 uses aten.hardsigmoid"):
        write(trace(Model(network, "x"), 8, 8), Writer(), {})
