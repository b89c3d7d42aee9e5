"""Passes, each alone: what it changes, and that the graph computes what it did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.engines.graphs import exported, kinds, run
from torch import Tensor

from srquant.engines.passes.constants import store_constants
from srquant.engines.passes.graphs import constant_of, node, stored
from srquant.engines.passes.pixels import convolve_pixels
from srquant.engines.passes.plain import simplify
from srquant.engines.passes.relus import join_relus
from srquant.engines.passes.scatters import drop_empty_scatters
from srquant.engines.passes.shuffles import order_channels, shuffle_last
from srquant.engines.passes.weights import store_four_bits, turn_weights

IMAGES = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0)) - 0.5
KERNEL = (torch.arange(12 * 3 * 9) % 15 - 7).to(torch.int8).view(12, 3, 3, 3)
SCALE = torch.linspace(0.01, 0.05, 12)
LINE = (torch.arange(4 * 3) % 15 - 7).to(torch.int8).view(4, 3)


def mark(x: Tensor, zero: int = 0) -> Tensor:
    return torch.ops.srquant.quantized(x, 0.01, [-zero, 255 - zero], [255], True)


def kernel() -> Tensor:
    return torch.ops.srquant.decoded(KERNEL, SCALE, 0)


def upsampled(x: Tensor) -> Tensor:
    return F.pixel_shuffle(F.conv2d(mark(x, 128), kernel(), torch.arange(12.0) / 9, padding=1), 2)


def mapped(x: Tensor) -> Tensor:
    rows = mark(x.permute(0, 2, 3, 1), 128)
    wide = F.linear(rows, torch.ops.srquant.decoded(LINE, SCALE[:4], 0), torch.arange(4.0))
    again = torch.ops.srquant.decoded(LINE.T.contiguous(), SCALE[:3], 0)
    return F.linear(mark(F.gelu(wide) * torch.tensor([1.0, 2, 0.5, 1]), 9), again)


def test_a_quantization_from_zero_on_takes_a_relu_in() -> None:
    model = exported(lambda x: mark(x.relu()) + mark(x.tanh().relu(), 3), IMAGES)
    before = run(model, IMAGES)
    assert join_relus(model) == 1, "not the one whose integers go below zero"
    torch.testing.assert_close(run(model, IMAGES), before)


@pytest.mark.parametrize(
    "after",
    [
        lambda x: mark(x.relu()),
        lambda x: mark(F.prelu(x, torch.tensor([0.1, 0.2, 0.3]))),
        lambda x: mark(x * torch.tensor([1.0, 2, 3])[:, None, None], 9),
        lambda x: torch.ops.srquant.quantized(x, 0.01, [-8, 8, 128], [16, 8], True),
        lambda x: torch.sigmoid(x * 2) - 1,
    ],
    ids=["relu", "prelu", "factors", "piecewise", "numbers"],
)
def test_shuffles_come_last_and_move_pixels(after: Callable[[Tensor], Tensor]) -> None:
    model = exported(lambda x: after(upsampled(x)), IMAGES)
    before = run(model, IMAGES)
    assert shuffle_last(model) > 0
    torch.testing.assert_close(run(model, IMAGES), before)
    assert order_channels(model) == 1
    torch.testing.assert_close(run(model, IMAGES), before)
    order = [node.op_type for node in model.graph]
    assert order[order.index("DepthToSpace") :] in (["DepthToSpace"], ["DepthToSpace", "DequantizeLinear"])


def test_linear_maps_are_multiplied_as_they_lie() -> None:
    model = exported(mapped, IMAGES)
    before = run(model, IMAGES)
    assert turn_weights(model) == 2
    assert not {"Gemm"} & kinds(model).keys()
    torch.testing.assert_close(run(model, IMAGES), before)


def test_linear_maps_are_convolutions_of_pixels_where_the_size_is_known() -> None:
    model = exported(mapped, IMAGES)
    before = run(model, IMAGES)
    turn_weights(model)
    assert convolve_pixels(model) == 2
    assert kinds(model)["MatMul"] == 0
    torch.testing.assert_close(run(model, IMAGES), before)


@pytest.mark.parametrize("odd", [False, True])
def test_weights_of_four_bits(odd: bool) -> None:
    integers = KERNEL * 2 + 1 if odd else KERNEL
    model = exported(lambda x: F.conv2d(mark(x, 128), torch.ops.srquant.decoded(integers, SCALE, 0)), IMAGES)
    before = run(model, IMAGES)
    assert store_four_bits(model) == 1
    assert kinds(model)["Mul"] == int(odd)
    simplify(model)
    assert "INT4" in {value.dtype.name for value in model.graph.initializers.values()}
    torch.testing.assert_close(run(model, IMAGES), before)


def test_what_no_image_changes_is_stored_unless_it_grows() -> None:
    small = torch.rand(100)
    model = exported(lambda x: x.sum() * (small[:, None] + small) + small.argsort(), IMAGES)
    sizes = [array.size for value in model.graph.initializers.values() if (array := constant_of(value)) is not None]
    assert max(sizes) == 100
    assert kinds(model)["TopK"] == 0, "a sort is computed"
    store_constants(model)
    torch.testing.assert_close(run(model, IMAGES), IMAGES.sum() * (small[:, None] + small) + small.argsort())


def test_a_sort_keeps_the_order_of_equal_values() -> None:
    model = exported(lambda x: (x * 4).round().flatten().sort(stable=True).indices.float(), IMAGES)
    assert kinds(model)["TopK"] == 1
    expected = (IMAGES * 4).round().flatten().sort(stable=True).indices.float()
    np.testing.assert_array_equal(run(model, IMAGES), expected)


def test_nothing_that_is_written_is_left_out() -> None:
    model = exported(lambda x: x.relu(), IMAGES)
    (relu,) = model.graph
    nowhere = (
        stored(model, np.zeros((0, 1), np.int64), "nowhere"),
        stored(model, np.zeros((0, 3, 6, 8), "f4"), "nothing"),
    )
    scatter = node("ScatterND", [model.graph.inputs[0], *nowhere])
    model.graph.insert_before(relu, scatter)
    relu.replace_input_with(0, scatter.outputs[0])
    assert drop_empty_scatters(model) == 1
    assert kinds(model) == {"Relu": 1}
    torch.testing.assert_close(run(model, IMAGES), IMAGES.relu())
