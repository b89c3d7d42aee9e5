"""Training a float network from scratch: L1 loss, Adam, cosine schedule, moving average of the weights."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from srquant.images.metrics import psnr
from srquant.learning.photographs import Photographs
from srquant.learning.state import read_state, write_state
from srquant.networks.base import SRNetwork
from srquant.support.errors import ArgumentError, TrainingError
from srquant.support.files import require_writable
from srquant.support.processes import Processes, processes
from srquant.support.progress import Bar, bar
from srquant.support.settings import Checked, Seed, to_json
from srquant.support.tensors import as_tensor, autocast, channels_last

Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Minutes = Annotated[float, Field(gt=0, le=1_000_000)]


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """How to train. The defaults suit small networks; EDSR's paper uses lr 1e-4, batch 16, LR patches of 48."""

    steps: Steps = 100_000
    batch: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Crops of a step, over all processes."""
    patch: Annotated[int, Field(ge=1, le=4096)] = 48
    """Height and width of an LR crop."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4
    """At the start; a cosine takes it to a hundredth."""
    warmup: Annotated[int, Field(ge=0, le=10_000_000)] = 500
    """Steps over which the learning rate rises linearly at the start."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the moving average of the weights, which is what is validated and kept."""
    validation: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Photographs held out of training; their PSNR is shown, never used to choose anything."""
    validation_every: Steps = 2_000
    save_every: Steps = 1_000
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of the forward pass; auto is bf16 on a GPU and float32 elsewhere. CPUs with AMX train faster in bf16."""
    seed: Seed = 0
    minutes: Minutes | None = None
    """The run also ends when its stretches have taken so long together; the learning rate then falls with the clock.
    Such a run does not repeat bit by bit."""
    save_minutes: Minutes | None = None
    """The state is also saved when so much time has passed since the last time."""


@dataclass(frozen=True)
class Point:
    """One row of the training curve: loss is the mean since the row before, psnr that of the averaged weights."""

    step: int
    loss: float
    psnr: float
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """All that decides a run, apart from the photographs."""

    network: Any
    """Hyper-parameters, the network's own dataclass."""
    training: TrainingConfig

    def to_json(self) -> str:
        """As text, for the header of the weights."""
        return json.dumps(to_json(self))


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    network: SRNetwork
    curve: list[Point]
    first: bool
    """Whether this is the process, of several, that shall write the result."""


def train(
    network: SRNetwork, photographs: Photographs, config: TrainingConfig, state_path: Path, device: torch.device
) -> Trained:
    """Train a network from its present weights, or go on where an interrupted run of the same configuration stopped.

    Under ``torchrun`` every process works on its share of each batch; the result is that of one process up to the order
    of floating-point sums.

    Args:
        network: What to train; it is changed, and returned with the averaged weights.
        photographs: Training images; some are held out for validation.
        config: How to train.
        state_path: Where the state for resuming is kept; removed by the caller when the result is safe.
        device: Where to train.

    Raises:
        TrainingError: The loss stopped being finite (the last good state is kept), or the state on disk belongs to
            another configuration.
        ArgumentError: The batch cannot be shared equally by the processes.
    """
    with processes(device) as group:
        if config.batch % group.count:
            raise ArgumentError(f"batch={config.batch} cannot be shared equally by {group.count} processes")
        run = _Run(network, photographs, config, state_path, device, group)
        run.resume()
        run.go()
        return run.finish()


