"""Learning what a quantized network is made of from photographs: ground truth, and the float network where a loss asks.

Of the parts of the loop (:mod:`srquant.learning.loop`): each step draws new crops of photographs, and the student is
compared with their HR images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from srquant.learning.comparison import Comparison, Join, Watch
from srquant.learning.finetuning import Unfinished
from srquant.learning.loop import Loop
from srquant.learning.losses import Loss, Outputs
from srquant.learning.order import Order, Turn
from srquant.learning.photographs import Photographs
from srquant.learning.schedule import exponential
from srquant.learning.settings import TruthSettings
from srquant.learning.stages import Mover, Stage
from srquant.model.record import Epoch
from srquant.networks.base import SRNetwork
from srquant.support.errors import ArgumentError
from srquant.support.processes import processes


class TruthLoss(Loss, Protocol):
    """Compares the student's images with photographs; as its "teacher" it is given these, and float features."""

    @property
    def input_layers(self) -> Sequence[str]:
        """Names of the modules whose input it compares."""
        ...

    @property
    def teacher(self) -> bool:
        """Whether it compares features with the float network's."""
        ...

    @property
    def join(self) -> Join | None:
        """Makes one gradient out of those of its parts; None adds them up."""
        ...


@dataclass(frozen=True)
class Crops:
    """Pairs of crops in the order in which they are learned from: pair k of step t is number t · batch + k."""

    photographs: Photographs
    settings: TruthSettings
    _last: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(
        default_factory=dict[tuple[int, int], tuple[Tensor, Tensor]], init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return self.settings.steps * self.settings.batch

    @property
    def batches(self) -> int:
        """Steps of an epoch."""
        return -(-self.settings.steps // self.settings.epochs)

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.settings.steps

    def __call__(self, step: int) -> Sequence[int]:
        """Numbers of the pairs of a step, the first being 0."""
        return range(step * self.settings.batch, (step + 1) * self.settings.batch)

    def pairs(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Neighbouring pairs of one step: LR and HR crops in [0, 1]."""
        key = indices[0], len(indices)
        if key not in self._last:
            settings = self.settings
            step, first = divmod(indices[0], settings.batch)
            part = slice(first, first + len(indices))
            self._last.clear()
            self._last[key] = self.photographs.batch(settings.seed, step, settings.batch, settings.patch, part)
        return self._last[key]

    def batch(self, indices: Sequence[int]) -> Tensor:
        """LR crops: ``n 3 h w`` in [0, 1]."""
        return self.pairs(indices)[0]

    def digest(self) -> str:
        """Tells the photographs from all others."""
        return self.photographs.digest()


@dataclass(frozen=True)
class Truth:
    """What the student should give: the HR crops; and what the float network gives, where a loss asks for features."""

    crops: Crops
    teacher: partial[Outputs] | None

    @torch.no_grad()
    def __call__(self, indices: Sequence[int], images: Tensor) -> Outputs:
        """For the crops of these numbers, whose LR images are stacked in ``images``."""
        high = self.crops.pairs(indices)[1]
        if self.teacher is None:
            return Outputs(high, {})
        found = self.teacher(images)
        return Outputs(high.to(found.images.device), found.features, found.inputs)


def learn_from_truth(
    student: SRNetwork,
    teacher: SRNetwork,
    photographs: Photographs,
    stages: Sequence[Stage],
    order: Order,
    loss: TruthLoss,
    settings: TruthSettings,
    unfinished: Unfinished | None = None,
) -> tuple[Epoch, ...]:
    """Learn the stages' parameters of the student, in place.

    Under ``torchrun`` every process works on its part of each batch; the result is that of one process up to the order
    of floating-point sums.

    Args:
        student: A draft of the quantized network, not yet shown to anybody.
        teacher: The float network; left as it is.
        photographs: Every step draws new crops of them.
        stages: What is learned.
        order: Says which stage has its turn when.
        loss: Compares the student's images with the photographs.
        settings: How steps are taken.
        unfinished: Where the run is kept, to go on after an interruption.

    Returns:
        A row for each epoch.

    Raises:
        FinetuningError: The loss is not finite, learning diverged, or the state belongs to another run.
        ImageError: A photograph is too small for a crop.
        ArgumentError: LR images of the photographs are of another scale than the network's, or the batch cannot be
            divided equally among the processes.
        OutputError: The state cannot be written.
    """
    if photographs.scale != student.scale:
        raise ArgumentError(
            f"data={photographs!r} makes LR images {photographs.scale} times smaller, and the network enlarges "
            f"{student.scale} times; pass Photographs.of(folder, {student.scale}, {settings.patch})"
        )
    photographs.require(settings.patch)
    student.requires_grad_(False)
    device = next(teacher.parameters()).device
    crops = Crops(photographs, settings)

    def rate(turn: Turn) -> float:
        return settings.rate * exponential(turn.epoch // settings.decay_every, settings.decay)

    with processes(device) as group:
        if settings.batch % group.count:
            raise ArgumentError(
                f"training.batch={settings.batch} cannot be divided equally among {group.count} processes"
            )
        watch = Watch(loss, device, settings, loss.input_layers)
        truth = Truth(crops, partial(watch.outputs, teacher) if loss.teacher else None)
        comparison = Comparison(student, teacher, crops, watch, truth, loss, settings.micro_batch, group, loss.join)
        before = comparison.distance()
        file = None
        if unfinished is not None:
            file = unfinished.file(student, teacher, stages, {"set of photographs": crops.digest()})
        loop = Loop(comparison, crops, stages, order, Mover(stages, settings), rate, file, group)
        loop.resume()
        curve = loop.go("Training")
        loop.require_better(before)
    student.requires_grad_(False)
    return curve
