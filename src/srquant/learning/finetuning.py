"""Learning what a quantized network is made of from its float teacher, on low-resolution images alone.

Of the parts of the loop (:mod:`srquant.learning.loop`): patches of a set are drawn in epochs, and the student is
compared with the float network. A method says what is learned in which epoch (stages) and how outputs are compared (a
loss).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from srquant.learning.comparison import Comparison, Patches, Watch
from srquant.learning.draws import Draws
from srquant.learning.guard import Guard
from srquant.learning.identity import digest_of_layout, digest_of_network
from srquant.learning.loop import Loop
from srquant.learning.losses import Loss
from srquant.learning.order import Order, Turn, alternating
from srquant.learning.schedule import cosine, exponential
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Mover, Stage
from srquant.learning.state import Owner, StateFile
from srquant.learning.teacher import Teacher
from srquant.model.record import Epoch
from srquant.networks.base import SRNetwork
from srquant.support.digests import digest_of_settings
from srquant.support.errors import FinetuningError
from srquant.support.files import require_writable
from srquant.support.processes import processes
from srquant.support.versions import versions


@dataclass(frozen=True)
class Unfinished:
    """Where a run of a method is kept until it ends.

    Args:
        path: Of the file; if it is there, the run goes on from it.
        method: Name of the method.
        network: Name of the file of float weights.
        settings: The method's whole configuration, as JSON, but for what changes no result.
    """

    path: Path
    method: str
    network: str
    settings: dict[str, Any]

    def owner(self, identity: Mapping[str, str]) -> Owner:
        """Whose the state is: this method's with these settings, and of what else decides the result."""
        configuration = {"configuration of the method": digest_of_settings(self.settings)}
        return Owner("finetuning", self.method, self.network, {**configuration, **identity})

    def file(
        self, student: SRNetwork, teacher: SRNetwork, stages: Sequence[Stage], drawn_from: Mapping[str, str]
    ) -> StateFile:
        """Where a run that learns a student from a teacher is kept.

        Args:
            student: Before it learns.
            teacher: The float network.
            stages: What is learned.
            drawn_from: Digest of what is learned from, by what that is.

        Raises:
            OutputError: The file cannot be written.
        """
        identity = {
            "kind of device": next(teacher.parameters()).device.type,
            "float network": digest_of_network(teacher),
            **drawn_from,
            "version of srquant": versions()["srquant"],
            "choice of levels at the start, which another number of threads can tip": digest_of_layout(student, stages),
        }
        require_writable(self.path)
        return StateFile(self.path, self.owner(identity), FinetuningError)

    def remove(self) -> None:
        """Remove the file when the result is safe, if it is this run's."""
        StateFile(self.path, self.owner({}), FinetuningError).remove()


def finetune(
    student: SRNetwork,
    teacher: SRNetwork,
    patches: Patches,
    stages: Sequence[Stage],
    loss: Loss,
    settings: LearningSettings,
    unfinished: Unfinished | None = None,
    guard: Guard | None = None,
    order: Order = alternating,
) -> tuple[Epoch, ...]:
    """Learn the stages' parameters of the student, in place.

    Under ``torchrun`` every process works on its part of each batch; the result is that of one process up to the order
    of floating-point sums.

    Args:
        student: A draft of the quantized network, not yet shown to anybody.
        teacher: The float network; left as it is.
        patches: LR images; every epoch draws all of them, in another order.
        stages: What is learned.
        loss: Compares outputs.
        settings: How steps are taken.
        unfinished: Where the run is kept, to go on after an interruption.
        guard: Takes back what was learned where it did not help; without one, what diverged is refused.
        order: Says which stage has its turn when; by default epoch e learns stage (e − 1) mod n.

    Returns:
        A row for each epoch; two where another stage has its turn within one.

    Raises:
        FinetuningError: The loss is not finite (the layer is named), learning diverged, or the state belongs to another
            run.
        OutputError: The state cannot be written.
    """
    student.requires_grad_(False)
    device = next(teacher.parameters()).device
    with processes(device) as group:
        watch = Watch(loss, device, settings)
        expected = Teacher(partial(watch.outputs, teacher), settings.cache)
        comparison = Comparison(student, teacher, patches, watch, expected, loss, settings.micro_batch, group)
        before = comparison.distance()
        draws = Draws(len(patches), settings)
        file = None
        if unfinished is not None:
            file = unfinished.file(student, teacher, stages, {"set of calibration patches": patches.digest()})
        mover = Mover(stages, settings)
        loop = Loop(comparison, draws, stages, order, mover, partial(_rate, settings), file, group)
        loop.resume()
        curve = loop.go("Finetuning")
        if guard is None:
            loop.require_better(before)
        else:
            guard.settle()
    student.requires_grad_(False)
    return curve


def _rate(settings: LearningSettings, turn: Turn) -> float:
    if settings.schedule == "constant":
        return settings.rate
    if settings.schedule == "cosine":
        return settings.rate * cosine(turn.done, settings.end)
    return settings.rate * exponential(turn.epoch, settings.decay)
