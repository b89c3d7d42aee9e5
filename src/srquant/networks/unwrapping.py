"""Finding the weights of a network in what a checkpoint holds: under whatever key, behind whatever prefix.

A checkpoint is a tree of mappings. Each that holds tensors is a candidate; so is each part of it whose keys share a
first word, such as ``generator.``. The likeliest come first: averaged weights before others, well-known names before
unknown ones, a whole before its parts. Who reads them takes the first that is a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast

from torch import Tensor

from srquant.networks.base import State
from srquant.support.tensors import vector_norm

NAMES = (
    *("params", "state_dict", "model_state_dict", "model", "net", "network", "generator", "generator_state_dict"),
    *("netG", "net_g", "G", "weights", "module", "_orig_mod"),
)
"""Where published files keep their weights, the likeliest first; others are looked at after these."""
_AVERAGED = re.compile(r"(^|[._-])(ema\d*|swa|averaged?|avg)([._-]|$)", re.IGNORECASE)
"""Names of weights that are averages over steps of training: ``params_ema``, ``model_ema``, ``generator-ema``."""
_NO_NETWORK = re.compile(
    r"optim|sched|scaler|loss|metric|discriminator|^(opt|net_?)?D$|^opt|callbacks|loops", re.IGNORECASE
)
"""Names of what is kept beside a network."""
_TRAINING = re.compile(r"optim|sched|param_groups", re.IGNORECASE)
_BOOKKEEPING = ("total_ops", "total_params", "n_averaged", "step_counter")
"""Last words of keys under which tools keep counters among the weights."""
_DEPTH = 5
_MOST = 64
"""Mappings that are looked at."""


@dataclass(frozen=True)
class Candidate:
    """Tensors that may be the weights of a network.

    Args:
        state: Keys and tensors.
        place: Where they are in the file: keys of mappings and what was taken off the tensors' own, for instance
            ``("state_dict", "generator_ema")``; empty for a file that holds nothing else.
        beside: Keys of tensors in the same mapping that are not among them.
    """

    state: State
    place: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def averaged(self) -> bool:
        """Whether its name says that these are averages over steps of training."""
        return any(_AVERAGED.search(part) for part in self.place)

    @property
    def name(self) -> str:
        """The place as one text."""
        return ".".join(self.place)

    def is_like(self, other: Candidate) -> bool:
        """Whether the other has the same keys, once a common prefix is taken off: another state of the same network."""
        return any(form.state.keys() == self.state.keys() for form in other.forms())

    def forms(self) -> Iterator[Candidate]:
        """The state as it is; then without each prefix that all its keys share, one after the other; each also with
        its normalised weights computed.
        """
        found = self
        while True:
            yield found
            folded = fold_weight_norms(found.state)
            if folded is not None:
                yield replace(found, state=folded)
            prefix = _common_prefix(found.state)
            if prefix is None:
                return
            found = replace(found, state={key.removeprefix(prefix): value for key, value in found.state.items()})


def candidates(content: Any) -> list[Candidate]:
    """All candidates in a checkpoint, the likeliest first; none if it holds no tensors."""
    wholes = list(islice(_mappings(content, (), _DEPTH), _MOST))
    found: list[Candidate] = []
    for whole in sorted(wholes, key=_rank):
        parts = sorted(_parts(whole), key=_rank)
        averaged = [part for part in parts if part.averaged]
        found += [*averaged, whole, *(part for part in parts if not part.averaged)]
    return sorted(found, key=lambda one: not one.averaged)


def is_training_state(content: Any) -> bool:
    """Whether a checkpoint holds what a training goes on from: the state of an optimizer or a schedule."""
    return isinstance(content, Mapping) and any(_TRAINING.search(str(key)) for key in cast(Mapping[Any, Any], content))


def fold_weight_norms(state: State) -> State | None:
    """Compute the weights that weight normalisation stores as length and direction; None if there are none.

    w = g · v / ‖v‖, the norm over all axes but the first. Keys: ``weight_g`` and ``weight_v``, or
    ``parametrizations.weight.original0`` and ``…1``.

    Source: Salimans and Kingma, NeurIPS 2016, equation 2; ``torch.nn.utils.weight_norm``.
    """
    folded = dict(state)
    for key in state:
        for end, other in _WEIGHT_NORMS:
            name = key.removesuffix(end)
            direction = state.get(f"{name}{other}")
            if name == key or direction is None or direction.ndim < 2 or state[key].numel() != len(direction):
                continue
            length = folded.pop(key).reshape(-1, *[1] * (direction.ndim - 1)).float()
            direction = folded.pop(f"{name}{other}").float()
            norm = vector_norm(direction, tuple(range(1, direction.ndim)), keepdim=True)
            folded[f"{name}weight"] = length * direction / norm
    return folded if len(folded) < len(state) else None


_WEIGHT_NORMS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
"""Ends of the keys of lengths and directions."""


def _mappings(content: Any, place: tuple[str, ...], depth: int) -> Iterator[Candidate]:
    """Every mapping with tensors in it, outside in."""
    if not isinstance(content, Mapping) or not depth:
        return
    mapping = cast(Mapping[Any, Any], content)
    state = {str(key): value for key, value in mapping.items() if isinstance(value, Tensor)}
    kept = {key: value for key, value in state.items() if key.rpartition(".")[2] not in _BOOKKEEPING}
    if kept:
        yield Candidate(kept, place)
    for key, value in mapping.items():
        if isinstance(key, str) and isinstance(value, Mapping) and not _TRAINING.search(key):
            yield from _mappings(value, (*place, key), depth - 1)


def _parts(whole: Candidate) -> Iterator[Candidate]:
    """The parts of a mapping whose keys begin with the same word, where there are several.

    Only those of a known name, or that are most of it: a piece of an unknown network is no network. A prefix that all
    keys share is taken off first.
    """
    shared = ""
    while (prefix := _common_prefix(whole.state)) is not None:
        stripped = {key.removeprefix(prefix): value for key, value in whole.state.items()}
        whole = Candidate(stripped, (*whole.place, prefix.removesuffix(".")))
        shared += prefix
    groups: dict[str, State] = {}
    for key, value in whole.state.items():
        word, dot, rest = key.partition(".")
        groups.setdefault(word if dot else "", {})[rest if dot else key] = value
    groups.pop("", None)
    for word, state in groups.items():
        if word in NAMES or _AVERAGED.search(word) or 2 * len(state) > len(whole.state):
            beside = tuple(f"{shared}{key}" for key in whole.state if not key.startswith(f"{word}."))
            yield Candidate(state, (*whole.place, word), beside)


def _rank(candidate: Candidate) -> tuple[bool, bool, int]:
    """The likeliest is the smallest."""
    last = _AVERAGED.sub("", candidate.place[-1]) if candidate.place else ""
    known = NAMES.index(last) if last in NAMES else len(NAMES)
    strange = any(_NO_NETWORK.search(part) for part in candidate.place)
    return strange, not candidate.averaged, known


def _common_prefix(state: State) -> str | None:
    """The first word of all keys, with its dot, where they share it and more follows."""
    first = next(iter(state), "")
    word, dot, _ = first.partition(".")
    shared = dot and all(key.startswith(f"{word}.") for key in state)
    return f"{word}." if shared else None
