"""What decides the result of a run, as digests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srquant.learning.stages import Stage
from srquant.networks.base import SRNetwork
from srquant.quantizers import Quantizer
from srquant.support.digests import digest_of_settings, digest_of_tensors
from srquant.support.tensors import modules_of


def digest_of_network(network: SRNetwork) -> str:
    """Of what a network computes: its kind, hyper-parameters, modules, quantizers and all numbers in it."""
    numbers = digest_of_tensors(network.state_dict())
    return digest_of_settings(network.name, network.config, network.value_range, _modules(network), numbers)


def digest_of_layout(student: SRNetwork, stages: Sequence[Stage]) -> str:
    """Of what a quantized network is made of before it learns, and of what of it learns when.

    Not of its numbers: they follow from the float network, the patches and the settings, and their last bits change
    with the number of threads.
    """
    learned = [
        [
            stage.name,
            [
                [group.relative, {name: list(value.shape) for name, value in group.parameters.items()}]
                for group in stage.groups
            ],
        ]
        for stage in stages
    ]
    return digest_of_settings(student.name, _modules(student), learned)


def _modules(network: SRNetwork) -> list[list[Any]]:
    return [
        [name, type(module).__name__, module.arguments() if isinstance(module, Quantizer) else None]
        for name, module in modules_of(network).items()
    ]
