"""Numbers as a page shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from srquant.pages.contents import Cell

NOTHING = "–"
"""Where there is no number."""
_MINUS = "−"


def number(value: float | None, digits: int = 2) -> str:
    """With so many digits after the point; ∞ if it is infinite, a dash if there is none."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    return f"{value:,.{digits}f}".replace("-", _MINUS)


def change(value: float | None, digits: int = 2) -> str:
    """With its sign: −0.08, +0.02, ±0.00."""
    text = number(value, digits)
    if value is None or not math.isfinite(value) or text.startswith(_MINUS):
        return text.replace(f"{_MINUS}{0:.{digits}f}", f"±{0:.{digits}f}")
    return f"{'+' if float(text.replace(',', '')) else '±'}{text}"


def size(count: float | None) -> str:
    """Bytes, in the unit that suits them: 980 B, 209.7 kB, 4.21 MB; a dash if there are none."""
    if not count:
        return NOTHING
    if count < 1000:
        return f"{count:.0f} B"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:,.2f} MB"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours; a dash if there are none."""
    if not seconds:
        return NOTHING
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def difference(value: float | None, reference: float | None) -> float | None:
    """How much a score is above another; 0 of two infinite ones, None where one is missing or the only infinite one."""
    if value is None or reference is None or math.isnan(value) or math.isnan(reference):
        return None
    if value == reference:
        return 0.0
    return value - reference if math.isfinite(value - reference) else None


def finite(value: float | None) -> float | None:
    """A number that can be drawn, to seven digits; None for all others."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")


def score_cell(value: float | None, digits: int = 2, rank: int = 0) -> Cell:
    """A cell with a score."""
    return Cell(number(value, digits), None if value is None or math.isnan(value) else value, rank)


def change_cell(value: float | None, digits: int = 2) -> Cell:
    """A cell with what a score differs by."""
    return Cell(change(value, digits), value)


def ranks(values: Sequence[float | None], digits: int) -> list[int]:
    """1 for the best, 2 for the second best, as they are read: what rounds alike shares a rank. 0 for all others.

    Args:
        values: Large ones are good.
        digits: That are shown.
    """
    shown = [None if value is None or math.isnan(value) else round(value, digits) for value in values]
    best = sorted({value for value in shown if value is not None}, reverse=True)
    if sum(value is not None for value in shown) < 2:
        return [0] * len(shown)
    return [best.index(value) + 1 if value in best[:2] else 0 for value in shown]


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a sentence; of many the first."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else "none"
