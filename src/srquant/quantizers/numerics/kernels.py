"""Staircases in few passes over memory, compiled by Numba where that is installed.

Written with ordinary tensor operations, a three-segment grid takes about 10 passes over the data, its gradients 20.
Here a value is loaded once. Arithmetic and order of operations are the same, so codes and values agree to the bit;
sums agree up to the order of their terms.

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
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

_BLOCK = 4096
"""Values that are summed in float32; sums of blocks are summed in float64."""
_WORTH_A_TABLE = 1 << 18
"""Values that are worth a table of what becomes of all numbers that bfloat16 has."""
_BFLOAT16 = np.arange(1 << 16, dtype=np.uint16)
_ORDER = np.where(
    _BFLOAT16 < 1 << 15, (1 << 15) + _BFLOAT16.astype(np.int64), (1 << 16) - 1 - _BFLOAT16.astype(np.int64)
)
"""The place of each among all of them, by size."""
_SHARE = 1 << 18
"""Values that are worth a thread of their own."""

Values = NDArray[np.float32] | NDArray[np.uint16]
"""float32, or bfloat16 seen as uint16."""

jit = numba.njit(cache=True, nogil=True, error_model="numpy")
# Sums may be taken in another order, which is what makes them vector code.
jit_sums = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})


def staircase(x: Values, made: Values, grid: NDArray[np.float32], steps: tuple[int, ...], falling: bool) -> None:
    """Write the nearest level of every value.

    Args:
        x: Flat.
        made: Where to write; of the same shape and dtype.
        grid: Origin, size and bends; see ``grid.PiecewiseGrid``.
        steps: Of each segment.
        falling: Whether positions fall where values rise.
    """
    wide = _three(grid, steps, falling)
    share_out(lambda part: _staircase(x[part], made[part], wide, len(steps) == 3), len(x))


def gradients(
    x: Values,
    slope: Values,
    made: Values,
    grid: NDArray[np.float32],
    knots: NDArray[np.float32],
    steps: tuple[int, ...],
    falling: bool,
) -> NDArray[np.float64]:
    """Write ∂L/∂x and sum what ∂L/∂knots is made of.

    Args:
        x: Flat.
        slope: ∂L/∂x̂, as ``x``.
        made: Where to write ∂L/∂x.
        grid: See :func:`staircase`.
        knots: Of the grid.
        steps: Of each segment.
        falling: See :func:`staircase`.

    Returns:
        Σ slope below the grid and above it; Σ slope·(q − p) in all, beyond the first and beyond the second inner knot.
    """
    wide = _three(grid, steps, falling)
    edges = np.array([knots[0], knots[-1], knots[1], knots[min(2, len(knots) - 1)]], np.float32)
    parts = share_out(lambda part: _gradients(x[part], slope[part], made[part], wide, edges, len(steps) == 3), len(x))
    return np.sum(parts, axis=0)


def pass_inside(x: Values, slope: Values, made: Values, low: float, high: float) -> None:
    """Write the slope where ``low ≤ x ≤ high``, else 0: ∂L/∂x alone, see :func:`gradients`."""
    edges = np.array([low, high], np.float32)
    share_out(lambda part: _pass_inside(x[part], slope[part], made[part], edges), len(x))


def nearest(x: Values, made: Values, levels: NDArray[np.float32]) -> None:
    """Write the nearest of some increasing levels for every value, the lower one halfway."""
    halfway = (levels[1:] + levels[:-1]) / np.float32(2)
    halfway += np.float32(0)  # no −0, which is not below 0 although its bits are
    # Where to begin looking: after the levels that are too low for all values with the same upper 16 bits.
    here = np.bincount(_ORDER[halfway.view(np.uint32) >> 16], minlength=len(_ORDER))
    first = (np.cumsum(here) - here)[_ORDER].astype(np.int32)
    if x.dtype == np.uint16 and len(x) >= _WORTH_A_TABLE:
        table = np.empty(len(_BFLOAT16), np.uint16)
        _nearest(_BFLOAT16, table, levels, halfway, first)
        share_out(lambda part: _look_up(x[part], made[part], table), len(x))
    else:
        share_out(lambda part: _nearest(x[part], made[part], levels, halfway, first), len(x))


def nearest_gradients(x: Values, slope: Values, made: Values, levels: NDArray[np.float32]) -> NDArray[np.float64]:
    """As :func:`gradients`, of a grid whose knots are all levels.

    Returns:
        Σ slope below the grid and above it; Σ slope·(q − p) beyond each level but the last.
    """
    edges = np.array([levels[0], levels[-1]])
    if x.dtype == np.uint16 and len(x) >= _WORTH_A_TABLE:
        segments, errors = np.empty(len(_BFLOAT16), np.uint8), np.empty(len(_BFLOAT16), np.float32)
        _segments_and_errors(_BFLOAT16, levels, segments, errors)
        parts = share_out(
            lambda part: _gradients_by_table(x[part], slope[part], made[part], edges, segments, errors), len(x)
        )
    else:
        parts = share_out(lambda part: _nearest_gradients(x[part], slope[part], made[part], edges, levels), len(x))
    outside, by_segment = (np.sum(found, axis=0) for found in zip(*parts, strict=True))
    beyond = np.cumsum(by_segment[: len(levels) - 1][::-1])[::-1]
    return np.concatenate((outside, beyond))


def _three(grid: NDArray[np.float32], steps: tuple[int, ...], falling: bool) -> NDArray[np.float32]:
    """What the compiled code wants to know; one segment is two of equal slope."""
    one = np.float32(1)
    origin, size, *bends = grid
    first, second = (*bends, one, one)[:2]
    below, above = np.float32(sum(steps[:-1])), np.float32(steps[-1])
    low, high = (-above, below) if falling else (-below, above)
    middle = np.float32(steps[1] if len(steps) == 3 else 0)
    sign = -one if falling else one
    bends = [one / first, first, one / second, second]
    return np.array([origin, one / size, size, *bends, low, high, middle, sign], np.float32)


def share_out(work: Callable[[slice], Any], count: int) -> list[Any]:
    """Do the parts of a work in half as many threads as PyTorch uses; results in order.

    PyTorch's own threads go on spinning for a while after each of its operations.
    """
    threads = max(1, min(torch.get_num_threads() // 2, count // _SHARE))
    step = -(-count // threads // _BLOCK) * _BLOCK
    parts = [slice(start, start + step) for start in range(0, count, step)]
    return [work(part) for part in parts] if len(parts) == 1 else list(_pool(threads).map(work, parts))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "quantize")


# Reading and writing: float32 as it is, bfloat16 as the upper half of a float32. The compiler takes the definition that
# fits the array.


@intrinsic
def _float_of(_context, bits):
    """The float32 of 32 bits."""

    def code(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), code


@intrinsic
def _bits_of(_context, value):
    """The 32 bits of a float32."""

    def code(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), code


def read(x, i):
    """A value as float32; of bfloat16 its bits are given."""
    raise NotImplementedError


def write(x, i, value):
    """Write a float32 as the array's own kind of number."""
    raise NotImplementedError


