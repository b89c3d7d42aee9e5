"""What decides the result of a run, as digests."""

from __future__ import annotations

from collections.abc import Sequence

from srquant.learning.stages import Stage
from srquant.networks.base import SRNetwork
from srquant.quantizers import Quantizer
from srquant.support.digests import digest_of_settings, digest_of_tensors
from srquant.support.tensors import modules_of


def digest_of_network(network: SRNetwork) -> str:
    """Of what a network computes: its kind, hyper-parameters, modules, quantizers and all numbers in it."""
    modules = [
        [name, type(module).__name__, module.arguments() if isinstance(module, Quantizer) else None]
        for name, module in modules_of(network).items()
    ]
    numbers = digest_of_tensors(network.state_dict())
    return digest_of_settings(network.name, network.config, network.value_range, modules, numbers)


def digest_of_start(student: SRNetwork, stages: Sequence[Stage]) -> str:
    """Of a quantized network before it learns, and of what of it learns when."""
    learned = [
        [stage.name, [[list(group.parameters), group.relative, group.factor] for group in stage.groups]]
        for stage in stages
    ]
    return digest_of_settings(digest_of_network(student), learned)
