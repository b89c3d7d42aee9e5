"""Learning what a quantized network is made of from its float teacher, on low-resolution images alone.

One plain loop: draw a batch, run teacher and student, compare outputs and features, take a step, keep the bounds in
order. A method says what is learned in which epoch (stages) and how outputs are compared (a loss).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from srquant.images.calibration import Calibration
from srquant.model.observing import to_network
from srquant.model.record import Epoch
from srquant.networks.base import SRNetwork
from srquant.quantizers import Quantizer
from srquant.states import read_state, write_state
from srquant.support.compiled import compiled, flat_array, memory_order
from srquant.support.errors import FinetuningError
from srquant.support.processes import Processes, processes
from srquant.support.progress import bar
from srquant.support.settings import Checked, Seed, to_json
from srquant.support.tensors import autocast, modules_of, vector_norm
from srquant.support.watching import hooks

_KERNELS = "srquant.quantizers.numerics.kernels"
_TINY = 1e-12
_LONG_ROW = 1 << 15
"""Values of a sample that are worth a call of compiled code; the windows of window attention are many short samples."""
_FEW_ROWS = 64
"""Samples that compiled code may be called for one by one, however short."""
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


@dataclass(frozen=True)
class LearningSettings(Checked):
    """How long and in which steps to learn. The defaults are OAPTQ's (§4.1)."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Passes over the calibration patches."""
    steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Instead of ``epochs``: batches to learn from, all of them full; where one pass ends within a batch, the next
    begins. An epoch of the curve is then a thirtieth of the steps."""
    batch: Annotated[int, Field(ge=1, le=10_000)] = 2
    chunk: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Patches of a batch that go through the networks together, where all of them take too much memory; the gradients
    of a batch's chunks are added up. None takes the batch at once."""
    rate: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate of Adam at the start."""
    schedule: Literal["exponential", "cosine", "constant"] = "exponential"
    """``exponential`` multiplies the rate by ``decay`` after each epoch; ``cosine`` takes it smoothly to zero."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of convolutions; auto is bf16 on a GPU and float32 elsewhere."""
    seed: Seed = 0
    """Decides the order of the patches."""
    cache: Annotated[int, Field(ge=0, le=1 << 30)] | None = None
    """MiB for what the float network gives: kept for as many patches as fit, computed again for the others. A number,
    whatever it is, gives the same bytes: the float network then works on one patch at a time. None lets it work on
    the batches of the quantized one and keeps nothing."""


@dataclass(frozen=True)
class Group:
    """Parameters of the student that take steps of one kind.

    Args:
        parameters: By name.
        relative: Multiply by exp(−rate·…) instead of subtracting rate·…, so that a rate means the same for a bound of
            0.1 and of 200. Signs and zeros are kept.
        factor: On the learning rate of the settings.
    """

    parameters: Mapping[str, nn.Parameter]
    relative: bool = False
    factor: float = 1.0


@dataclass(frozen=True)
class Stage:
    """What an epoch learns. Stages take turns, epoch by epoch."""

    name: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Outputs:
    """What a network gave for a batch: images in [0, 1], and the outputs of the modules a loss asked for."""

    images: Tensor
    features: Mapping[str, Tensor]


class Loss(Protocol):
    """Compares the student's outputs with the teacher's."""

    @property
    def taps(self) -> Sequence[str]:
        """Names of the modules whose outputs it compares."""
        ...

    @property
    def parts(self) -> Sequence[str]:
        """Names of what it gives."""
        ...

    def __call__(self, student: Outputs, teacher: Outputs, /) -> dict[str, Tensor]:
        """The parts whose sum is the loss, each a mean over the samples of the batch."""
        ...


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
        self.mover = _Mover(stages, settings)
        self.autocast = autocast(next(teacher.parameters()).device, settings.precision)
        self.expected = _Teacher(partial(self._run, teacher), settings.cache)
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


class _Teacher:
    """What the float network gives for patches; computed once for each, as far as memory allows."""

    def __init__(self, run: Callable[[Tensor], Outputs], cache: int | None) -> None:
        self._run = run
        self._room = None if cache is None else cache << 20
        self._kept: dict[int, Outputs] = {}

    @torch.no_grad()
    def __call__(self, indices: Sequence[int], images: Tensor) -> Outputs:
        """For the patches of these numbers, stacked in ``images``."""
        if self._room is None:
            return self._run(images)
        found = [self._of(index, images[place : place + 1]) for place, index in enumerate(indices)]
        features = {name: torch.cat([row.features[name] for row in found]) for name in found[0].features}
        return Outputs(torch.cat([row.images for row in found]), features)

    def _of(self, index: int, image: Tensor) -> Outputs:
        found = self._kept.get(index)
        if found is not None:
            return found
        made = self._run(image)
        room = cast(int, self._room) - sum(value.nbytes for value in (made.images, *made.features.values()))
        if room >= 0:
            self._kept[index], self._room = made, room
        return made


