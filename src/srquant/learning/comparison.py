"""How far a quantized network is from its float teacher, and along which gradients it comes closer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from srquant.learning.losses import Loss, Outputs
from srquant.learning.settings import LearningSettings
from srquant.learning.teacher import Teacher
from srquant.model.observing import to_network
from srquant.networks.base import SRNetwork
from srquant.support.processes import Processes
from srquant.support.tensors import autocast
from srquant.support.watching import hooks

_TINY = 1e-12
_PROBES = 4
"""Patches on which a network before and after learning is compared."""


class Patches(Protocol):
    """LR images of one size, each made when it is asked for, always the same."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int], /) -> Tensor:
        """Some of them, stacked: ``n 3 h w`` in [0, 1]."""
        ...

    def digest(self) -> str:
        """Tells them from all others."""
        ...


class NotFiniteError(Exception):
    """A loss is NaN or infinite; the text says where that begins."""


class Comparison:
    """What is compared: outputs of student and teacher for the same patches, by a loss."""

    def __init__(
        self,
        student: SRNetwork,
        teacher: SRNetwork,
        patches: Patches,
        loss: Loss,
        settings: LearningSettings,
        group: Processes,
    ) -> None:
        self.student, self.teacher = student, teacher
        self._patches, self._loss, self._group = patches, loss, group
        self._micro_batch = settings.micro_batch
        self._autocast = autocast(next(teacher.parameters()).device, settings.precision)
        self._overwritten: set[str] = set()
        """Feature layers whose outputs the network itself changes afterwards: they are kept as copies."""
        self._expected = Teacher(partial(self.outputs, teacher), settings.cache)

    def outputs(self, network: SRNetwork, images: Tensor) -> Outputs:
        """What a network gives for images in [0, 1], ``n 3 h w``: the output, and the features the loss asks for."""
        features: dict[str, Tensor] = {}
        versions: dict[str, int] = {}

        def keep(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
            features[name] = output.clone() if name in self._overwritten else output
            versions[name] = features[name]._version

        with hooks(network, after={name: partial(keep, name) for name in self._loss.feature_layers}), self._autocast:
            output = network(to_network(network, images))
        overwritten = {name for name, value in features.items() if value._version != versions[name]}
        if overwritten:
            self._overwritten |= overwritten
            return self.outputs(network, images)
        return Outputs(output.float() / network.value_range, features)

    def gradients(self, learned: Sequence[nn.Parameter], indices: Sequence[int]) -> dict[str, float]:
        """Run teacher and student on this process's part of the patches; leave gradients in the parameters.

        Returns:
            The parts of the loss, over the patches of all processes.

        Raises:
            NotFiniteError: The loss is NaN or infinite.
        """
        own = indices[self._group.part(len(indices))]
        values = {name: torch.zeros((), device=learned[0].device) for name in self._loss.parts}
        size = self._micro_batch or len(indices)
        for micro_batch in (own[start : start + size] for start in range(0, len(own), size)):
            images = self._patches.batch(micro_batch)
            expected = self._expected(micro_batch, images)
            found = self.outputs(self.student, images)
            parts = {
                name: value * (len(micro_batch) / len(indices)) for name, value in self._loss(found, expected).items()
            }
            loss = torch.stack(list(parts.values())).sum()
            _require_finite(loss, found)
            loss.backward()
            values = {name: value + parts[name].detach() for name, value in values.items()}
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learned]
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient
        self._group.sum([*gradients, *values.values()])
        return {name: float(value) for name, value in values.items()}

    @torch.no_grad()
    def distance(self) -> float:
        """How far the student's images are from the teacher's on a few patches, next to how far those are from gray:
        their mean absolute distances. In all processes the same.
        """
        error = spread = 0.0
        for index in range(min(_PROBES, len(self._patches))):
            images = to_network(self.teacher, self._patches.batch([index]))
            with self._autocast:
                expected, found = (network(images).float() for network in (self.teacher, self.student))
            error += float((found - expected).abs().mean())
            spread += float((expected - expected.mean()).abs().mean())
        return error / max(spread, _TINY)


def _require_finite(loss: Tensor, found: Outputs) -> None:
    if bool(loss.detach().isfinite()):
        return
    broken = [name for name, value in found.features.items() if not bool(value.isfinite().all())]
    raise NotFiniteError(f"the output of {broken[0]}" if broken else "the loss")
