"""A network with one multiplication at a time replaced; what runs before it is not computed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from srquant.model.swapping import replace_all


class Replays:
    """Sits around the multiplications of a network, which is changed in place.

    Outputs of all of them are kept, of one pass. With each of n replaced in turn, passes cost about n/2 whole ones.

    Args:
        network: Float.
        order: Names of its multiplications in the order in which they run.
    """

    def __init__(self, network: nn.Module, order: Sequence[str]) -> None:
        self._replays = {name: _Replay(network.get_submodule(name)) for name in order}
        replace_all(network, self._replays)

    def record(self) -> None:
        """Let the network be as it was, and keep what its next pass gives."""
        for module in self._replays.values():
            module.record()

    def each_alone(self, others: Mapping[str, nn.Module]) -> Iterator[str]:
        """The names of some multiplications, in order: until the next is asked for, another module runs in its place.

        The network must be given what it was given in the pass that was kept.

        Args:
            others: What runs there, by name.
        """
        earlier: list[_Replay] = []
        for name, replay in self._replays.items():
            if name in others:
                for module in self._replays.values():
                    module.run()
                for module in earlier:
                    module.play()
                replay.run(others[name])
                yield name
            earlier.append(replay)


class _Replay(nn.Module):
    """A multiplication that can give again what it gave before."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._now = [module]  # in a list, so that a layer of another network does not become part of this one
        self._mode = "run"
        self._kept: list[Tensor] = []

    def record(self) -> None:
        """From now on compute, and keep what comes out."""
        self._now, self._mode, self._kept = [self.module], "record", []

    def run(self, other: nn.Module | None = None) -> None:
        """From now on compute, with another module if one is given."""
        self._now, self._mode = [self.module if other is None else other], "run"

    def play(self) -> None:
        """From now on give what was kept. A module that ran several times in a pass is computed nevertheless."""
        if len(self._kept) == 1:
            self._mode = "play"

    @property
    def weight(self) -> Tensor:
        """Some networks look at their layers' weights."""
        return cast(Tensor, self._now[0].weight)

    def forward(self, *operands: Tensor, **named: Tensor) -> Tensor:
        if self._mode == "play":
            return self._kept[0].clone()  # whoever reads it may write into it
        output = self._now[0](*operands, **named)
        if self._mode == "record":
            self._kept.append(output.clone())
        return output
