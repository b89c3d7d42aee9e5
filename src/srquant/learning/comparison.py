"""What is compared: what a quantized network gives with what it should give; gradients along which it comes closer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from srquant.learning.losses import Loss, Outputs
from srquant.learning.settings import LearningSettings, TruthSettings
from srquant.model.adapting import feature_bits
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


Expected = Callable[[Sequence[int], Tensor], Outputs]
"""What the student should give for the patches of these numbers, which are stacked in the tensor."""
Join = Callable[[Mapping[str, Sequence[Tensor]]], Sequence[Tensor]]
"""Makes one gradient of each parameter out of those of the parts of a loss, by the parts' names."""


class NotFiniteError(Exception):
    """A loss is NaN or infinite; the text says where that begins."""


class Watch:
    """Runs networks, and keeps what a loss compares.

    Args:
        loss: Names the modules whose outputs it compares.
        inputs: Modules whose input it compares too.
        device: Where the networks are.
        settings: Say in which precision they compute.
    """

    def __init__(
        self,
        loss: Loss,
        device: torch.device,
        settings: LearningSettings | TruthSettings,
        inputs: Sequence[str] = (),
    ) -> None:
        self._loss, self._inputs = loss, inputs
        self._autocast = autocast(device, settings.precision)
        self._overwritten: set[str] = set()
        """Feature layers whose outputs the network itself changes afterwards: they are kept as copies."""

    def outputs(self, network: SRNetwork, images: Tensor) -> Outputs:
        """What a network gives for images in [0, 1], ``n 3 h w``: the output, and the features the loss asks for."""
        features: dict[str, Tensor] = {}
        inputs: dict[str, Tensor] = {}
        versions: dict[str, int] = {}

        def keep(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
            features[name] = output.clone() if name in self._overwritten else output
            versions[name] = features[name]._version

        def enter(name: str, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
            inputs[name] = operands[0]

        before = {name: partial(enter, name) for name in self._inputs}
        after = {name: partial(keep, name) for name in self._loss.feature_layers}
        with hooks(network, before, after):
            output = self.images(network, images)
        overwritten = {name for name, value in features.items() if value._version != versions[name]}
        if overwritten:
            self._overwritten |= overwritten
            return self.outputs(network, images)
        return Outputs(output, features, inputs, feature_bits(network, images))

    def images(self, network: SRNetwork, images: Tensor) -> Tensor:
        """The output alone, in about [0, 1]."""
        with self._autocast:
            output = network(to_network(network, images))
        return output.float() / network.value_range


class Comparison:
    """What is compared: what the student gives for patches, with what it should give, by a loss.

    Args:
        student: Learns.
        teacher: The float network, from which learning must not lead too far.
        patches: LR images.
        watch: Runs the student.
        expected: What it should give.
        loss: Compares.
        micro_batch: Patches that go through the student together; None for a whole batch.
        group: The processes that divide each batch among them.
        join: Makes one gradient out of those of the loss's parts; None adds them up.
    """

    def __init__(
        self,
        student: SRNetwork,
        teacher: SRNetwork,
        patches: Patches,
        watch: Watch,
        expected: Expected,
        loss: Loss,
        micro_batch: int | None,
        group: Processes,
        join: Join | None = None,
    ) -> None:
        self.student, self.teacher = student, teacher
        self._patches, self._watch, self._expected, self._loss = patches, watch, expected, loss
        self._micro_batch, self._group, self._join = micro_batch, group, join

    def gradients(self, learned: Sequence[nn.Parameter], indices: Sequence[int]) -> dict[str, float]:
        """Run the student on this process's part of the patches; leave gradients in the parameters.

        Returns:
            The parts of the loss, over the patches of all processes.

        Raises:
            NotFiniteError: The loss is NaN or infinite.
        """
        own = indices[self._group.part(len(indices))]
        values = {name: torch.zeros((), device=learned[0].device) for name in self._loss.parts}
        apart = {name: [torch.zeros_like(p) for p in learned] for name in self._loss.parts if self._join is not None}
        size = self._micro_batch or len(indices)
        for micro_batch in (own[start : start + size] for start in range(0, len(own), size)):
            images = self._patches.batch(micro_batch)
            expected = self._expected(micro_batch, images)
            found = self._watch.outputs(self.student, images)
            parts = {
                name: value * (len(micro_batch) / len(indices)) for name, value in self._loss(found, expected).items()
            }
            loss = torch.stack(list(parts.values())).sum()
            _require_finite(loss, found)
            if self._join is None:
                loss.backward()
            else:
                _add_gradients(apart, parts, learned)
            values = {name: value + parts[name].detach() for name, value in values.items()}
        if self._join is None:
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learned]
            self._group.sum([*gradients, *values.values()])
        else:
            self._group.sum([*(gradient for each in apart.values() for gradient in each), *values.values()])
            gradients = self._join(apart)
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient
        return {name: float(value) for name, value in values.items()}

    @torch.no_grad()
    def distance(self) -> float:
        """How far the student's images are from the teacher's on a few patches, next to how far those are from gray:
        their mean absolute distances. In all processes the same.
        """
        error = spread = 0.0
        for index in range(min(_PROBES, len(self._patches))):
            images = self._patches.batch([index])
            expected, found = (self._watch.images(network, images) for network in (self.teacher, self.student))
            error += float((found - expected).abs().mean())
            spread += float((expected - expected.mean()).abs().mean())
        return error / max(spread, _TINY)


def _add_gradients(
    apart: Mapping[str, Sequence[Tensor]], parts: Mapping[str, Tensor], learned: Sequence[nn.Parameter]
) -> None:
    """Add the gradients of each part of a loss to those of its name, in place."""
    for number, (name, value) in enumerate(parts.items()):
        kept = number + 1 < len(parts)
        found = torch.autograd.grad(value, learned, retain_graph=kept, allow_unused=True)
        for total, gradient in zip(apart[name], cast("tuple[Tensor | None, ...]", found), strict=True):
            if gradient is not None:
                total.add_(gradient)


def _require_finite(loss: Tensor, found: Outputs) -> None:
    if bool(loss.detach().isfinite()):
        return
    broken = [name for name, value in found.features.items() if not bool(value.isfinite().all())]
    raise NotFiniteError(f"the output of {broken[0]}" if broken else "the loss")
