"""Training a float network from scratch: L1 loss, Adam, cosine schedule, moving average of the weights."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from srquant.images.evaluation import luma_psnr
from srquant.learning.identity import digest_of_network
from srquant.learning.photographs import Photographs
from srquant.learning.schedule import cosine, warmup
from srquant.learning.settings import TrainingConfig
from srquant.learning.state import Owner, StateFile
from srquant.learning.weights import Weights
from srquant.model.observing import to_network
from srquant.networks.base import SRNetwork
from srquant.support.ahead import ahead
from srquant.support.digests import digest_of_settings
from srquant.support.errors import ArgumentError, TrainingError
from srquant.support.files import require_writable
from srquant.support.processes import Processes, processes
from srquant.support.progress import Bar, bar
from srquant.support.settings import to_json
from srquant.support.versions import versions

_LAST_RATE = 0.01
"""Learning rate at the end, as a part of that at the start."""


@dataclass(frozen=True)
class CurveRow:
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
    curve: list[CurveRow]
    first: bool
    """Whether this is the process, of several, that shall write the result."""
    state: StateFile
    """To be removed when the result is safe."""


def train(
    network: SRNetwork, photographs: Photographs, config: TrainingConfig, state_path: Path, device: torch.device
) -> Trained:
    """Train a network from its present weights, or go on where an interrupted run of the same configuration stopped.

    Under ``torchrun`` every process works on its part of each batch, and batch normalisations see all of it; the result
    is that of one process up to the order of floating-point sums.

    Args:
        network: What to train; it is changed, and returned with the averaged weights.
        photographs: Training images; some are held out for validation.
        config: How to train.
        state_path: Where the state for resuming is kept.
        device: Where to train.

    Raises:
        TrainingError: The loss stopped being finite, or the state on disk belongs to another run.
        ArgumentError: The batch cannot be divided equally among the processes.
    """
    with processes(device) as group:
        if config.batch % group.count:
            raise ArgumentError(f"batch={config.batch} cannot be divided equally among {group.count} processes")
        require_writable(state_path)
        identity = {
            "configuration of the training": digest_of_settings(config),
            "kind of device": device.type,
            "set of photographs": photographs.digest(),
            "version of srquant": versions()["srquant"],
            "start": digest_of_network(network),
        }
        file = StateFile(state_path, Owner("training", "", network.name, identity), TrainingError)
        weights = Weights(network, config, device, group)
        run = _Run(weights, photographs, config, file, group)
        run.resume()
        run.go()
        return Trained(weights.finished(), run.curve, group.first, file)


class _Clock:
    """How much of a run is done: by steps or by the time of all its stretches, whichever is further."""

    def __init__(self, config: TrainingConfig, group: Processes, device: torch.device) -> None:
        self._config, self._group, self._device = config, group, device
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of this stretch and those before."""
        return time.monotonic() - self._started

    def add(self, seconds: float) -> None:
        """Count those of earlier stretches too."""
        self._started -= seconds

    def progress(self, step: int) -> float:
        """Part of the run that is done after so many steps; 1 at the end. The same in all processes."""
        done = step / self._config.steps
        if self._config.minutes is None:
            return done
        seconds = self.seconds
        if self._group.count > 1:
            together = torch.tensor(seconds, device=self._device)
            self._group.sum([together])
            seconds = float(together) / self._group.count
        return max(done, seconds / (60 * self._config.minutes))


class _Run:
    """How far a run is: draws crops, moves the weights, validates, and keeps what it has."""

    def __init__(
        self, weights: Weights, photographs: Photographs, config: TrainingConfig, file: StateFile, group: Processes
    ) -> None:
        self.training, self.held = photographs.split(config.validation)
        self.weights, self.config, self.file, self.group = weights, config, file, group
        self.device = next(weights.network.parameters()).device
        self.clock = _Clock(config, group, self.device)
        self.step = 0
        self.curve: list[CurveRow] = []
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        """Sum over the steps since the last row of the curve."""

    def go(self) -> None:
        """Take the steps that are left."""
        config = self.config
        progress = self.clock.progress(self.step)
        part = self.group.part(config.batch)

        def make(step: int) -> tuple[Tensor, Tensor]:
            return self.training.batch(config.seed, step, config.batch, config.patch, part)

        left = range(self.step, config.steps if progress < 1 else self.step)
        title = f"Training {self.weights.network.name}"
        with bar(title, config.steps, self.step) as shown, ahead(make, left) as batches:
            for low, high in batches:
                loss = self.weights.learn(low, high, self._rate(progress), self.step)
                self.group.sum([loss])
                self.loss += loss / self.group.count
                self.step += 1
                shown.advance()
                progress = self.clock.progress(self.step)
                last = progress >= 1
                if self.step % config.validation_every == 0 or last:
                    self._validate(shown)
                if self.group.first and (last or self.file.due):
                    self._save()
                if last:
                    break

    def _rate(self, progress: float) -> float:
        config = self.config
        return config.learning_rate * warmup(self.step, config.warmup) * cosine(progress, _LAST_RATE)

    def _validate(self, shown: Bar) -> None:
        self._require_finite()
        with self.weights.averaged() as network:
            score = validation_psnr(network, self.held)
        before = self.curve[-1].step if self.curve else 0
        loss = float(self.loss) / (self.step - before)
        self.loss.zero_()
        self.curve.append(CurveRow(self.step, loss, score, self.clock.seconds))
        if self.group.first:
            shown.note(f"step {self.step}: loss {loss:.5f}, validation {score:.3f} dB, {self.curve[-1].seconds:.0f} s")

    def _require_finite(self) -> None:
        if not bool(self.loss.isfinite()):
            path = self.file.path
            started = f" and remove {path}, which goes on at this rate only" if path.exists() else ""
            raise TrainingError(
                f"the loss became NaN or infinite before step {self.step}; lower the learning rate "
                f"({self.config.learning_rate:g}){started}"
            )

    def _save(self) -> None:
        self._require_finite()
        rows = [[p.step, p.loss, p.psnr, p.seconds] for p in self.curve]
        own = {"step": self.step, "loss": self.loss, "curve": rows, "seconds": self.clock.seconds}
        self.file.save(self.step, self.config.steps, {**self.weights.to_state(), **own})

    def resume(self) -> None:
        """Go on from the state on disk, if there is one."""

        def load(content: dict[str, Any]) -> None:
            self.weights.load(content)
            self.step, self.loss = content["step"], content["loss"]
            self.curve = [CurveRow(*row) for row in content["curve"]]
            self.clock.add(content["seconds"])

        self.file.resume(self.device, load)


@torch.no_grad()
def validation_psnr(network: SRNetwork, photographs: Photographs) -> float:
    """Mean PSNR-Y over whole photographs, a border of ``scale`` pixels cropped."""

    def enlarged(images: Tensor) -> Tensor:
        return network(to_network(network, images)) / network.value_range

    pairs = (photographs.read(index) for index in range(len(photographs.images)))
    pixels = ((low.transpose(1, 2, 0), high.transpose(1, 2, 0)) for low, high in pairs)
    return fmean(luma_psnr(enlarged, low, high, network.scale) for low, high in pixels)
