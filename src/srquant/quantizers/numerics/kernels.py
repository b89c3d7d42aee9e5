"""Non-uniform levels, and the gradients of all grids, compiled by Numba where that is installed.

Tensor operations search anew for the levels around each value, which makes a step of finetuning twice as long. The
values of piecewise grids take them few passes, and have no compiled form. Values agree to the bit with those of
:class:`~srquant.quantizers.numerics.grid.LevelGrid`; sums agree up to the order of their terms.

It is imported by name (:mod:`srquant.support.compiled`) when it is first needed: compiling, or reading what was
compiled before, takes a moment.
"""

# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

_BLOCK = 4096
"""Values that are summed in float32; sums of blocks are summed in float64."""
_PART = 64 * _BLOCK
"""Values of a part of the work: worth a thread's while."""
_HALVES = 1 << 16
"""Upper halves of float32 numbers."""
_ORDER = np.concatenate((np.arange(_HALVES // 2, _HALVES), np.arange(_HALVES // 2)[::-1]))
"""The rank of each among all of them."""

Values = NDArray[np.float32]

jit = numba.njit(cache=True, nogil=True, error_model="numpy")
# Sums may be taken in another order, which is what makes them vector code.
jit_sums = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})


def nearest(x: Values, made: Values, levels: Values, halfway: Values) -> None:
    """Write the nearest of some increasing levels for every value, the lower one halfway.

    Args:
        x: Flat.
        made: Where to write.
        levels: At least two.
        halfway: Between each two of them.
    """
    halfway = halfway + np.float32(0)  # no −0, which is not below 0 although its bits are
    # Where to begin looking: after the levels that are too low for all values with the same upper half.
    here = np.bincount(_ORDER[halfway.view(np.uint32) >> 16], minlength=_HALVES)
    first = (np.cumsum(here) - here)[_ORDER].astype(np.int32)
    bits = x.view(np.uint32)
    share_out(lambda part: _nearest(x[part], bits[part], made[part], levels, halfway, first), len(x))


def gradients(x: Values, slope: Values, made: Values, levels: Values) -> NDArray[np.float64]:
    """Write ∂L/∂x and sum what ∂L/∂levels is made of.

    Args:
        x: Flat.
        slope: ∂L/∂x̂.
        made: Where to write ∂L/∂x.
        levels: At least two.

    Returns:
        Σ slope·(q − p) between each two levels; Σ slope below the lowest, and above the highest.
    """
    sizes = np.maximum(levels[1:] - levels[:-1], np.float32(1e-30))
    return np.sum(share_out(lambda part: _gradients(x[part], slope[part], made[part], levels, sizes), len(x)), axis=0)


def piecewise_gradients(x: Values, slope: Values, made: Values, knots: Values, layout: Values) -> NDArray[np.float64]:
    """As :func:`gradients`, of a grid of one to three segments.

    Args:
        x: Flat.
        slope: ∂L/∂x̂.
        made: Where to write ∂L/∂x.
        knots: Of the grid.
        layout: See :meth:`~srquant.quantizers.numerics.grid.PiecewiseGrid.layout`.
    """
    segments = len(knots) - 1
    inner = np.append(knots[1:-1], np.full(3 - segments, np.inf, np.float32))

    def work(part: slice) -> Any:
        return _piecewise_gradients(x[part], slope[part], made[part], knots, inner, layout, segments == 3)

    *beyond, below, above = np.sum(share_out(work, len(x)), axis=0)
    return np.array([*-np.diff([*beyond, 0.0])[:segments], below, above])


def share_out(work: Callable[[slice], Any], count: int) -> list[Any]:
    """Do the parts of a work in half as many threads as PyTorch uses; results in order.

    Parts have one size, whatever the number of threads, so that sums over them have the same terms in the same order.
    PyTorch's own threads go on spinning for a while after each of its operations.
    """
    parts = [slice(start, start + _PART) for start in range(0, count, _PART)]
    threads = min(torch.get_num_threads() // 2, len(parts))
    return [work(part) for part in parts] if threads < 2 else list(_pool(threads).map(work, parts))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "quantize")


@jit
def _nearest(x, bits, made, levels, halfway, first):
    for i in range(len(x)):
        k = first[bits[i] >> 16]
        while k < len(halfway) and x[i] > halfway[k]:
            k += 1
        made[i] = x[i] if np.isnan(x[i]) else levels[k]


@jit
def _gradients(x, slope, made, levels, sizes):
    by_segment, outside = np.zeros((4, len(sizes))), np.zeros(2)
    segment, error = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.float32)
    for start in range(0, len(x), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(x)))
        below, above = _pass_inside(x[part], slope[part], made[part], levels)
        outside[0] += below
        outside[1] += above
        _segments_and_errors(x[part], levels, sizes, segment, error)
        for i in range(part.stop - start):  # in turns into four rows: a sum need not wait for the one before
            by_segment[i % 4, segment[i]] += slope[start + i] * error[i]
    return np.concatenate((by_segment.sum(0), outside))


@jit_sums
def _pass_inside(x, slope, made, levels):
    """Write the slopes of values inside the grid, else 0; the sums of those below and above."""
    low, high = levels[0], levels[-1]
    below = above = zero = np.float32(0)
    for i in range(len(x)):
        made[i] = slope[i] if x[i] >= low and x[i] <= high else zero
        below += slope[i] if x[i] < low else zero
        above += slope[i] if x[i] > high else zero
    return below, above


@jit
def _segments_and_errors(x, levels, sizes, segment, error):
    """The segment in which each value lies, and q − p there."""
    segment[:] = 0
    for k in range(1, len(sizes)):
        edge = levels[k]
        for i in range(len(x)):
            segment[i] += np.uint32(x[i] > edge)
    for i in range(len(x)):
        p = (x[i] - levels[segment[i]]) / sizes[segment[i]]
        p = min(max(p, np.float32(0)), np.float32(1))
        error[i] = np.float32(p > 0.5) - p


@jit
def _piecewise_gradients(x, slope, made, knots, inner, layout, three):
    sums = np.zeros(5)
    for start in range(0, len(x), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(x)))
        beyond = _pulls_beyond(x[part], slope[part], inner, layout, three)
        outside = _pass_inside(x[part], slope[part], made[part], knots)
        for i in range(3):
            sums[i] += beyond[i]
        for i in range(2):
            sums[3 + i] += outside[i]
    return sums


@jit_sums
def _pulls_beyond(x, slope, inner, layout, three):
    """Σ slope·(q − p) of all values, of those beyond the first inner knot, and beyond the second."""
    origin, per_unit, start, bend, other_bend = layout[0], layout[1], layout[2], layout[3], layout[4]
    middle, low, high, sign = layout[5], layout[6], layout[7], layout[8]
    total = first = second = zero = np.float32(0)
    for i in range(len(x)):
        t = _leaky((x[i] - origin) * per_unit + start, bend)
        if three:
            t = _leaky(middle - t, other_bend)
        t = min(max(t, low), high)
        pull = slope[i] * sign * (np.rint(t) - t)
        total += pull
        first += pull if x[i] > inner[0] else zero
        second += pull if x[i] > inner[1] else zero
    return total, first, second


@jit
def _leaky(t, slope):
    return t * slope if t < 0 else t
