"""The ranges of activations, measured on the calibration patches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from srquant.images.calibration import Calibration
from srquant.methods.base import Method
from srquant.methods.pipeline.plan import Plan
from srquant.model.multiplications import flat
from srquant.model.observing import OPERANDS, Operand, observe, require_finite
from srquant.quantizers.numerics.sorted_values import subsample
from srquant.quantizers.ranges import MinMaxRange, OfChannels, Range
from srquant.support.progress import track

RangeOf = Callable[[int], Range]
"""The rule for the activation range of a target, by the number of bits."""
RangeOfOperand = Callable[[int, str], Range]
"""The same for one operand: by the number of bits, and the operator whose output it is (``Multiplication.origins``)."""
Observed = dict[tuple[str, Operand], dict[str, Tensor]]
"""Bounds, shape ``()``, by the multiplication's name and the operand."""


def observe_ranges(
    plan: Plan,
    calibration: Calibration,
    method: Method,
    range_of: RangeOf,
    outputs: Callable[[str, Tensor], None] | None = None,
    inputs: Callable[[str, Tensor], None] | None = None,
) -> Observed:
    """Run the calibration patches through the float network once, measure a range in every batch, and average.

    The first batch counts in full; later ones enter an average, moving or plain. Memory does not grow with the patches.

    Args:
        plan: The network and its targets.
        calibration: LR patches.
        method: Says how batches are averaged.
        range_of: The range to measure.
        outputs: Called with the name and the output of every target, batch by batch.
        inputs: The same for its input, or its left operand.
    """
    settings = method.observation
    ranges = {target.multiplication.name: range_of(target.activation_bits) for target in plan.targets}
    kinds = {target.multiplication.name: target.multiplication.kind for target in plan.targets}
    averages: Observed = {}
    seen: Counter[tuple[str, Operand]] = Counter()

    def look(name: str, operand: Operand, values: Tensor) -> None:
        if inputs is not None and operand == "left":
            inputs(name, values)
        rows = kinds[name].by_channel(values) if isinstance(ranges[name], OfChannels) else flat(values)
        measured = {bound: value[0] for bound, value in ranges[name](rows).items()}
        require_finite(name, measured.values())
        old = averages.get((name, operand), measured)
        weight = settings.weight_of_old(seen[name, operand])
        averages[name, operand] = {bound: torch.lerp(value, old[bound], weight) for bound, value in measured.items()}
        seen[name, operand] += 1

    batches = track(calibration.batches(settings.batch), "Calibrating", -(-len(calibration) // settings.batch))
    observe(plan.network, plan.names, batches, look, outputs)
    return averages


def observe_at_once(
    plan: Plan, calibration: Calibration, batch: int, range_of: RangeOfOperand, samples: int = 1 << 17
) -> Observed:
    """Run the calibration patches through the float network once, and measure each range on the values of all patches.

    The patches pass in batches. Of each batch both extremes of an operand and an even sample of its values are kept
    (all values, if all patches together have few), so that memory depends on the network, not on the patches: at most
    eleven times ``samples`` values for each operand, and less than twice where there are many to choose from.

    Args:
        plan: The network and its targets.
        calibration: LR patches.
        batch: How many pass together.
        range_of: The range to measure.
        samples: Values of an operand that are enough.
    """
    pieces: dict[tuple[str, Operand], list[Tensor]] = {}
    part = 0

    def look(name: str, operand: Operand, values: Tensor) -> None:
        row = flat(values)
        extremes = list(MinMaxRange()(row).values())
        require_finite(name, extremes)
        kept = subsample(row, max(samples * part // len(calibration), 1))
        ends = extremes if kept.shape[1] < row.shape[1] else []
        pieces.setdefault((name, operand), []).append(torch.cat((kept[0], *ends)))

    def batches() -> Iterator[Tensor]:
        nonlocal part
        for images in calibration.batches(batch):
            part = len(images)
            yield images

    observe(plan.network, plan.names, track(batches(), "Calibrating", -(-len(calibration) // batch)), look)
    observed: Observed = {}
    for target in plan.targets:
        for operand, origin in zip(OPERANDS, target.multiplication.origins, strict=False):
            rows = torch.cat(pieces.pop((target.multiplication.name, operand)))[None]
            bounds = range_of(target.activation_bits, origin)(rows)
            observed[target.multiplication.name, operand] = {name: value[0] for name, value in bounds.items()}
    return observed
