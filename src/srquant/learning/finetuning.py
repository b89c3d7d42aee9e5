"""Learning what a quantized network is made of from its float teacher, on low-resolution images alone.

One plain loop: draw a batch, run teacher and student, compare outputs and features, take a step, keep the bounds in
order. A method says what is learned in which epoch (stages) and how outputs are compared (a loss).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srquant.images.calibration import Calibration
from srquant.learning.losses import Loss, Outputs
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Mover, Stage
from srquant.learning.state import read_state, write_state
from srquant.learning.teacher import Teacher
from srquant.model.observing import to_network
from srquant.model.record import Epoch
from srquant.networks.base import SRNetwork
from srquant.quantizers import Quantizer
from srquant.support.errors import FinetuningError
from srquant.support.processes import Processes, processes
from srquant.support.progress import bar
from srquant.support.settings import to_json
from srquant.support.tensors import autocast, modules_of
from srquant.support.watching import hooks

_TINY = 1e-12
_SAVE_EVERY = 50
"""Steps between two savings of the state."""
_ROWS = 30
"""Of the curve, where the length of a run is given in steps."""
_PROBES = 4
"""Patches on which a network before and after learning is compared."""
_WORSE = 1.25
"""How many times as far as before a network may be from its teacher: a short run can end a little further."""
_LOST = 0.75
"""Distance from the teacher, as a share of its images' contrast, up to which learning never counts as diverged: next to
a good start any end is many times worse."""


def finetune(
    student: SRNetwork,
    teacher: SRNetwork,
    patches: Calibration,
    stages: Sequence[Stage],
    loss: Loss,
    settings: LearningSettings,
    state: Path | None = None,
) -> tuple[Epoch, ...]:
    """Learn the stages' parameters of the student, in place.

    Under ``torchrun`` every process works on its share of each batch; the result is that of one process up to the order
    of floating-point sums.

    Args:
        student: A draft of the quantized network, not yet shown to anybody.
        teacher: The float network; left as it is.
        patches: LR images; every epoch draws all of them, in another order.
        stages: Epoch e learns stage (e − 1) mod n.
        loss: Compares outputs.
        settings: How steps are taken.
        state: Where an interrupted run keeps its state; if the file is there, the run goes on from it.

    Returns:
        A row for each epoch.

    Raises:
        FinetuningError: The loss is not finite (the layer is named, the last good state kept), learning
            diverged, or the state belongs to another run.
    """
    student.requires_grad_(False)
    with processes(next(teacher.parameters()).device) as group:
        run = _Run(student, teacher, patches, stages, loss, settings, state, group)
        before = run.measure()
        run.resume()
        with bar("Finetuning", run.total, run.step) as shown:
            while run.step < run.total:
                parts = run.learn()
                shown.advance(1, "  ".join(f"{name} {value:.4f}" for name, value in parts.items()))
        run.require_better(before)
    student.requires_grad_(False)
    return tuple(run.epochs)


class _Run:
    """A run and its state."""

    def __init__(
        self,
        student: SRNetwork,
        teacher: SRNetwork,
        patches: Calibration,
        stages: Sequence[Stage],
        loss: Loss,
        settings: LearningSettings,
        path: Path | None,
        group: Processes,
    ) -> None:
        self.student, self.teacher, self.patches, self.loss = student, teacher, patches, loss
        self.stages, self.settings, self.path, self.group = stages, settings, path, group
        self.batches = -(-len(patches) // settings.batch)
        self.total = settings.epochs * self.batches
        if settings.steps is not None:
            self.batches, self.total = -(-settings.steps // _ROWS), settings.steps
        self.step = 0
        self.sums: dict[str, float] = {}
        self.epochs: list[Epoch] = []
        self.quantizers = [module for module in modules_of(student).values() if isinstance(module, Quantizer)]
        self.mover = Mover(stages, settings)
        self.autocast = autocast(next(teacher.parameters()).device, settings.precision)
        self.expected = Teacher(partial(self._run, teacher), settings.cache)
        self.identity = self._identify()

    def _identify(self) -> str:
        """A digest of all that decides the run."""
        stages = [
            [stage.name, [[list(group.parameters), group.relative, group.factor] for group in stage.groups]]
            for stage in self.stages
        ]
        quantizers = [[quantizer.name, quantizer.arguments()] for quantizer in self.quantizers]
        settings = {name: value for name, value in to_json(self.settings).items() if value is not None}
        if "cache" in settings:
            settings["cache"] = "any"  # its size changes nothing
        content = [settings, self.patches.describe(), stages, repr(self.loss), quantizers]
        digest = hashlib.sha256(json.dumps(content).encode())
        for value in self.teacher.state_dict().values():
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def measure(self) -> float:
        """How far the student's images are from the teacher's on a few patches, next to how far those are from gray:
        their mean absolute distances. In all processes the same.
        """
        error = spread = 0.0
        for index in range(min(_PROBES, len(self.patches))):
            images = to_network(self.teacher, self.patches.batch([index]))
            with self.autocast:
                expected, found = (network(images).float() for network in (self.teacher, self.student))
            error += float((found - expected).abs().mean())
            spread += float((expected - expected.mean()).abs().mean())
        return error / max(spread, _TINY)

    def require_better(self, before: float) -> None:
        """Refuse what was learned if it diverged: if it is not finite, or its images are those of another network."""
        after = self.measure()
        finite = all(bool(parameter.isfinite().all()) for parameter in self.mover.parameters.values())
        if finite and after <= max(_WORSE * before, _LOST):
            return
        if self.path is not None and self.group.first:
            self.path.unlink(missing_ok=True)  # it would end here again
        where = f"its images' distance from the float network's went from {before:.2g} to {after:.2g} of their contrast"
        raise FinetuningError(
            f"learning diverged: {where if finite else 'bounds became NaN or infinite'}; lower the learning rate "
            f"({self.settings.rate:g})"
        )

    def learn(self) -> dict[str, float]:
        """Take one step; give the parts of the loss before it."""
        epoch, place = divmod(self.step, self.batches)
        stage = self.stages[epoch % len(self.stages)]
        parts = self._gradients(stage, self._draw())
        if self.step and self.step % _SAVE_EVERY == 0:
            self._save()  # only now are the bounds known to give a finite loss
        self.mover.move(stage, self._rate())
        with torch.no_grad():
            for quantizer in self.quantizers:
                quantizer.constrain()
        self.step += 1
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if self.step % self.batches == 0 or self.step == self.total:
            means = {name: value / (place + 1) for name, value in self.sums.items()}
            self.epochs.append(Epoch(epoch + 1, stage.name, means))
            self.sums = {}
        return parts

    def _draw(self) -> list[int]:
        """Numbers of the patches of the present step."""
        count, size = len(self.patches), self.settings.batch
        first = self.step * size
        if self.settings.steps is None:
            epoch, place = divmod(self.step, self.batches)
            return self._order(epoch)[place * size : (place + 1) * size]
        passes = range(first // count, (first + size - 1) // count + 1)
        drawn = [index for number in passes for index in self._order(number)]
        return drawn[first % count : first % count + size]

    def _order(self, number: int) -> list[int]:
        """Of the patches in one pass over them."""
        order = np.random.default_rng((self.settings.seed, number)).permutation(len(self.patches))
        return [int(index) for index in order]

    def _gradients(self, stage: Stage, indices: list[int]) -> dict[str, float]:
        """Run teacher and student on this process's share of the patches; leave gradients in the parameters."""
        self.mover.activate(stage)
        learned = self.mover.active(stage)
        own = indices[self.group.share(len(indices))]
        values = {name: torch.zeros((), device=learned[0].device) for name in self.loss.parts}
        size = self.settings.chunk or len(indices)
        for chunk in (own[start : start + size] for start in range(0, len(own), size)):
            images = self.patches.batch(chunk)
            expected = self.expected(chunk, images)
            found = self._run(self.student, images)
            parts = {name: value * (len(chunk) / len(indices)) for name, value in self.loss(found, expected).items()}
            loss = torch.stack(list(parts.values())).sum()
            self._require_finite(loss, found)
            loss.backward()
            values = {name: value + parts[name].detach() for name, value in values.items()}
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learned]
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient
        self.group.sum([*gradients, *values.values()])
        return {name: float(value) for name, value in values.items()}

    def _run(self, network: SRNetwork, images: Tensor) -> Outputs:
        features: dict[str, Tensor] = {}

        def keep(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
            features[name] = output

        with hooks(network, after={name: partial(keep, name) for name in self.loss.taps}), self.autocast:
            output = network(to_network(network, images))
        return Outputs(output.float() / network.value_range, features)

    def _require_finite(self, loss: Tensor, found: Outputs) -> None:
        if bool(loss.detach().isfinite()):
            return
        broken = [name for name, value in found.features.items() if not bool(value.isfinite().all())]
        where = f"the output of {broken[0]}" if broken else "the loss"
        kept = f"the last good state is in {self.path}" if self.path is not None and self.path.exists() else ""
        raise FinetuningError(
            f"{where} became NaN or infinite in epoch {self.step // self.batches + 1}; lower the learning rate "
            f"({self.settings.rate:g}){'; ' + kept if kept else ''}"
        )

    def _rate(self) -> float:
        settings = self.settings
        if settings.schedule == "constant":
            return settings.rate
        if settings.schedule == "cosine":
            return settings.rate * 0.5 * (1 + math.cos(math.pi * self.step / self.total))
        return settings.rate * settings.decay ** (self.step // self.batches)

    def _save(self) -> None:
        if self.path is None or not self.group.first:
            return
        state: dict[str, Any] = {
            "step": self.step,
            "sums": self.sums,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "parameters": {name: parameter.detach() for name, parameter in self.mover.parameters.items()},
            "adam": self.mover.adam.state_dict(),
        }
        write_state(self.path, self.identity, state)

    def resume(self) -> None:
        """Go on from the state on disk, if there is one."""
        if self.path is None:
            return
        device = next(self.teacher.parameters()).device
        state = read_state(self.path, self.identity, device, FinetuningError)
        if state is None:
            return
        self.step, self.sums = state["step"], state["sums"]
        self.epochs = [Epoch(**row) for row in state["epochs"]]
        with torch.no_grad():
            for name, parameter in self.mover.parameters.items():
                parameter.copy_(state["parameters"][name])
        self.mover.adam.load_state_dict(state["adam"])