class _Mover:
    """Adam on the parameters, or on the logarithm of their change.

    A relative step takes Adam's step δ of a variable that is zero, along ∂L/∂δ = θ·∂L/∂θ, and multiplies θ by exp(δ).
    """

    def __init__(self, stages: Sequence[Stage], settings: LearningSettings) -> None:
        groups = [group for stage in stages for group in stage.groups]
        self.parameters = {name: parameter for group in groups for name, parameter in group.parameters.items()}
        self._relative = {name for group in groups if group.relative for name in group.parameters}
        self._leaves = {
            name: torch.zeros_like(parameter) if name in self._relative else parameter
            for name, parameter in self.parameters.items()
        }
        betas = (settings.beta1, settings.beta2)
        self.adam = torch.optim.Adam([{"params": [leaf]} for leaf in self._leaves.values()], settings.rate, betas)

    def active(self, stage: Stage) -> list[nn.Parameter]:
        """The parameters that a stage learns."""
        return [parameter for group in stage.groups for parameter in group.parameters.values()]

    def activate(self, stage: Stage) -> None:
        """Ask for gradients of these parameters and no others."""
        for parameter in self.parameters.values():
            parameter.grad = None
            parameter.requires_grad_(False)
        for parameter in self.active(stage):
            parameter.requires_grad_()

    @torch.no_grad()
    def move(self, stage: Stage, rate: float) -> None:
        """Take a step along the gradients of a stage's parameters."""
        factors = {name: group.factor for group in stage.groups for name in group.parameters}
        for (name, leaf), slot in zip(self._leaves.items(), self.adam.param_groups, strict=True):
            leaf.grad = self.parameters[name].grad if name in factors else None
            if leaf.grad is not None and name in self._relative:
                leaf.grad = leaf.grad * self.parameters[name]
            slot["lr"] = rate * factors.get(name, 0.0)
        self.adam.step()
        for name in factors.keys() & self._relative:
            self.parameters[name].mul_(self._leaves[name].exp())
            self._leaves[name].zero_()


def normalised_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``‖F̂/‖F̂‖₂ − F/‖F‖₂‖₂`` for each sample, the norms over all other axes; the gradient goes to the student.

    Args:
        student: ``n …``.
        teacher: The same shape.

    Returns:
        ``(n,)``, between 0 and 2. Where it is zero so is its gradient.
    """
    return cast(Tensor, _NormalisedDistance.apply(student, teacher))  # pyright: ignore[reportUnknownMemberType]


class _NormalisedDistance(torch.autograd.Function):
    """With n̂ = F̂/‖F̂‖, r = n̂ − n and d = ‖r‖: ∂d/∂F̂ = (r − n̂·d²/2) / (d·‖F̂‖), because n̂·r = d²/2."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        fast = _compiled(student, teacher)
        if fast is not None:
            rows = [fast.lengths_and_distance(*pair) for pair in zip(*_rows(student, teacher), strict=True)]
            length, other, distance = torch.tensor(rows, dtype=torch.float64).unbind(1)
            ctx.save_for_backward(student, teacher, length, other, distance)
            return distance.float()
        axes = tuple(range(1, student.ndim))
        # Normalised, near features all but cancel; short samples can afford to be exact, as compiled code is.
        short = student.device.type == "cpu" and student[0].numel() < _LONG_ROW
        near, far = (tensor.to(torch.float64 if short else torch.float32) for tensor in (student, teacher))
        length, other = (vector_norm(tensor, axes, keepdim=True) for tensor in (near, far))
        residual = near / length.clamp(min=_TINY)
        residual.addcmul_(far, 1 / other.clamp(min=_TINY), value=-1)
        distance = vector_norm(residual, axes, keepdim=True)
        ctx.save_for_backward(student, residual, length, None, distance)
        return distance.flatten().to(torch.promote_types(student.dtype, torch.float32))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        student, saved, length, other, distance = ctx.saved_tensors
        factor = gradient.view_as(distance) / (distance * length).clamp(min=_TINY)
        factor = torch.where(distance > 0, factor, 0)
        inward = factor * distance.square() / (2 * length.clamp(min=_TINY))
        if other is None:
            result = saved * factor
            return result.addcmul_(student.to(result.dtype), inward, value=-1).to(student.dtype), None
        result = torch.empty_like(student)
        own = (factor / length.clamp(min=_TINY) - inward).tolist()
        others = (-factor / other.clamp(min=_TINY)).tolist()
        for *row, a, b in zip(*_rows(student, saved, result), own, others, strict=True):
            _compiled(student, saved).combine(*row, a, b)
        return result, None


def _compiled(student: Tensor, teacher: Tensor) -> Any:
    together = student.dtype == teacher.dtype and memory_order(student)[:1] == [0]
    worth_it = len(student) <= _FEW_ROWS or student[0].numel() >= _LONG_ROW
    return compiled(student, _KERNELS) if together and worth_it else None


def _rows(first: Tensor, *others: Tensor) -> list[NDArray[Any]]:
    """The values of each sample, a row each, in the order in which the first tensor has them in memory."""
    return [flat_array(tensor, first).reshape(len(first), -1) for tensor in (first, *others)]
