"""Published layouts, made by the tests: the right function is read, not just any that fits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import small_networks
from torch import Tensor, nn

from srquant.networks import open_network
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.support.errors import NetworkError


def conv_state(name: str, inputs: int, outputs: int, size: int = 3, *, bias: bool = True) -> dict[str, Tensor]:
    module = nn.Conv2d(inputs, outputs, size, bias=bias)
    return {f"{name}.{key}": value.detach() for key, value in module.state_dict().items()}


def edsr_pytorch(blocks: int, channels: int, factors: tuple[int, ...]) -> dict[str, Tensor]:
    """EDSR-PyTorch: 1×1 convolutions subtract and add the mean, images in 0…255."""
    state = conv_state("head.0", 3, channels) | conv_state(f"body.{blocks}", channels, channels)
    for i in range(blocks):
        state |= conv_state(f"body.{i}.body.0", channels, channels) | conv_state(f"body.{i}.body.2", channels, channels)
    for i, factor in enumerate(factors):
        state |= conv_state(f"tail.0.{2 * i}", channels, channels * factor**2)
    state |= conv_state("tail.1", channels, 3)
    mean = 255 * torch.tensor([0.4488, 0.4371, 0.4040])
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        state |= {f"{name}.weight": torch.eye(3).view(3, 3, 1, 1), f"{name}.bias": sign * mean}
    return state


def run_edsr_pytorch(state: dict[str, Tensor], x: Tensor, blocks: int, factors: tuple[int, ...]) -> Tensor:
    def conv(name: str, x: Tensor, padding: int = 1) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    x = conv("head.0", conv("sub_mean", x, 0))
    y = x
    for i in range(blocks):
        y = y + conv(f"body.{i}.body.2", conv(f"body.{i}.body.0", y).relu())
    y = conv(f"body.{blocks}", y) + x
    for i, factor in enumerate(factors):
        y = F.pixel_shuffle(conv(f"tail.0.{2 * i}", y), factor)
    return conv("add_mean", conv("tail.1", y), 0)


@pytest.mark.parametrize(("scale", "factors"), [(2, (2,)), (3, (3,)), (4, (2, 2))])
def test_edsr_pytorch(scale: int, factors: tuple[int, ...]) -> None:
    state = edsr_pytorch(2, 6, factors)
    network = open_network(state)
    assert isinstance(network, EDSR)
    assert network.config == EDSRConfig(scale=scale, channels=6, blocks=2, value_range=255)
    x = 255 * torch.rand(1, 3, 7, 9)
    torch.testing.assert_close(network(x), run_edsr_pytorch(state, x, 2, factors))


def test_edsr_of_256_channels_scales_its_residuals() -> None:
    network = open_network(edsr_pytorch(1, 256, (2,)))
    assert network.config.residual_scale == 0.1


@pytest.mark.parametrize(("scale", "factors"), [(2, (2,)), (3, (3,)), (4, (2, 2))])
def test_edsr_of_basicsr(scale: int, factors: tuple[int, ...]) -> None:
    """BasicSR: images in [0, 1], (x − mean)·255 inside; the same function in other words."""
    reference = edsr_pytorch(2, 6, factors)
    names = {"head.0": "conv_first", "body.2": "conv_after_body", "tail.1": "conv_last"}
    names |= {f"body.{i}.body.{j}": f"body.{i}.conv{j // 2 + 1}" for i in range(2) for j in (0, 2)}
    names |= {f"tail.0.{2 * i}": f"upsample.{2 * i}" for i in range(len(factors))}
    state = {f"{new}.{kind}": reference[f"{old}.{kind}"] for old, new in names.items() for kind in ("weight", "bias")}
    network = open_network(state)
    assert network.config == EDSRConfig(scale=scale, channels=6, blocks=2, value_range=255)
    x = 255 * torch.rand(1, 3, 7, 9)
    torch.testing.assert_close(network(x), run_edsr_pytorch(reference, x, 2, factors))


@pytest.mark.parametrize(("scale", "factors"), [(2, (2,)), (3, (3,)), (4, (2, 2))])
def test_msrresnet_of_basicsr(scale: int, factors: tuple[int, ...]) -> None:
    state = conv_state("conv_first", 3, 6) | conv_state("conv_hr", 6, 6) | conv_state("conv_last", 6, 3)
    for i in range(2):
        state |= conv_state(f"body.{i}.conv1", 6, 6) | conv_state(f"body.{i}.conv2", 6, 6)
    for i, factor in enumerate(factors, start=1):
        state |= conv_state(f"upconv{i}", 6, 6 * factor**2)
    network = open_network(state)
    assert network.name == "msrresnet"

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    x = torch.rand(1, 3, 7, 9)
    y = F.leaky_relu(conv("conv_first", x), 0.1)
    for i in range(2):
        y = y + conv(f"body.{i}.conv2", conv(f"body.{i}.conv1", y).relu())
    for i, factor in enumerate(factors, start=1):
        y = F.leaky_relu(F.pixel_shuffle(conv(f"upconv{i}", y), factor), 0.1)
    y = conv("conv_last", F.leaky_relu(conv("conv_hr", y), 0.1))
    y = y + F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(x), y)


@pytest.mark.parametrize(("scale", "factors"), [(2, (2,)), (3, (3,)), (4, (2, 2))])
def test_rdn_of_edsr_pytorch(scale: int, factors: tuple[int, ...]) -> None:
    base, growth, blocks, layers = 5, 4, 2, 3
    state = conv_state("SFENet1", 3, base) | conv_state("SFENet2", base, base)
    for b in range(blocks):
        for c in range(layers):
            state |= conv_state(f"RDBs.{b}.convs.{c}.conv.0", base + c * growth, growth)
        state |= conv_state(f"RDBs.{b}.LFF", base + layers * growth, base, 1)
    state |= conv_state("GFF.0", blocks * base, base, 1) | conv_state("GFF.1", base, base)
    widths = [base, growth]
    for i, factor in enumerate(factors):
        state |= conv_state(f"UPNet.{2 * i}", widths[min(i, 1)], growth * factor**2)
    state |= conv_state(f"UPNet.{2 * len(factors)}", growth, 3)
    network = open_network(state)
    assert (network.name, network.scale, network.value_range) == ("rdn", scale, 255)

    def conv(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    x = 255 * torch.rand(1, 3, 7, 9)
    first = conv("SFENet1", x)
    y, outputs = conv("SFENet2", first), []
    for b in range(blocks):
        dense = y
        for c in range(layers):
            dense = torch.cat((dense, conv(f"RDBs.{b}.convs.{c}.conv.0", dense).relu()), 1)
        y = conv(f"RDBs.{b}.LFF", dense) + y
        outputs.append(y)
    y = conv("GFF.1", conv("GFF.0", torch.cat(outputs, 1))) + first
    for i, factor in enumerate(factors):
        y = F.pixel_shuffle(conv(f"UPNet.{2 * i}", y), factor)
    torch.testing.assert_close(network(x), conv(f"UPNet.{2 * len(factors)}", y))


@pytest.mark.parametrize("wrapper", [("params",), ("params_ema",), ("state_dict",), ("model", "params"), ()])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes(tmp_path, wrapper: tuple[str, ...], prefix: str) -> None:
    from srquant.networks.opening import load_network

    network = small_networks()["edsr"]
    content: dict[str, object] = {prefix + key: value for key, value in network.state_dict().items()}
    for key in reversed(wrapper):
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "n.pth")
    assert load_network(tmp_path / "n.pth").config == network.config


def test_half_precision_weights_are_opened_in_single() -> None:
    state = {key: value.half() for key, value in small_networks()["edsr"].state_dict().items()}
    network = open_network(state)
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


def test_what_does_not_fit_is_said() -> None:
    state = dict(small_networks()["edsr"].state_dict())
    del state["body.1.body.0.bias"], state["body.1.body.2.bias"]
    state["body.0.body.0.weight"] = torch.zeros(8, 9, 3, 3)
    state["extra"] = torch.zeros(1)
    with pytest.raises(NetworkError) as caught:
        open_network(state)
    message = str(caught.value)
    assert "look like edsr but do not fit" in message
    assert "missing keys: body.1.body.0.bias, body.1.body.2.bias" in message
    assert "unexpected keys: extra" in message
    assert "body.0.body.0.weight is [8, 9, 3, 3], expected [8, 8, 3, 3]" in message


def test_keys_of_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NetworkError, match="no known network has these weights"):
        open_network({"a": torch.zeros(1)})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from srquant.support.errors import MissingExtraError

    with pytest.raises(MissingExtraError, match=r"pip install 'srquant\[spandrel\]'"):
        open_network({"a": torch.zeros(1)})


def test_value_range_can_be_said() -> None:
    state = dict(small_networks()["rdn"].state_dict())
    assert open_network(state).value_range == 255
    assert open_network(state, 1.0).value_range == 1
