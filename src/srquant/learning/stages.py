"""What is learned when, and how it moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from srquant.learning.settings import LearningSettings, TruthSettings
from srquant.support.processes import Processes


@dataclass(frozen=True)
class Group:
    """Parameters of the student that take steps of one kind.

    Args:
        parameters: By name.
        relative: Multiply by exp(−rate·…) instead of subtracting rate·…, so that a rate means the same for a bound of
            0.1 and of 200. Signs and zeros are kept.
        factor: On the learning rate of the settings.
        largest: By name, the magnitude that some of them never exceed.
        slopes: By name, factors on gradients. Adam cancels them, but for its ε.
    """

    parameters: Mapping[str, nn.Parameter]
    relative: bool = False
    factor: float = 1.0
    largest: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    slopes: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Stage:
    """What an epoch learns. An :data:`~srquant.learning.order.Order` says which stage has its turn when.

    Args:
        name: In reports.
        groups: What moves.
        within: Opened around each pass of the student in this stage, with the processes that share the batch.
    """

    name: str
    groups: tuple[Group, ...]
    within: Callable[[Processes], AbstractContextManager[object]] = nullcontext


class Mover:
    """Adam on the parameters, or on the logarithm of their change.

    A relative step takes Adam's step δ of a variable that is zero, along ∂L/∂δ = θ·∂L/∂θ, and multiplies θ by exp(δ).
    """

    def __init__(self, stages: Sequence[Stage], settings: LearningSettings | TruthSettings) -> None:
        groups = [group for stage in stages for group in stage.groups]
        self.parameters = {name: parameter for group in groups for name, parameter in group.parameters.items()}
        self._relative = {name for group in groups if group.relative for name in group.parameters}
        self._leaves = {
            name: torch.zeros_like(parameter) if name in self._relative else parameter
            for name, parameter in self.parameters.items()
        }
        betas = (settings.beta1, settings.beta2)
        self.adam = torch.optim.Adam([{"params": [leaf]} for leaf in self._leaves.values()], settings.rate, betas)

    def activate(self, stage: Stage) -> list[nn.Parameter]:
        """Ask for gradients of the parameters that a stage learns, and no others; give them."""
        for parameter in self.parameters.values():
            parameter.grad = None
            parameter.requires_grad_(False)
        active = [parameter for group in stage.groups for parameter in group.parameters.values()]
        for parameter in active:
            parameter.requires_grad_()
        return active

    @torch.no_grad()
    def move(self, stage: Stage, rate: float) -> None:
        """Take a step along the gradients of a stage's parameters."""
        factors = {name: group.factor for group in stage.groups for name in group.parameters}
        slopes = {name: slope for group in stage.groups for name, slope in group.slopes.items()}
        for (name, leaf), slot in zip(self._leaves.items(), self.adam.param_groups, strict=True):
            slope = self.parameters[name].grad if name in factors else None
            if slope is not None and name in self._relative:
                slope = slope * self.parameters[name]
            if slope is not None and name in slopes:
                slope = slope * slopes[name]
            leaf.grad = slope
            slot["lr"] = rate * factors.get(name, 0.0)
        self.adam.step()
        for name in factors.keys() & self._relative:
            self.parameters[name].mul_(self._leaves[name].exp())
            self._leaves[name].zero_()
        for group in stage.groups:
            for name in group.parameters.keys() & group.largest.keys():
                limit = group.largest[name]
                self.parameters[name].clamp_(-limit, limit)
