"""What the float network gives, computed once for each patch as far as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from srquant.learning.losses import Outputs


class Teacher:
    """What the float network gives for patches; computed once for each, as far as memory allows."""

    def __init__(self, run: Callable[[Tensor], Outputs], cache: int | None) -> None:
        self._run = run
        self._room = None if cache is None else cache << 20
        self._kept: dict[int, Outputs] = {}

    @torch.no_grad()
    def __call__(self, indices: Sequence[int], images: Tensor) -> Outputs:
        """For the patches of these numbers, stacked in ``images``."""
        if self._room is None:
            return self._run(images)
        found = [self._of(index, images[number : number + 1]) for number, index in enumerate(indices)]
        features = {name: torch.cat([row.features[name] for row in found]) for name in found[0].features}
        return Outputs(torch.cat([row.images for row in found]), features)

    def _of(self, index: int, image: Tensor) -> Outputs:
        found = self._kept.get(index)
        if found is not None:
            return found
        made = self._run(image)
        room = cast(int, self._room) - sum(value.nbytes for value in (made.images, *made.features.values()))
        if room >= 0:
            self._kept[index], self._room = made, room
        return made
