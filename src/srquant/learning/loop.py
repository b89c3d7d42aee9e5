"""The one loop in which a quantized network learns, in parts of which a method picks.

What is drawn (:class:`~srquant.learning.draws.Drawn`), compared (:class:`~srquant.learning.comparison.Comparison`),
moved (:class:`~srquant.learning.stages.Mover`, as stages and their order say), and saved
(:class:`~srquant.learning.state.StateFile`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from srquant.learning.comparison import Comparison, NotFiniteError
from srquant.learning.draws import Drawn
from srquant.learning.order import Order, Turn
from srquant.learning.stages import Mover, Stage
from srquant.learning.state import StateFile
from srquant.model.record import Epoch
from srquant.quantizers import ImageFactor, Quantizer
from srquant.support.errors import FinetuningError
from srquant.support.processes import Processes
from srquant.support.progress import bar
from srquant.support.tensors import modules_of

_WORSE = 1.25
"""How many times as far as before a network may be from its teacher: a short run can end a little further."""
_LOST = 0.75
"""Distance from the teacher, as a part of its images' contrast, up to which learning never counts as diverged: next to
a good start any end is many times worse."""


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


class Loop:
    """How far a run is: draws patches, compares, moves, and keeps what it has.

    Args:
        comparison: Leaves gradients of the student's parameters.
        draws: Says which patches a step learns from.
        stages: Say which parameters move together.
        order: Says which stage has its turn when.
        mover: Moves their parameters.
        rate: Learning rate of a turn.
        file: Where the run is kept; None keeps nothing.
        group: The processes that divide each batch among them.
    """

    def __init__(
        self,
        comparison: Comparison,
        draws: Drawn,
        stages: Sequence[Stage],
        order: Order,
        mover: Mover,
        rate: Callable[[Turn], float],
        file: StateFile | None,
        group: Processes,
    ) -> None:
        self.comparison, self.draws, self.stages, self.order, self.mover = comparison, draws, stages, order, mover
        self.rate, self.file, self.group = rate, file, group
        self.step = 0
        self.curve = _Curve()
        modules = modules_of(comparison.student).values()
        self.bounded = [module for module in modules if isinstance(module, Quantizer | ImageFactor)]

    def go(self, title: str) -> tuple[Epoch, ...]:
        """Take the steps that are left; give a row for each epoch.

        Raises:
            FinetuningError: The loss is not finite.
        """
        with bar(title, self.draws.total, self.step) as shown:
            while self.step < self.draws.total:
                parts = self.learn()
                shown.advance(1, "  ".join(f"{name} {value:.4f}" for name, value in parts.items()))
        return tuple(self.curve.epochs)

    def learn(self) -> dict[str, float]:
        """Take one step; give the parts of the loss before it."""
        turn = self.turn(self.step)
        stage = self.stages[turn.stage]
        learned = self.mover.activate(stage)
        with stage.within(self.group):
            parts = self._gradients(learned)
        if self.file is not None and self.group.first and self.step and self.file.due:
            self._save(self.file)  # only now are the bounds known to give a finite loss
        self.mover.move(stage, self.rate(turn))
        with torch.no_grad():
            for module in self.bounded:
                module.constrain()
        self.step += 1
        ends = self.step % self.draws.batches == 0 or self.step == self.draws.total
        self.curve.add(stage, parts, last=ends or self.turn(self.step).stage != turn.stage)
        return parts

    def turn(self, step: int) -> Turn:
        """What a step is."""
        return self.order(step, self.draws, len(self.stages))

    def _gradients(self, learned: Sequence[nn.Parameter]) -> dict[str, float]:
        try:
            return self.comparison.gradients(learned, self.draws(self.step))
        except NotFiniteError as where:
            path = None if self.file is None else self.file.path
            started = f" and remove {path}, which goes on at this rate only" if path and path.exists() else ""
            raise FinetuningError(
                f"{where} became NaN or infinite in epoch {self.step // self.draws.batches + 1}; lower the learning "
                f"rate ({self.rate(self.turn(0)):g}){started}"
            ) from None

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
            f"({self.rate(self.turn(0)):g})"
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
