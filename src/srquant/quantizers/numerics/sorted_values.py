"""Exact squared errors of any grid on a tensor, at the price of a few look-ups per candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from srquant.support.tensors import as_tensor


class SortedValues:
    """Rows of values, sorted, with prefix sums of x⁰, x¹ and x².

    Between two thresholds all values go to one level L, so their squared error is Σx² − 2LΣx + nL²: three differences
    of prefix sums. A grid of k levels costs k look-ups, whatever the number of values.

    Args:
        rows: ``r n`` float; each row is a tensor (or channel) of its own.
    """

    def __init__(self, rows: Tensor) -> None:
        self.values = sort(rows)
        exact = self.values.to(torch.float64)
        start = exact.new_zeros(len(rows), 1)
        self._sums = torch.cat((start, exact.cumsum(1)), 1)
        self._squares = torch.cat((start, exact.square().cumsum(1)), 1)

    def squared_error(self, levels: Tensor) -> Tensor:
        """Sum of squared distances of the values to their nearest levels.

        Args:
            levels: ``r c k``: for each row, c candidate grids of k increasing levels.

        Returns:
            ``r c``, float64.
        """
        rows, candidates, _ = levels.shape
        halfway = ((levels[..., 1:] + levels[..., :-1]) / 2).reshape(rows, -1).to(self.values.dtype)
        cuts = torch.searchsorted(self.values, halfway.contiguous()).reshape(rows, candidates, -1)
        first = torch.zeros_like(cuts[..., :1])
        cuts = torch.cat((first, cuts, torch.full_like(first, self.values.shape[1])), -1)
        flat = cuts.reshape(rows, -1)
        sums, squares = (
            total.gather(1, flat).reshape(cuts.shape).diff(dim=-1) for total in (self._sums, self._squares)
        )
        exact = levels.to(torch.float64)
        return (squares - 2 * exact * sums + exact.square() * cuts.diff(dim=-1)).sum(-1)

    def better(
        self, levels: Tensor, candidates: Sequence[Tensor], best: Sequence[Tensor], error: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """For each row the candidate of the least squared error, or what was best before, and its error.

        Args:
            levels: ``r c k``, those of the candidates.
            candidates: Their numbers, each ``r c``.
            best: Those of the best before, each ``(r,)``.
            error: Its error, ``(r,)``.
        """
        least, index = self.squared_error(levels).min(1)
        better = least < error
        chosen = [numbers.gather(1, index[:, None])[:, 0] for numbers in candidates]
        found = [torch.where(better, new, old) for new, old in zip(chosen, best, strict=True)]
        return found, torch.where(better, least, error)

    def means(self, levels: Tensor) -> Tensor:
        """The mean of the values nearest to each level; the level itself where there are none.

        Args:
            levels: ``r k``, increasing.

        Returns:
            ``r k``.
        """
        halfway = ((levels[:, 1:] + levels[:, :-1]) / 2).to(self.values.dtype)
        cuts = torch.searchsorted(self.values, halfway.contiguous())
        first = torch.zeros_like(cuts[:, :1])
        cuts = torch.cat((first, cuts, torch.full_like(first, self.values.shape[1])), 1)
        counts = cuts.diff(dim=1)
        means = (self._sums.gather(1, cuts).diff(dim=1) / counts).to(levels.dtype)
        return torch.where(counts > 0, means, levels)


def sort(rows: Tensor) -> Tensor:
    """Sort along the last axis. On a CPU NumPy's vectorised sort is about ten times as fast as PyTorch's."""
    if rows.device.type == "cpu":
        return as_tensor(np.sort(rows.detach().numpy(), axis=-1))
    return rows.detach().sort(dim=-1).values


def subsample(rows: Tensor, samples: int) -> Tensor:
    """Every k-th value of long rows, so that at least ``samples`` are left; short rows (up to 11 times that) whole.

    k has no divisor up to 7 and none in common with n, hence none with the number of channels: otherwise only some
    channels of an activation would be looked at.

    Args:
        rows: ``r n``.
        samples: How many values are enough.
    """
    stride = rows.shape[1] // samples
    if stride < 11:
        return rows
    while math.gcd(stride, 2 * 3 * 5 * 7 * rows.shape[1]) > 1:
        stride -= 1
    return rows[:, ::stride]
