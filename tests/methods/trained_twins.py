"""Training a quantized EDSR as the papers write it: plain tensors, one network, no part of ``srquant.learning``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srquant.learning.photographs import Photographs
from srquant.learning.settings import TruthSettings
from srquant.model import Model
from srquant.model.swapping import quant_layers


def ste(x: Tensor) -> Tensor:
    """Rounding whose gradient is one."""
    return x + (x.round() - x).detach()


def clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values inside pass their gradient on, the others give it to the bound."""
    return torch.where(x > high, high, torch.where(x < low, low, x))


def short(x: Tensor) -> Tensor:
    """x with 16 significant bits, as scales have them here; its gradient is one."""
    mantissa, exponent = torch.frexp(x.detach())
    return x + ((mantissa * 2**16).round().ldexp(exponent - 16) - x).detach()


class Twin:
    """A float EDSR whose convolutions in the blocks take rounded inputs and rounded weights.

    Args:
        model: Float.
        activation: Rounds the input of the layer of a name.
        weight: Rounds its weight.
    """

    def __init__(
        self, model: Model, activation: Callable[[str, Tensor], Tensor], weight: Callable[[str, Tensor], Tensor]
    ) -> None:
        self.teacher = model.network
        self.network = copy.deepcopy(model.network).requires_grad_(True)
        self.names = [f"body.{i}.body.{j}" for i in range(model.network.config.blocks) for j in (0, 2)]
        self.inputs: dict[str, Tensor] = {}

        def rounded(name: str, conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
            def run(x: Tensor) -> Tensor:
                self.inputs[name] = x
                return F.conv2d(activation(name, x), weight(name, conv.weight), conv.bias, padding=1)

            return run

        for name in self.names:
            conv = self.network.get_submodule(name)
            conv.forward = rounded(name, conv)  # type: ignore[method-assign]

    def learn(
        self,
        photographs: Photographs,
        settings: TruthSettings,
        others: Sequence[tuple[Iterable[Tensor], float]],
        step: Callable[[int, Tensor, Tensor], None],
    ) -> None:
        """Adam: weights at the rate of the settings, other tensors at multiples of it; ``step`` leaves gradients."""
        groups = [{"params": list(self.network.parameters()), "factor": 1.0}]
        groups += [{"params": list(tensors), "factor": factor} for tensors, factor in others]
        adam = torch.optim.Adam(groups, settings.rate)
        length = -(-settings.steps // settings.epochs)
        for number in range(settings.steps):
            low, high = photographs.batch(settings.seed, number, settings.batch, settings.patch)
            adam.zero_grad()
            step(number // length, low * self.network.value_range, high * 255)
            for group in adam.param_groups:
                group["lr"] = (
                    settings.rate * group["factor"] * settings.decay ** (number // length // settings.decay_every)
                )
            adam.step()

    def bounds(self) -> dict[str, Tensor]:
        """One tensor to learn for each layer."""
        return {name: torch.tensor(0.0, requires_grad=True) for name in self.names}


def far(twin: Twin, model: Model, weight: Callable[[str, Tensor], Tensor]) -> float:
    """The largest distance of weights, rounded in blocks and float elsewhere, next to the largest of their layer."""
    layers = quant_layers(model.network)
    worst = 0.0
    for name, parameter in twin.network.named_parameters():
        owner, _, kind = name.rpartition(".")
        if owner in layers:
            expected = weight(owner, parameter) if kind == "weight" else parameter
            found = layers[owner].right() if kind == "weight" else layers[owner].bias  # type: ignore[operator]
        else:
            expected, found = parameter, model.network.get_parameter(name)
        assert found is not None
        worst = max(worst, float((expected - found).detach().abs().max() / expected.detach().abs().max()))
    return worst


def furthest(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """The largest relative distance of numbers by name."""
    assert expected.keys() == found.keys()
    return max(float((expected[name] / found[name] - 1).detach().abs().max()) for name in expected)