class _Run:
    """The state of a run: weights, their average, optimiser, curve."""

    def __init__(
        self,
        network: SRNetwork,
        photographs: Photographs,
        config: TrainingConfig,
        path: Path,
        device: torch.device,
        group: Processes,
    ) -> None:
        self.training, self.held = photographs.split(config.validation)
        self.config, self.path, self.device = config, path, device
        self.group = group
        self.network = channels_last(network.to(device)).train()
        self.average = {key: value.clone() for key, value in network.state_dict().items()}
        self.forward: nn.Module = nn.parallel.DistributedDataParallel(self.network) if group.count > 1 else self.network
        self.optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, (0.9, config.beta2), fused=True)
        self.step = 0
        self.progress = 0.0
        """Part of the run that is done, by steps or by the clock, whichever is further."""
        self.curve: list[Point] = []
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        """Sum over the steps since the last row of the curve."""
        self.started = self.saved = time.monotonic()
        self.autocast = autocast(device, config.precision)
        decided = {name: value for name, value in to_json(config).items() if value is not None}
        self.identity = json.dumps(decided | {"network": network.name, "hyper": to_json(network.config)})
        require_writable(path)

    def resume(self) -> None:
        state = read_state(self.path, self.identity, self.device, TrainingError)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.loss = state["loss"]
        self.curve = [Point(*row) for row in state["curve"]]
        self.started -= state["seconds"]
        self.progress = self._measure_progress()

    def save(self) -> None:
        if not self.group.first:
            return
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "loss": self.loss,
            "curve": [[p.step, p.loss, p.psnr, p.seconds] for p in self.curve],
            "seconds": time.monotonic() - self.started,
        }
        write_state(self.path, self.identity, state)
        self.saved = time.monotonic()

    def go(self) -> None:
        config = self.config
        with bar(f"Training {self.network.name}", config.steps, self.step) as shown, self._batches() as batches:
            for low, high in batches:
                self.loss += self._learn(low, high)
                self.step += 1
                shown.advance()
                self.progress = self._measure_progress()
                last = self.progress >= 1
                if self.step % config.validation_every == 0 or last:
                    self._validate(shown)
                if self.step % config.save_every == 0 or last or self._save_is_due():
                    self._require_finite()
                    self.save()
                if last:
                    break

    def finish(self) -> Trained:
        self.network.load_state_dict(self.average)
        return Trained(self.network.eval(), self.curve, self.group.first)

    def _learn(self, low: Tensor, high: Tensor) -> Tensor:
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        peak = self.network.value_range
        low = low.to(self.device, memory_format=torch.channels_last)
        with self.autocast:
            output = cast(Tensor, self.forward(low * peak))
        loss = nn.functional.l1_loss(output.float() / peak, high.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - min(self.config.average, (1 + self.step) / (10 + self.step)))
            else:
                self.average[key].copy_(value)
        return loss.detach()

    def _measure_progress(self) -> float:
        """The same in all processes."""
        done = self.step / self.config.steps
        if self.config.minutes is None:
            return done
        seconds = time.monotonic() - self.started
        if self.group.count > 1:
            together = torch.tensor(seconds, device=self.device)
            self.group.sum([together])
            seconds = float(together) / self.group.count
        return max(done, seconds / (60 * self.config.minutes))

    def _save_is_due(self) -> bool:
        limit = self.config.save_minutes
        return limit is not None and time.monotonic() - self.saved >= 60 * limit

    def _learning_rate(self) -> float:
        config = self.config
        rise = min(1.0, (self.step + 1) / max(config.warmup, 1))
        fall = 0.5 * (1 + math.cos(math.pi * self.progress))
        return config.learning_rate * rise * (0.01 + 0.99 * fall)

    def _validate(self, shown: Bar) -> None:
        self._require_finite()
        kept = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        score = validation_psnr(self.network.eval(), self.held, self.device)
        self.network.load_state_dict(kept)
        self.network.train()
        before = self.curve[-1].step if self.curve else 0
        loss = float(self.loss) / (self.step - before)
        self.loss.zero_()
        self.curve.append(Point(self.step, loss, score, time.monotonic() - self.started))
        if self.group.first:
            shown.note(f"step {self.step}: loss {loss:.5f}, validation {score:.3f} dB, {self.curve[-1].seconds:.0f} s")

    def _require_finite(self) -> None:
        if not bool(self.loss.isfinite()):
            raise TrainingError(
                f"the loss became NaN or infinite before step {self.step}; the last good state is in {self.path}; "
                f"lower the learning rate ({self.config.learning_rate:g})"
            )

    @contextmanager
    def _batches(self) -> Generator[Iterator[tuple[Tensor, Tensor]]]:
        """Batches from the present step on, the next one being made while this one is learnt from."""
        config = self.config
        part = self.group.share(config.batch)

        def make(step: int) -> tuple[Tensor, Tensor]:
            return self.training.batch(config.seed, step, config.batch, config.patch, part)

        def batches(pool: ThreadPoolExecutor) -> Iterator[tuple[Tensor, Tensor]]:
            following = pool.submit(make, self.step)
            for step in range(self.step, config.steps if self.progress < 1 else self.step):
                current = following.result()
                if step + 1 < config.steps:
                    following = pool.submit(make, step + 1)
                yield current

        with ThreadPoolExecutor(1) as pool:
            yield batches(pool)


def validation_psnr(network: SRNetwork, photographs: Photographs, device: torch.device) -> float:
    """Mean PSNR-Y over whole photographs, a border of ``scale`` pixels cropped."""
    scores: list[float] = []
    edge = network.scale
    for index in range(len(photographs.images)):
        low, high = (as_tensor(x) for x in photographs.read(index))
        with torch.no_grad():
            images = low[None].to(device).float() / 255 * network.value_range
            output = network(images.contiguous(memory_format=torch.channels_last)) / network.value_range * 255
        pixels = output[0].clamp(0, 255).round().to("cpu", torch.uint8)
        pair = [x.permute(1, 2, 0).numpy()[edge:-edge, edge:-edge] for x in (pixels, high)]
        scores.append(psnr(*pair))
    return sum(scores) / len(scores)
