"""Learning what a quantized network is made of from its float teacher, on low-resolution images alone.

One plain loop: draw a batch, run teacher and student, compare outputs and features, take a step, keep the bounds in
order. A method says what is learned in which epoch (stages) and how outputs are compared (a loss).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srquant.learning.comparison import Comparison, NotFiniteError, Patches
from srquant.learning.draws import Draws
from srquant.learning.guard import Guard
from srquant.learning.identity import digest_of_layout, digest_of_network
from srquant.learning.losses import Loss
from srquant.learning.order import Order, Turn, alternating
from srquant.learning.schedule import cosine, exponential
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Mover, Stage
from srquant.learning.state import Owner, StateFile
from srquant.model.record import Epoch
from srquant.networks.base import SRNetwork
from srquant.quantizers import Quantizer
from srquant.support.digests import digest_of_settings
from srquant.support.errors import FinetuningError
from srquant.support.files import require_writable
from srquant.support.processes import Processes, processes
from srquant.support.progress import bar
from srquant.support.tensors import modules_of
from srquant.support.versions import versions

_WORSE = 1.25
"""How many times as far as before a network may be from its teacher: a short run can end a little further."""
_LOST = 0.75
"""Distance from the teacher, as a part of its images' contrast, up to which learning never counts as diverged: next to
a good start any end is many times worse."""


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
    with processes(next(teacher.parameters()).device) as group:
        comparison = Comparison(student, teacher, patches, loss, settings, group)
        before = comparison.distance()
        file = None
        if unfinished is not None:
            identity = {
                "kind of device": next(teacher.parameters()).device.type,
                "float network": digest_of_network(teacher),
                "set of calibration patches": patches.digest(),
                "version of srquant": versions()["srquant"],
                "choice of levels at the start, which another number of threads can tip": digest_of_layout(
                    student, stages
                ),
            }
            require_writable(unfinished.path)
            file = StateFile(unfinished.path, unfinished.owner(identity), FinetuningError)
        run = _Run(comparison, Draws(len(patches), settings), stages, settings, file, group, order)
        run.resume()
        with bar("Finetuning", run.draws.total, run.step) as shown:
            while run.step < run.draws.total:
                parts = run.learn()
                shown.advance(1, "  ".join(f"{name} {value:.4f}" for name, value in parts.items()))
        if guard is None:
            run.require_better(before)
        else:
            guard.settle()
    student.requires_grad_(False)
    return tuple(run.curve.epochs)


class _Curve:
    """The parts of the loss, averaged over each epoch."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = 0
        """How many are in the sums."""
        self.epochs: list[Epoch] = []

    def add(self, stage: Stage, parts: dict[str, float], *, last: bool) -> None:
        """The parts that a step found; of the last step of an epoch, they end the row."""
        self.steps += 1
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if last:
            means = {name: value / self.steps for name, value in self.sums.items()}
            self.epochs.append(Epoch(len(self.epochs) + 1, stage.name, means))
            self.sums, self.steps = {}, 0


class _Run:
    """How far a run is: draws patches, compares, moves, and keeps what it has."""

    def __init__(
        self,
        comparison: Comparison,
        draws: Draws,
        stages: Sequence[Stage],
        settings: LearningSettings,
        file: StateFile | None,
        group: Processes,
        order: Order,
    ) -> None:
        self.comparison, self.draws, self.stages = comparison, draws, stages
        self.settings, self.file, self.group, self.order = settings, file, group, order
        self.step = 0
        self.curve = _Curve()
        modules = modules_of(comparison.student).values()
        self.quantizers = [module for module in modules if isinstance(module, Quantizer)]
        self.mover = Mover(stages, settings)

    def learn(self) -> dict[str, float]:
        """Take one step; give the parts of the loss before it."""
        turn = self.order(self.step, self.draws, len(self.stages))
        stage = self.stages[turn.stage]
        learned = self.mover.activate(stage)
        parts = self._gradients(learned)
        if self.file is not None and self.group.first and self.step and self.file.due:
            self._save(self.file)  # only now are the bounds known to give a finite loss
        self.mover.move(stage, self._rate(turn))
        with torch.no_grad():
            for quantizer in self.quantizers:
                quantizer.constrain()
        self.step += 1
        ends = self.step % self.draws.batches == 0 or self.step == self.draws.total
        ends = ends or self.order(self.step, self.draws, len(self.stages)).stage != turn.stage
        self.curve.add(stage, parts, last=ends)
        return parts

    def _gradients(self, learned: Sequence[nn.Parameter]) -> dict[str, float]:
        try:
            return self.comparison.gradients(learned, self.draws(self.step))
        except NotFiniteError as where:
            path = None if self.file is None else self.file.path
            started = f" and remove {path}, which goes on at this rate only" if path and path.exists() else ""
            raise FinetuningError(
                f"{where} became NaN or infinite in epoch {self.step // self.draws.batches + 1}; lower the learning "
                f"rate ({self.settings.rate:g}){started}"
            ) from None

    def _rate(self, turn: Turn) -> float:
        settings = self.settings
        if settings.schedule == "constant":
            return settings.rate
        if settings.schedule == "cosine":
            return settings.rate * cosine(turn.done, settings.end)
        return settings.rate * exponential(turn.epoch, settings.decay)

    def require_better(self, before: float) -> None:
        """Refuse what was learned if it diverged: if it is not finite, or its images are those of another network."""
        after = self.comparison.distance()
        finite = all(bool(parameter.isfinite().all()) for parameter in self.mover.parameters.values())
        if finite and after <= max(_WORSE * before, _LOST):
            return
        if self.file is not None and self.group.first:
            self.file.remove()  # it would end here again
        where = f"its images' distance from the float network's went from {before:.2g} to {after:.2g} of their contrast"
        raise FinetuningError(
            f"learning diverged: {where if finite else 'bounds became NaN or infinite'}; lower the learning rate "
            f"({self.settings.rate:g})"
        )

    def _save(self, file: StateFile) -> None:
        content = {
            "step": self.step,
            "sums": self.curve.sums,
            "summed": self.curve.steps,
            "epochs": [asdict(epoch) for epoch in self.curve.epochs],
            "parameters": {name: parameter.detach() for name, parameter in self.mover.parameters.items()},
            "adam": self.mover.adam.state_dict(),
        }
        file.save(self.step, self.draws.total, content)

    def resume(self) -> None:
        """Go on from the state on disk, if there is one."""

        def load(content: dict[str, Any]) -> None:
            self.step, self.curve.sums, self.curve.steps = content["step"], content["sums"], content["summed"]
            self.curve.epochs = [Epoch(**row) for row in content["epochs"]]
            with torch.no_grad():
                for name, parameter in self.mover.parameters.items():
                    parameter.copy_(content["parameters"][name])
            self.mover.adam.load_state_dict(content["adam"])

        if self.file is not None:
            self.file.resume(next(self.comparison.teacher.parameters()).device, load)
