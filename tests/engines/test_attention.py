"""Masked attention in groups of windows: what is found, and that it gives what it gave."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.engines.graphs import exported, kinds, run
from torch import Tensor

from srquant.engines.passes.attention import find_attentions, group_attentions

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


def rounded(x: Tensor) -> Tensor:
    """An attention whose operands are rounded to a grid."""
    q, k = heads(x).transpose(1, 2), heads(x.tanh()).permute(0, 2, 3, 1)
    scores = level(q) @ level(k) + MASKS
    return level(scores.softmax(-1)) @ level(heads(2 * x).transpose(1, 2))


def level(x: Tensor) -> Tensor:
    return torch.ops.srquant.quantized(x, 0.01, [-100, 155], [255], False)


def shared_scores(x: Tensor) -> Tensor:
    scores = heads(x).transpose(1, 2) @ heads(x).permute(0, 2, 3, 1)
    return ((scores + MASKS).softmax(-1) @ heads(x).transpose(1, 2)) + scores[..., :1]


def across(x: Tensor) -> Tensor:
    """Windows and heads change places before the product."""
    q = heads(x).permute(2, 1, 0, 3)[:, :6]
    return (q @ q.transpose(-2, -1) + MASKS[:2, :, :6, :6]).softmax(-1) @ q


@pytest.mark.parametrize("expression", [attention, rounded])
def test_windows_with_one_mask_are_one_group(expression: Callable[[Tensor], Tensor]) -> None:
    model = exported(expression, IMAGES)
    alone, before = run(model, IMAGES), kinds(model)
    (found,) = find_attentions(model)
    assert [count for count, _ in found.groups] == [3, 2, 1]
    assert all(mask.shape == (1, 1, 8, 8) for _, mask in found.groups)
    assert group_attentions(model) == 1
    after = kinds(model)
    assert (before["Softmax"], after["Softmax"]) == (1, 3)
    bias = int(expression is attention)
    assert (before["Add"], after["Add"]) == (1 + bias, 3 * bias + 2), "the bias in every group, a mask in two of them"
    assert after["Split"] == 3
    torch.testing.assert_close(run(model, IMAGES), alone)
    torch.testing.assert_close(alone, expression(IMAGES))


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
    model = exported(expression, IMAGES)
    assert group_attentions(model) == 0
    assert kinds(model)["Softmax"] == 1
    torch.testing.assert_close(run(model, IMAGES), expression(IMAGES))


def test_too_many_groups_are_left_alone() -> None:
    masks = torch.arange(12.0)[:, None, None] * torch.eye(8)

    def many(x: Tensor) -> Tensor:
        x = x.reshape(12, 8, 8)
        return (x @ x.transpose(1, 2) + masks).softmax(-1) @ x

    assert group_attentions(exported(many, IMAGES)) == 0
