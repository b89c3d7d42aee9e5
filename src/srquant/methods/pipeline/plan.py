"""What becomes of each multiplication of a network."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace

from srquant.methods.base import Bits, Method, Scope, parse_rule
from srquant.model import Model
from srquant.model.baking import Baked
from srquant.model.folding import Fold
from srquant.model.preparing import prepare
from srquant.model.record import Kept
from srquant.model.sameness import require_usable
from srquant.model.survey import Multiplication, Survey
from srquant.networks.base import SRNetwork
from srquant.support.errors import ArgumentError

_EIGHT_BIT_ROLES = ("first", "upsampler", "last")
_FLOAT_ROLES = ("first", "after_body", "upsampler", "last")


@dataclass(frozen=True)
class Target:
    """A multiplication that is quantized, and to how many bits."""

    multiplication: Multiplication
    weight_bits: int
    activation_bits: int


@dataclass(frozen=True)
class Plan:
    """What a method works on: the float network as it is quantized, and what becomes of each multiplication."""

    network: SRNetwork
    baked: tuple[Baked, ...]
    folds: tuple[Fold, ...]
    survey: Survey
    targets: tuple[Target, ...]
    kept: tuple[Kept, ...]

    def sparing(self, names: Sequence[str]) -> Plan:
        """The same with some targets left float, as they cost most."""
        spared = [target.multiplication for target in self.targets if target.multiplication.name in names]
        kept = [Kept(each.name, "costs most", each.multiply_adds / self.survey.multiply_adds) for each in spared]
        targets = tuple(target for target in self.targets if target.multiplication.name not in names)
        return replace(self, targets=targets, kept=(*self.kept, *kept))

    def widening(self, names: Sequence[str], bits: int) -> Plan:
        """The same with more bits for some targets, as they cost most."""
        targets = [
            replace(target, weight_bits=bits, activation_bits=bits) if target.multiplication.name in names else target
            for target in self.targets
        ]
        return replace(self, targets=tuple(targets))

    def only(self, names: Sequence[str]) -> Plan:
        """The same with some of its targets alone."""
        return replace(self, targets=tuple(each for each in self.targets if each.multiplication.name in names))

    @property
    def names(self) -> list[str]:
        """Names of the multiplications that are quantized."""
        return [target.multiplication.name for target in self.targets]

    @property
    def coverage(self) -> float:
        """Part of the network's multiply-adds whose operands are quantized."""
        return sum(target.multiplication.multiply_adds for target in self.targets) / self.survey.multiply_adds


def make_plan(model: Model, method: Method) -> Plan:
    """Prepare the network, find its multiplications, decide the bits of each, and see that the result can be used.

    Args:
        model: A float model.
        method: Says bits, edges, scope and exceptions; an exception counts whatever the others say.

    Raises:
        ArgumentError: The model is quantized already, a rule of ``layers`` matches no layer, or the network has nothing
            of the scope.
        NetworkError: With quantized layers the network would not be the same, or its file could not be opened again.
    """
    if model.record is not None:
        raise ArgumentError(f"the model is quantized already (by {model.record.method}); start from float weights")
    prepared = prepare(model.network, method.norms)
    network, found = prepared.network, prepared.survey
    rules = [parse_rule(rule) for rule in method.layers]
    for pattern, _ in rules:
        if not any(fnmatch.fnmatchcase(each.name, pattern) for each in found.multiplications):
            raise ArgumentError(
                f"layers: {pattern!r} matches no layer; the first are "
                f"{', '.join(each.name for each in found.multiplications[:5])}"
            )
    targets: list[Target] = []
    kept: list[Kept] = []
    skips_convolutions = _is_transformer(network, found, method.scope)
    for multiplication in found.multiplications:
        bits, reason = _bits(multiplication, method, rules, skips_convolutions)
        if bits is None:
            kept.append(Kept(multiplication.name, reason, multiplication.multiply_adds / found.multiply_adds))
        else:
            targets.append(Target(multiplication, *bits))
    kept += [Kept(each.name, each.reason, each.multiply_adds / found.multiply_adds) for each in found.left_out]
    if not targets:
        raise ArgumentError(f"nothing is left to quantize; {_listing(kept)}; loosen edges, scope or layers")
    plan = Plan(network, prepared.baked, prepared.folds, found, tuple(targets), tuple(kept))
    require_usable(model.network, prepared, plan.names)
    return plan


def asked_for(name: str, method: Method) -> bool:
    """Whether an exception says how many bits a layer has."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern, _ in map(parse_rule, method.layers))


def _listing(kept: Sequence[Kept]) -> str:
    """What stays float, in one sentence."""
    items = [f"{item.name} stays float ({item.reason})" for item in kept[:3]]
    return ", ".join(items) + (f", and {len(kept) - 3} more" if len(kept) > 3 else "")


def _is_transformer(network: SRNetwork, found: Survey, scope: Scope) -> bool:
    """Whether only linear maps and attention products are quantized."""
    multiplications = [each for each in found.multiplications if each.kind.role == "transformer"]
    if scope == "transformer" and not multiplications:
        raise ArgumentError(
            f"scope=transformer: {network.name} has no linear maps or attention products; use scope=all or scope=auto"
        )
    mostly = sum(each.multiply_adds for each in multiplications) > found.multiply_adds / 2
    mostly = mostly or not all(each.kind.has_weight for each in multiplications)
    return scope == "transformer" or (scope == "auto" and mostly)


def _bits(
    multiplication: Multiplication, method: Method, rules: list[tuple[str, Bits]], skips_convolutions: bool
) -> tuple[Bits, str]:
    for pattern, bits in reversed(rules):
        if fnmatch.fnmatchcase(multiplication.name, pattern):
            return bits, f"asked for ({pattern})"
    if skips_convolutions and multiplication.kind.role == "convolution":
        return None, "scope=transformer"
    if method.edges == "float" and multiplication.role in _FLOAT_ROLES:
        return None, f"edges=float ({multiplication.role.replace('_', ' ')})"
    if method.edges == "8bit" and multiplication.role in _EIGHT_BIT_ROLES:
        return (8, 8), ""
    return (method.bits if method.weight_bits is None else method.weight_bits, method.bits), ""
