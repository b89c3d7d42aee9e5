"""Which layers are given a row for each image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from srquant.methods.pipeline.plan import Plan
from srquant.support.errors import ArgumentError
from srquant.support.watching import hooks

_NEAR = 1e-3
"""Of an operand's largest value; sums over other batches differ by less."""


@torch.no_grad()
def require_rows_of_images(plan: Plan, names: Sequence[str], way_out: str) -> None:
    """Refuse layers whose batch axis is not that of images, as inside the windows of attention.

    Two images are given to the float network together, and the second alone: a layer's second row must be the same.

    Args:
        plan: The network.
        names: Layers whose bits are to follow the image.
        way_out: What to do about it, with the place of a layer's name.

    Raises:
        ArgumentError: A layer is given something else; it is named.
    """
    seen: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in names}

    def look(name: str, _module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        seen[name].append(tuple(operand.clone() for operand in operands))

    second = plan.network.probe()
    first = second.flip(-1) * 0.5
    if not names:
        return
    with hooks(plan.network, {name: partial(look, name) for name in names}):
        plan.network(torch.cat((first, second)))
        plan.network(second.clone())
    for name, (together, alone) in seen.items():
        if not all(map(_second_row, together, alone)):
            raise ArgumentError(
                f"the bits of {name} cannot follow the image: what it is given has no row for each image, as inside "
                f"windows of attention; {way_out.format(name)}"
            )


def _second_row(together: Tensor, alone: Tensor) -> bool:
    if len(together) != 2 or len(alone) != 1 or together.shape[1:] != alone.shape[1:]:
        return False
    return bool((together[1] - alone[0]).abs().max() <= _NEAR * alone.abs().max())
