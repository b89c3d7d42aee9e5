"""Going back to the start where learning did not help."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srquant.model.observing import to_network
from srquant.networks.base import SRNetwork
from srquant.support.errors import NoGainWarning

_TINY = 1e-10
"""Mean squared error of images in [0, 1]; 100 dB."""


@dataclass(frozen=True)
class Outcome:
    """What learning brought, on patches that were held out.

    Args:
        before: Agreement with the float network's images in dB, the mean over kinds of patches, before learning.
        after: The same afterwards.
    """

    before: float
    after: float

    @property
    def helped(self) -> bool:
        """Whether what was learned is better than what was there."""
        return self.after > self.before


class Guard:
    """The better of what a network was before learning and what it is afterwards.

    Args:
        student: Before learning.
        teacher: The float network.
        patches: Held out, by kind: ``n 3 h w`` in [0, 1]. Every kind counts alike.
    """

    def __init__(self, student: SRNetwork, teacher: SRNetwork, patches: Mapping[str, Tensor]) -> None:
        self._student, self._patches = student, patches
        self._expected = {kind: _run(teacher, images) for kind, images in patches.items()}
        self._before = {name: value.detach().clone() for name, value in _parameters(student).items()}
        self._agreement = self._measure()

    def settle(self) -> Outcome:
        """Compare, and put everything back as it was before if learning did not help."""
        outcome = Outcome(self._agreement, self._measure())
        if not outcome.helped:
            warnings.warn(
                f"learning did not help: on patches that were held out the agreement with the float network's images "
                f"went from {outcome.before:.1f} dB to {outcome.after:.1f}; the start is kept. Learn longer, or at a "
                f"lower rate",
                NoGainWarning,
                stacklevel=4,
            )
            with torch.no_grad():
                for name, parameter in _parameters(self._student).items():
                    parameter.copy_(self._before[name])
        return outcome

    def _measure(self) -> float:
        agreements = [
            _agreement(_run(self._student, images), self._expected[kind]) for kind, images in self._patches.items()
        ]
        return sum(agreements) / len(agreements)


def _agreement(found: Tensor, expected: Tensor) -> float:
    """The mean over images in dB."""
    return -10 * float((found - expected).square().mean((1, 2, 3)).clamp(min=_TINY).log10().mean())


def _parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    return dict(network.named_parameters())


def _run(network: SRNetwork, images: Tensor) -> Tensor:
    """Images in [0, 1], computed one by one."""
    with torch.no_grad():
        outputs = [network(to_network(network, image[None])) for image in images]
    return (torch.cat(outputs) / network.value_range).clamp(0, 1)
