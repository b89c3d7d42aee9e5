"""What calibration patches bring to each layer: how far every channel reaches, and values to look at one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from srquant.images.calibration import Calibration
from srquant.images.covering import Covering
from srquant.methods.pipeline.output_sizes import OutputSizes
from srquant.methods.pipeline.plan import Plan, Target
from srquant.methods.pipeline.work import OBSERVED, Work
from srquant.model.multiplications import MultiplicationKind
from srquant.model.observing import OPERANDS, Operand, require_finite, to_network
from srquant.support.errors import NetworkError
from srquant.support.progress import track
from srquant.support.watching import hooks

_OUTSIDE = 1.0
"""How far, in value ranges, the output of a network that works may leave the range of images."""
_SIZE, _CROP = 48, 28
"""Of patches whose values are looked at one by one, and of what is kept of a convolution's input."""
_BYTES = 512 << 20
"""Of values in memory at a time."""
_PASSES, _TRIED = 2, 40
"""Float passes that samples take, and choosing and rounding on them."""

Ends = tuple[Tensor, Tensor]
"""The smallest and the largest value of each channel."""
Values = dict[tuple[str, Operand], Tensor]
"""A piece of an operand for each patch that is looked at: ``n c h w`` before convolutions, ``n rows c`` elsewhere."""


class Samples:
    """What the float network's operands are on calibration patches.

    Patches on which the float network leaves the range of images are passed over: it is broken there, and would widen
    every range.

    Args:
        plan: The network and its targets.
        patches: All of them say how far channels reach, some what values there are.
        count: How many of the given ones at most, besides those that cover.

    Raises:
        NetworkError: A value is not finite, or the network leaves the range of images on every patch.
    """

    def __init__(self, plan: Plan, patches: Covering, count: int = 24) -> None:
        self._network = plan.network
        sizes = OutputSizes()
        self.ends = _ends(plan, patches, sizes)
        """Of each operand, over all patches on which the float network works."""
        self.output_sizes = {name: sizes.root_mean_square(name) for name in plan.names}
        """The root mean square of each target's output, over all patches."""
        self._images = to_network(plan.network, patches.sample(count, _SIZE))

    def of(self, targets: Sequence[Target]) -> Iterator[tuple[Target, Values]]:
        """Targets in their order with the values of their operands, as many in memory at a time as there is room for.

        Of a layer that runs several times in a pass, the values of its first run.
        """
        for group in self._groups(targets) if targets else ():
            values = self._values(group)
            for target in group:
                name = target.multiplication.name
                yield target, {key: values.pop(key) for key in [key for key in values if key[0] == name]}

    def _groups(self, targets: Sequence[Target]) -> Iterator[list[Target]]:
        group: list[Target] = []
        room = _BYTES
        for target in targets:
            channels = target.multiplication.kind.channels_of(self._network.get_submodule(target.multiplication.name))
            needed = 4 * channels * _CROP**2 * len(self._images)
            if group and needed > room:
                yield group
                group, room = [], _BYTES
            group.append(target)
            room -= needed
        yield group

    def _values(self, targets: Sequence[Target]) -> Values:
        pieces: dict[tuple[str, Operand], list[Tensor]] = {}
        draw = torch.Generator().manual_seed(0)

        def look(name: str, kind: MultiplicationKind, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
            for operand, values in zip(OPERANDS, operands, strict=False):
                if len(pieces.setdefault((name, operand), [])) == done:
                    pieces[name, operand].append(_piece(values.detach(), kind, draw))
            missing.discard(name)
            if not missing:
                raise _Enough

        found = [target.multiplication for target in targets]
        watched = {each.name: partial(look, each.name, each.kind) for each in found}
        with hooks(self._network, watched), torch.no_grad():
            for done in range(len(self._images)):
                missing = set(watched)
                with contextlib.suppress(_Enough):
                    self._network(self._images[done : done + 1].clone())
        return {key: torch.stack(found) for key, found in pieces.items()}


class _Enough(BaseException):
    """Ends a pass of which all that is wanted was seen; networks from elsewhere are guarded against Exceptions."""


def work_of_samples(patches: Calibration, more: int, count: int) -> Work:
    """Of taking samples of patches and of some more that cover, and of choosing levels on them."""
    sampled = min(count, len(patches)) + more
    pixels = OBSERVED * (len(patches) + more) * patches.size**2 + _PASSES * sampled * min(_SIZE, patches.size) ** 2
    return Work(pixels + _TRIED * sampled * _CROP**2, patches.size**2, memory=2 * _BYTES)


def _piece(values: Tensor, kind: MultiplicationKind, draw: torch.Generator) -> Tensor:
    if kind.channel_axis is None:
        values = values.reshape(-1)
        return values[torch.randint(len(values), (_CROP**2,), generator=draw).to(values.device)].clone()
    if kind.channel_axis != 1:
        rows = values.reshape(-1, values.shape[-1])
        return rows[torch.randint(len(rows), (_CROP**2,), generator=draw).to(rows.device)].clone()
    height, width = values.shape[2:]
    top, left = (int(torch.randint(max(size - _CROP, 0) + 1, (), generator=draw)) for size in (height, width))
    return values[0, :, top : top + _CROP, left : left + _CROP].clone()


def _ends(plan: Plan, patches: Covering, sizes: OutputSizes) -> dict[tuple[str, Operand], Ends]:
    kinds = {target.multiplication.name: target.multiplication.kind for target in plan.targets}
    found: dict[tuple[str, Operand], Ends] = {}
    now: dict[tuple[str, Operand], Ends] = {}

    def look(name: str, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        for operand, values in zip(OPERANDS, operands, strict=False):
            ends = kinds[name].by_channel(values).aminmax(dim=1)
            require_finite(name, ends)
            now[name, operand] = _wider(now.get((name, operand)), (ends.min, ends.max))

    def gave(name: str, _module: nn.Module, _operands: object, output: Tensor) -> None:
        sizes(name, output)

    before, after = ({name: partial(call, name) for name in plan.names} for call in (look, gave))
    network, used = plan.network, 0
    with hooks(network, before, after), torch.inference_mode():
        for image in track(patches.batches(1), "Calibrating", len(patches)):
            now.clear()
            output = network(to_network(network, image)) / network.value_range
            if float(output.min()) >= -_OUTSIDE and float(output.max()) <= 1 + _OUTSIDE:
                used += 1
                found |= {key: _wider(found.get(key), ends) for key, ends in now.items()}
    if not used:
        raise NetworkError(
            "the float network's output is far outside [0, 1] on every calibration patch; is its value range really "
            f"{network.value_range:g}?"
        )
    return found


def _wider(known: Ends | None, ends: Ends) -> Ends:
    return ends if known is None else (torch.minimum(known[0], ends[0]), torch.maximum(known[1], ends[1]))
