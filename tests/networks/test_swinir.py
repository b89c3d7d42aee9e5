"""SwinIR against spandrel's independent implementation, on equal random weights."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pytest
import torch

from srquant.networks import open_network
from srquant.networks.checkpoint import read_checkpoint
from srquant.networks.opening import save_network
from srquant.networks.spandrel import import_spandrel
from srquant.networks.swinir import SwinIR, Windows, reorder

if importlib.util.find_spec("spandrel") is None:
    pytest.skip("spandrel is not installed", allow_module_level=True)

VARIANTS = {
    "light": {
        "upscale": 4,
        "embed_dim": 60,
        "depths": [2, 2],
        "num_heads": [6, 6],
        "window_size": 8,
        "mlp_ratio": 2,
        "upsampler": "pixelshuffledirect",
        "img_size": 64,
    },
    "light x3": {
        "upscale": 3,
        "embed_dim": 12,
        "depths": [2],
        "num_heads": [2],
        "window_size": 4,
        "mlp_ratio": 2,
        "upsampler": "pixelshuffledirect",
        "img_size": 48,
    },
    "classical": {
        "upscale": 4,
        "embed_dim": 36,
        "depths": [2, 3],
        "num_heads": [6, 3],
        "window_size": 8,
        "mlp_ratio": 2,
        "upsampler": "pixelshuffle",
        "img_size": 48,
    },
    "classical x2": {
        "upscale": 2,
        "embed_dim": 24,
        "depths": [1, 1, 2],
        "num_heads": [4, 4, 4],
        "window_size": 8,
        "mlp_ratio": 4,
        "upsampler": "pixelshuffle",
        "img_size": 64,
    },
}


def reference(variant: str) -> torch.nn.Module:
    import_spandrel()
    module = importlib.import_module("spandrel.architectures.SwinIR.__arch.SwinIR")
    network = module.SwinIR(**VARIANTS[variant]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("size", [(64, 64), (48, 40), (50, 37), (16, 9)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_weights_give_equal_images(variant: str, size: tuple[int, int]) -> None:
    expected = reference(variant)
    network = open_network(dict(expected.state_dict()))
    assert isinstance(network, SwinIR)
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected(images), atol=1e-5, rtol=1e-5)


def test_masks_and_indices_of_published_files_are_not_kept(tmp_path: Path) -> None:
    state = dict(reference("light").state_dict())
    assert any(key.endswith("attn_mask") for key in state)
    network = open_network(state)
    save_network(tmp_path / "n.safetensors", network, {})
    written = read_checkpoint(tmp_path / "n.safetensors")
    assert written.keys() < state.keys(), "no key is added"
    assert all(torch.equal(value, state[key]) for key, value in written.items())
    assert not any(key.endswith(("attn_mask", "relative_position_index")) for key in written)
    numbers = sum(value.numel() for value in network.parameters())
    assert (tmp_path / "n.safetensors").stat().st_size < 4 * numbers + 20_000, "nothing but weights is written"


def test_queries_keys_and_values_are_multiplications_of_their_own() -> None:
    state = dict(reference("light").state_dict())
    attention = "layers.1.residual_group.blocks.0.attn"
    found = open_network(state).state_dict()
    for number, name in enumerate("qkv"):
        for kind in ("weight", "bias"):
            part = state[f"{attention}.qkv.{kind}"][60 * number : 60 * (number + 1)]
            assert torch.equal(found[f"{attention}.{name}.{kind}"], part)


def test_masks_follow_the_shape_of_the_image() -> None:
    """No mask is kept: after a large image a small one is computed as before it."""
    network = open_network(dict(reference("light").state_dict()))
    small, large = torch.rand(1, 3, 9, 21), torch.rand(1, 3, 40, 24)
    with torch.no_grad():
        before = network(small)
        network(large)
        assert torch.equal(network(small), before)
    assert max(buffer.numel() for buffer in network.buffers()) <= 64 * 64, "positions inside a window"


def test_tokens_change_their_order_and_gradients_follow() -> None:
    windows = Windows.of(torch.zeros(2, 1, 12, 8), 4)
    image, straight, shifted = (order.pixel for order in (windows.image, windows.straight, windows.shifted))
    assert straight[:8].tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert torch.equal(straight[96:], straight[:96] + 96), "the second image's tokens"
    assert shifted[:5].tolist() == [18, 19, 20, 21, 26]
    x = torch.rand(2 * 96, 3, requires_grad=True)
    orders = [windows.image, windows.shifted, windows.straight]
    moved = reorder(reorder(x, orders[0], orders[1]), orders[1], orders[2])
    assert torch.equal(moved, x[straight])
    assert torch.equal(reorder(moved, orders[2], orders[0]), x[image])
    weight = torch.rand_like(x)
    (found,) = torch.autograd.grad((moved * weight).sum(), x)
    (expected,) = torch.autograd.grad((x[straight] * weight).sum(), x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("size", "groups"), [((16, 24), 4), ((8, 24), 2), ((8, 8), 1)])
def test_windows_with_equal_masks_follow_one_another(size: tuple[int, int], groups: int) -> None:
    mask = Windows.of(torch.zeros(1, 1, *size), 8).mask
    assert mask.shape == (size[0] * size[1] // 64, 1, 64, 64)
    changes = (mask[1:] != mask[:-1]).flatten(1).any(1)
    assert int(changes.sum()) + 1 == len(mask.unique(dim=0)) == groups
    assert bool(mask[0].any()) == (min(size) == 8), "those with none come first"


def test_the_variant_for_real_photographs_opens_through_spandrel() -> None:
    import_spandrel()
    module = importlib.import_module("spandrel.architectures.SwinIR.__arch.SwinIR")
    real = module.SwinIR(
        upscale=4,
        embed_dim=12,
        depths=[2],
        num_heads=[2],
        window_size=8,
        mlp_ratio=2,
        img_size=64,
        upsampler="nearest+conv",
    )
    network = open_network(dict(real.state_dict()))
    assert network.name == "spandrel"
    assert network(torch.rand(1, 3, 9, 10)).shape == (1, 3, 36, 40)