@overload(read, inline="always")
def _read_compiled(x, i):
    if x.dtype == types.uint16:
        return lambda x, i: _float_of(np.uint32(np.uint32(x[i]) << np.uint32(16)))  # pyright: ignore[reportCallIssue]
    return lambda x, i: x[i]


@overload(write)
def _write_compiled(x, i, value):
    if x.dtype == types.uint16:

        def write(x, i, value):
            """Nearest bfloat16, ties to even; NaN stays NaN."""
            bits = _bits_of(np.float32(value))  # pyright: ignore[reportCallIssue]
            odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
            rounded = np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd)
            x[i] = np.uint16(0x7FC0) if np.isnan(value) else np.uint16(rounded >> np.uint32(16))

        return write

    def keep(x, i, value):
        x[i] = value

    return keep


@jit
def _leaky(t, slope):
    return t * slope if t < 0 else t


@jit
def _position(x, g, three):
    """Where a value lies, in steps, clamped."""
    t = _leaky((x - g[0]) * g[1], g[3])
    if three:
        t = _leaky(g[9] - t, g[5])
    t = g[7] if t < g[7] else t
    return g[8] if t > g[8] else t


@jit
def _value(t, g, three):
    """The level of a rounded position."""
    if three:
        t = g[9] - _leaky(t, g[6])
    return _leaky(t, g[4]) * g[2] + g[0]


@jit
def _staircase(x, made, g, three):
    if three:
        for i in range(len(x)):
            write(made, i, _value(np.rint(_position(read(x, i), g, True)), g, True))
    else:
        for i in range(len(x)):
            write(made, i, _value(np.rint(_position(read(x, i), g, False)), g, False))


@jit
def _pass_inside(x, slope, made, edges):
    for i in range(len(x)):
        value = read(x, i)
        made[i] = slope[i] if value >= edges[0] and value <= edges[1] else slope.dtype.type(0)


