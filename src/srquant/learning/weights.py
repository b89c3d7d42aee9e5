"""The weights of a network in training, and their moving average."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from srquant.learning.settings import TrainingConfig
from srquant.learning.shared_norms import own_norms, share_norms
from srquant.networks.base import SRNetwork
from srquant.support.processes import Processes
from srquant.support.tensors import autocast, channels_last


class Weights:
    """What moves: the weights, by Adam along the gradients of the L1 loss, and after them their moving average.

    Args:
        network: Whose they are; it is moved to the device and changed.
        config: Says how they move.
        device: Where to compute.
        group: The processes that divide each batch among them.
    """

    def __init__(self, network: SRNetwork, config: TrainingConfig, device: torch.device, group: Processes) -> None:
        self.network = channels_last(network.to(device)).train()
        self._config, self._device = config, device
        if group.count > 1:
            share_norms(self.network)
        self._average = {key: value.clone() for key, value in network.state_dict().items()}
        self._forward: nn.Module = (
            nn.parallel.DistributedDataParallel(self.network) if group.count > 1 else self.network
        )
        self._adam = torch.optim.Adam(network.parameters(), config.learning_rate, (0.9, config.beta2), fused=True)
        self._autocast = autocast(device, config.precision)

    def learn(self, low: Tensor, high: Tensor, rate: float, step: int) -> Tensor:
        """Take a step.

        Args:
            low: LR crops in [0, 1], ``n 3 h w``.
            high: HR crops in [0, 1].
            rate: Learning rate.
            step: Number of the step, the first being 0.

        Returns:
            The loss before it, of the part of the batch that is this process's.
        """
        for group in self._adam.param_groups:
            group["lr"] = rate
        peak = self.network.value_range
        low = low.to(self._device, memory_format=torch.channels_last)
        with self._autocast:
            output = cast(Tensor, self._forward(low * peak))
        loss = nn.functional.l1_loss(output.float() / peak, high.to(self._device))
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        self._adam.step()
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                self._average[key].lerp_(value, 1 - min(self._config.average, (1 + step) / (10 + step)))
            else:
                self._average[key].copy_(value)
        return loss.detach()

    @contextmanager
    def averaged(self) -> Generator[SRNetwork]:
        """The network with the averaged weights, in evaluation mode, for a while."""
        kept = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.network.load_state_dict(self._average)
        yield self.network.eval()
        self.network.load_state_dict(kept)
        self.network.train()

    def finished(self) -> SRNetwork:
        """The network with the averaged weights, in evaluation mode; nothing is learned any more."""
        self.network.load_state_dict(self._average)
        own_norms(self.network)
        return self.network.eval()

    def to_state(self) -> dict[str, Any]:
        """What :meth:`load` goes on from."""
        return {"network": self.network.state_dict(), "average": self._average, "optimizer": self._adam.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`to_state` gave."""
        self.network.load_state_dict(state["network"])
        self._average = state["average"]
        self._adam.load_state_dict(state["optimizer"])
