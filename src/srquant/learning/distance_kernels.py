"""The distance of features in few passes over memory, compiled by Numba."""

# pyright: basic

from __future__ import annotations

import numpy as np

from srquant.quantizers.numerics.kernels import Values, jit, jit_sums, share_out

_TINY = 1e-12


def lengths_and_distance(student: Values, teacher: Values) -> tuple[float, float, float]:
    """‖s‖, ‖t‖ and ‖s/‖s‖ − t/‖t‖‖ of two flat arrays."""
    parts = share_out(lambda part: _squares(student[part], teacher[part]), len(student))
    first, second = (float(value) ** 0.5 for value in np.sum(parts, axis=0))
    by = tuple(1 / max(length, _TINY) for length in (first, second))
    parts = share_out(lambda part: _residual(student[part], teacher[part], *by), len(student))
    return first, second, float(np.sum(parts)) ** 0.5


def combine(student: Values, teacher: Values, made: Values, a: float, b: float) -> None:
    """Write ``a·student + b·teacher``."""
    share_out(lambda part: _combine(student[part], teacher[part], made[part], a, b), len(student))


@jit_sums
def _squares(x, y):
    a = b = 0.0
    for i in range(len(x)):
        first, second = np.float64(x[i]), np.float64(y[i])
        a += first * first
        b += second * second
    return a, b


@jit_sums
def _residual(x, y, by_x, by_y):
    total = 0.0
    for i in range(len(x)):
        d = np.float64(x[i]) * by_x - np.float64(y[i]) * by_y
        total += d * d
    return total


@jit
def _combine(x, y, made, a, b):
    for i in range(len(x)):
        made[i] = x[i] * a + y[i] * b