@jit_sums
def _sums_of_block(x, slope, g, edges, three):
    below = above = total = first = second = zero = np.float32(0)
    for i in range(len(x)):
        value, push = read(x, i), read(slope, i)
        p = _position(value, g, three)
        q = np.rint(p)
        pull = push * g[10] * (q - p)
        below += push if value < edges[0] else zero
        above += push if value > edges[1] else zero
        total += pull
        first += pull if value > edges[2] else zero
        second += pull if value > edges[3] else zero
    return below, above, total, first, second


@jit
def _gradients(x, slope, made, g, edges, three):
    sums = np.zeros(5)
    for start in range(0, len(x), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(x)))
        _pass_inside(x[part], slope[part], made[part], edges)
        for i, value in enumerate(_sums_of_block(x[part], slope[part], g, edges, three)):
            sums[i] += value
    return sums


@jit
def _count_below(value, edges, count):
    """How many of some increasing edges are below each value."""
    count[:] = 0
    for k in range(len(edges)):
        edge = edges[k]
        for i in range(len(value)):
            count[i] += np.uint32(value[i] > edge)


@jit
def _look_up(x, made, table):
    for i in range(len(x)):
        made[i] = table[x[i]]


@jit
def _nearest(x, made, levels, halfway, first):
    for i in range(len(x)):
        value = read(x, i)
        if np.isnan(value):
            write(made, i, value)
            continue
        k = first[np.uint32(_bits_of(value) >> np.uint32(16))]  # pyright: ignore[reportCallIssue]
        while k < len(halfway) and value > halfway[k]:
            k += 1
        write(made, i, levels[k])


@jit_sums
def _sums_outside(slope, x, low, high):
    below = above = zero = np.float32(0)
    for i in range(len(x)):
        value, push = read(x, i), read(slope, i)
        below += push if value < low else zero
        above += push if value > high else zero
    return below, above


@jit
def _segments_and_errors(x, levels, segments, errors):
    """The segment in which each value lies, and q − p there."""
    last = len(levels) - 1
    widths = np.maximum(levels[1:] - levels[:-1], np.float32(1e-30))
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    values, counts = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.uint32)
    lows, steps = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for start in range(0, len(x), _BLOCK):
        n = min(_BLOCK, len(x) - start)
        value, count, low, step = values[:n], counts[:n], lows[:n], steps[:n]
        for i in range(n):
            value[i] = read(x, start + i)
        _count_below(value, levels[1:last], count)
        for i in range(n):
            low[i], step[i], segments[start + i] = levels[count[i]], widths[count[i]], count[i]
        for i in range(n):
            p = (value[i] - low[i]) / step[i]
            p = zero if p < zero else p
            p = one if p > one else p
            errors[start + i] = (one if p > half else zero) - p


@jit
def _add_block(x, slope, made, edges, segment, error, outside, by_segment):
    _pass_inside(x, slope, made, edges)
    below, above = _sums_outside(slope, x, edges[0], edges[1])
    outside[0] += below
    outside[1] += above
    for i in range(len(x)):  # in turns into four rows: a sum need not wait for the one before
        by_segment[i % 4, segment[i]] += read(slope, i) * error[i]


@jit
def _nearest_gradients(x, slope, made, edges, levels):
    """Σ slope below and above, and Σ slope·(q − p) of each segment."""
    outside, by_segment = np.zeros(2), np.zeros((4, 256))
    segment, error = np.empty(_BLOCK, np.uint8), np.empty(_BLOCK, np.float32)
    for start in range(0, len(x), _BLOCK):
        n = min(_BLOCK, len(x) - start)
        part = slice(start, start + n)
        _segments_and_errors(x[part], levels, segment[:n], error[:n])
        _add_block(x[part], slope[part], made[part], edges, segment[:n], error[:n], outside, by_segment)
    return outside, by_segment.sum(0)


@jit
def _gradients_by_table(x, slope, made, edges, segments, errors):
    """As :func:`_nearest_gradients`, of bfloat16 values whose segments and errors are known."""
    outside, by_segment = np.zeros(2), np.zeros((4, 256))
    segment, error = np.empty(_BLOCK, np.uint8), np.empty(_BLOCK, np.float32)
    for start in range(0, len(x), _BLOCK):
        n = min(_BLOCK, len(x) - start)
        part = slice(start, start + n)
        for i in range(n):
            segment[i], error[i] = segments[x[start + i]], errors[x[start + i]]
        _add_block(x[part], slope[part], made[part], edges, segment[:n], error[:n], outside, by_segment)
    return outside, by_segment.sum(0)


# Near each other, the normalised features all but cancel: float64 throughout.
