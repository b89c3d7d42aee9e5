"""How much the ranges of activations vary from batch to batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from srquant.images.calibration import Calibration
from srquant.methods.pipeline.observe import Observed
from srquant.methods.pipeline.plan import Plan
from srquant.model.multiplications import flat
from srquant.model.observing import Operand, observe, require_finite
from srquant.quantizers.ranges import PercentileRange


@dataclass(frozen=True)
class Variation:
    """What the float network's activations are over some batches.

    Args:
        first: Percentiles of the first batch.
        variances: Of each convolution's input: over batches, the variance of its maximum plus that of its minimum.
        means: Of each convolution's input: over pixels, of each image and channel, ``n c``.
    """

    first: Observed
    variances: dict[str, float]
    means: dict[str, Tensor]

    @classmethod
    def of(cls, plan: Plan, patches: Calibration, batch: int, quantile: float) -> Variation:
        """Measured in one pass over the patches.

        Args:
            plan: The network and its targets.
            patches: LR images.
            batch: How many pass together.
            quantile: Where bounds of the first batch lie; see :class:`~srquant.quantizers.ranges.PercentileRange`.
        """
        convolutions = {
            target.multiplication.name for target in plan.targets if target.multiplication.kind.role == "convolution"
        }
        first: Observed = {}
        ends: dict[str, list[Tensor]] = {name: [] for name in convolutions}
        means: dict[str, list[Tensor]] = {name: [] for name in convolutions}

        def look(name: str, operand: Operand, values: Tensor) -> None:
            extremes = values.aminmax()
            require_finite(name, extremes)
            if (name, operand) not in first:
                found = PercentileRange(quantile)(flat(values))
                first[name, operand] = {bound: value[0].clone() for bound, value in found.items()}
            if name in convolutions:
                ends[name].append(torch.stack(extremes).double())
                means[name].append(values.float().mean((2, 3)))

        observe(plan.network, plan.names, patches.batches(batch), look)
        variances = {name: float(torch.stack(rows).var(0, correction=0).sum()) for name, rows in ends.items()}
        ordered = [name for name in plan.names if name in convolutions]
        return cls(
            first,
            {name: variances[name] for name in ordered},
            {name: torch.cat(means[name]).clone() for name in ordered},
        )

    def most(self, part: float) -> list[str]:
        """The names of that part of the convolutions, rounded up, whose ranges vary most; the most first."""
        ranked = sorted(self.variances, key=lambda name: -self.variances[name])
        return ranked[: math.ceil(part * len(ranked))]
