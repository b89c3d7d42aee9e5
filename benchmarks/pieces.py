"""The pieces that simulated inference and calibration are made of: python -m benchmarks.pieces.

Prints a Markdown table. The two ways of each row alternate in one process, but for the last row, which is a setting of
the process.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import alternate, markdown, median_ratio
from srquant.learning.feature_distance import normalised_distance
from srquant.quantizers.numerics import rounding
from srquant.quantizers.numerics.grid import Intervals, grid_levels
from srquant.quantizers.numerics.rounding import quantize
from srquant.quantizers.numerics.sorted_values import SortedValues
from srquant.quantizers.ranges import quantile
from srquant.support import compiled
from srquant.support.memory import keep_freed_memory
from srquant.support.tensors import channels_last

KNOTS, INTERVALS = torch.tensor([-6.0, -1.0, 1.0, 5.0]), (4, 7, 4)
LEVELS = torch.linspace(-1.6, 1.6, 256) ** 3

FORWARD = """
import sys, time, torch
from srquant.support.memory import keep_freed_memory
from srquant.model import Model
from srquant.networks.edsr import EDSR, EDSRConfig
if sys.argv[1] == "kept":
    keep_freed_memory()
model = Model(EDSR(EDSRConfig()).eval().to(memory_format=torch.channels_last), "")
images = torch.rand(16, 3, 80, 80)
seconds = []
for _ in range(4):
    start = time.perf_counter()
    model(images)
    seconds.append(time.perf_counter() - start)
print(min(seconds[1:]))
"""


def by_segments(x: Tensor) -> Tensor:
    """The piecewise-linear quantizer as one would write it: each segment quantized, the right one picked."""
    result = torch.zeros_like(x)
    for i, count in enumerate(INTERVALS):
        a, b = KNOTS[i], KNOTS[i + 1]
        value = ((x.clamp(a, b) - a) / (b - a) * count).round() * (b - a) / count + a
        result = torch.where((x >= a) & (x < b) if i < 2 else x >= a, value, result)
    return torch.where(x < KNOTS[0], KNOTS[0], result)


def without(work: Callable[[], object], where: object, name: str, value: object) -> Callable[[], object]:
    """The work as it goes with an attribute replaced."""

    def run() -> object:
        kept = getattr(where, name)
        setattr(where, name, value)
        try:
            return work()
        finally:
            setattr(where, name, kept)

    return run


def uncompiled(work: Callable[[], object]) -> Callable[[], object]:
    """The work with tensor operations."""
    return without(work, compiled, "_load", lambda kernels: None)


def learn_quantizer(
    x: Tensor, slope: Tensor, knots: Tensor = KNOTS, intervals: Intervals = INTERVALS
) -> Callable[[], None]:
    knots = knots.clone().requires_grad_()
    return lambda: quantize(x, knots, intervals).backward(slope)


def learn_features(student: Tensor, teacher: Tensor) -> Callable[[], None]:
    return lambda: normalised_distance(student, teacher).sum().backward()


def compare(title: str, slow: object, fast: object) -> tuple[str, ...]:
    seconds = alternate({"slow": slow, "fast": fast})  # type: ignore[dict-item]
    medians = [f"{1e3 * statistics.median(seconds[name]):.2f}" for name in ("slow", "fast")]
    return (title, *medians, f"{median_ratio(seconds, 'slow', 'fast'):.1f}")


def main() -> None:
    keep_freed_memory()
    small = torch.randn(1, 64, 192, 192)
    large = torch.randn(1, 64, 768, 768).contiguous(memory_format=torch.channels_last)
    layer, image = nn.Conv2d(64, 64, 3, padding=1), torch.randn(1, 64, 90, 160)
    last, image_last = channels_last(nn.Conv2d(64, 64, 3, padding=1)), image.to(memory_format=torch.channels_last)
    flat = torch.randn(1, 16 * 64 * 80 * 80)
    rank = int(0.99 * flat.numel())
    values = torch.randn(1, 1 << 18)
    ordered = SortedValues(values)
    bounds = torch.linspace(1, 4, 100)
    levels = grid_levels(torch.stack((-bounds, bounds), -1), (15,))
    with torch.inference_mode():
        rows = [
            compare(
                "piecewise-linear quantizer, 2.4 M values: by segments, by bends, in place",
                lambda: by_segments(small),
                lambda: quantize(small, KNOTS, INTERVALS),
            ),
            compare(
                "the same on 37.7 M values: at once, in pieces",
                without(lambda: quantize(large, KNOTS, INTERVALS), rounding, "_PIECE", 1 << 62),
                lambda: quantize(large, KNOTS, INTERVALS),
            ),
            compare(
                "64-channel 3×3 convolution at 160×90: contiguous, channels last",
                lambda: layer(image),
                lambda: last(image_last),
            ),
            compare(
                "99th percentile of 6.6 M values: kthvalue, tail only",
                lambda: flat[0].kthvalue(rank),
                lambda: quantile(flat, 0.99),
            ),
            compare(
                "squared error of 100 4-bit grids on 262,144 values: a pass each, prefix sums",
                lambda: [(quantize(values, torch.stack((-b, b)), (15,)) - values).square().sum() for b in bounds],
                lambda: ordered.squared_error(levels[None]),
            ),
            compare(
                "sorting these values: torch, NumPy (with its prefix sums)",
                values.sort,
                lambda: SortedValues(values),
            ),
        ]
    half = small.bfloat16()
    for name, x in (("float32", small), ("bfloat16", half)):
        learning, comparing = learn_quantizer(x, x.flip(1)), learn_features(x.clone().requires_grad_(), x.flip(1))
        few = learn_quantizer(x, x.flip(1), LEVELS[7::16], (1,) * 15)
        rows += [
            compare(
                f"quantizing and the gradient of its bounds, 2.4 M values, {name}: tensor operations, compiled",
                uncompiled(learning),
                learning,
            ),
            compare(
                f"16 non-uniform levels and the gradient of each, {name}: tensor operations, compiled",
                uncompiled(few),
                few,
            ),
            compare(
                f"256 non-uniform levels, 2.4 M values, {name}: tensor operations, compiled",
                uncompiled(lambda x=x: quantize(x, LEVELS, (1,) * 255)),
                lambda x=x: quantize(x, LEVELS, (1,) * 255),
            ),
            compare(
                f"distance of normalised features and its gradient, {name}: tensor operations, compiled",
                uncompiled(comparing),
                comparing,
            ),
        ]
    runs = {
        name: [
            float(
                subprocess.run([sys.executable, "-c", FORWARD, name], check=True, capture_output=True, text=True).stdout
            )
            for _ in range(3)
        ]
        for name in ("given back", "kept")
    }
    before, after = (1e3 * statistics.median(runs[name]) for name in ("given back", "kept"))
    rows.append(
        (
            "float EDSR-baseline, 16 patches of 80×80: freed memory given back, kept",
            f"{before:.0f}",
            f"{after:.0f}",
            f"{before / after:.1f}",
        )
    )
    print(markdown(("what: one way, the other", "one (ms)", "other (ms)", "ratio"), rows))


if __name__ == "__main__":
    main()
