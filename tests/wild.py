"""Small networks of the kinds that people bring: ways to write a network, each of which once went wrong somewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune


class Wild(nn.Module):
    """×2: three convolutions around a residual, which the others vary."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.body: Any = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        return F.pixel_shuffle(self.last(y + torch.relu(self.middle(y))), 2)

    def middle(self, y: Tensor) -> Tensor:
        return self.body(y)


class OneModuleManyNames(Wild):
    """A recursive network: one block under four names, run three times."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([self.body] * 3)

    def middle(self, y: Tensor) -> Tensor:
        for block in self.blocks:
            y = y + torch.relu(block(y))
        return y


class AliasOfAChild(Wild):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1))
        self.conv = self.body[0]

    def middle(self, y: Tensor) -> Tensor:
        return self.body(y) + self.conv(y)


class TiedWeights(Wild):
    """Two modules with one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = nn.Conv2d(8, 8, 3, padding=1)
        self.tied.weight = self.body.weight

    def middle(self, y: Tensor) -> Tensor:
        return self.tied(self.body(y))


class ReturnsWhatWasOverwritten(Wild):
    """As SPAN does: a tensor is read after an activation has written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.SiLU(inplace=True)
        self.harmless = nn.ReLU(inplace=True)
        self.more = nn.Conv2d(8, 8, 1)

    def middle(self, y: Tensor) -> Tensor:
        out = self.body(y)
        changed = self.act(out)
        return self.harmless(self.more(changed)) + out


class OverwritesByFunction(Wild):
    def middle(self, y: Tensor) -> Tensor:
        out = self.body(y)
        F.leaky_relu(out, 0.2, inplace=True)
        out += y
        return out


class ReadsAttributes(Wild):
    """Asks its convolution for what it is."""

    def middle(self, y: Tensor) -> Tensor:
        pad = self.body.kernel_size[0] // 2 - self.body.padding[0] + self.body.stride[0] - 1
        y = self.body(F.pad(y, [pad] * 4))
        return y.view(len(y), self.body.out_channels // self.body.groups, *y.shape[2:]) + self.body.weight.mean()


class CalledByKeyword(Wild):
    def middle(self, y: Tensor) -> Tensor:
        return self.body(input=y)


class FusesInForward(nn.Module):
    """A structural reparametrization: three branches, fused in each pass."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(channels, channels, 3), nn.Conv2d(channels, channels, 1)
        self.fused = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        self.fused.weight.data = self.wide.weight.data + F.pad(self.narrow.weight.data, [1] * 4)
        self.fused.bias.data = self.wide.bias.data + self.narrow.bias.data
        return self.fused(x)


class FunctionalWeight(nn.Module):
    """A low-rank update (LoRA) of a weight, by functions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) / 8)
        self.down, self.up = nn.Parameter(torch.randn(2, channels)), nn.Parameter(torch.randn(channels, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight + (self.up @ self.down)[..., None, None] / 8, padding=1, stride=1)


class PlainSubclass(nn.Conv2d):
    """Its padding is set in another way; it computes what a convolution does."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2, padding_mode="reflect")


class StandardizedConvolution(nn.Conv2d):
    """A subclass that changes its weight in each pass."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class WeightOfTheImage(nn.Conv2d):
    """A subclass whose weight depends on the image: it can only stay float."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight * input.mean().tanh(), self.bias, padding=1)


class ChangesItsOutput(nn.Conv2d):
    """A subclass that writes into what the convolution gave."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).mul_(0.5)


class Normalised(nn.Module):
    """A convolution and a batch normalisation after it."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), norm
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class CountsMore(nn.BatchNorm2d):
    """A batch normalisation with a tensor of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("seen", torch.zeros(()))


def with_body(body: Callable[[], nn.Module]) -> Callable[[], Wild]:
    """Makes a network with another body."""

    def make() -> Wild:
        network = Wild()
        network.body = body()
        return network

    return make


def every_layer(change: Callable[..., object], *arguments: Any, **named: Any) -> Callable[[], Wild]:
    """Makes a network of whose layers each was changed."""

    def make() -> Wild:
        network = Wild()
        for layer in (network.first, network.body, network.last):
            change(layer, *arguments, **named)
        return network

    return make


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class FSRCNN(nn.Module):
    """A transposed convolution does most of the work."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.PReLU(16))
        self.up = nn.ConvTranspose2d(16, 3, 9, 2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.first(x))


def _weight_norm_of_old(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and what most published code calls
        return nn.utils.weight_norm(layer)


def _grouped_transposed() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2, groups=4), nn.Conv2d(8, 8, 2, 2))


QUANTIZED: dict[str, Callable[[], nn.Module]] = {
    "plain": Wild,
    "one module, many names": OneModuleManyNames,
    "alias of a child": AliasOfAChild,
    "tied weights": TiedWeights,
    "returns what was overwritten": ReturnsWhatWasOverwritten,
    "overwrites by function": OverwritesByFunction,
    "reads attributes": ReadsAttributes,
    "called by keyword": CalledByKeyword,
    "fuses in forward": with_body(lambda: FusesInForward(8)),
    "functional weight": with_body(lambda: FunctionalWeight(8)),
    "plain subclass": with_body(lambda: PlainSubclass(8, 8, 3)),
    "standardized": with_body(lambda: StandardizedConvolution(8, 8, 3, padding=1)),
    "FSRCNN": FSRCNN,
    "grouped, transposed": with_body(_grouped_transposed),
    "weight norm": every_layer(parametrizations.weight_norm),
    "weight norm of old": every_layer(_weight_norm_of_old),
    "spectral norm": every_layer(parametrizations.spectral_norm),
    "spectral norm of old": every_layer(nn.utils.spectral_norm),
    "parametrized": every_layer(lambda layer: parametrize.register_parametrization(layer, "weight", Doubled())),
    "pruned": every_layer(prune.l1_unstructured, name="weight", amount=0.5),
    "batch norm": with_body(lambda: Normalised(nn.BatchNorm2d(8))),
    "batch norm without weights": with_body(lambda: Normalised(nn.BatchNorm2d(8, affine=False))),
    "batch norm without averages": with_body(lambda: Normalised(nn.BatchNorm2d(8, track_running_stats=False))),
    "batch norm with more": with_body(lambda: Normalised(CountsMore(8))),
    "one weight norm of old": with_body(lambda: _weight_norm_of_old(nn.Conv2d(8, 8, 3, padding=1))),
}
"""Networks whose every multiplication can be quantized."""

IN_PART: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "weight of the image": (
        with_body(lambda: WeightOfTheImage(8, 8, 3, padding=1)),
        "a WeightOfTheImage, which computes something else than Conv2d",
    ),
    "changes its output": (
        with_body(lambda: ChangesItsOutput(8, 8, 3, padding=1)),
        "a ChangesItsOutput, which computes something else than Conv2d",
    ),
}
"""Networks of which ``network.body`` cannot be quantized, and the reason."""
