"""What a range is: a rule that looks at values and says where a quantizer's bounds shall lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

Bounds = Mapping[str, Tensor]
"""Bounds by name (``lower``, ``upper``, ``breakpoint``), each of shape ``(r,)``: one per row."""


class OfChannels:
    """Marks a rule that takes the channels of an activation as rows, and gives one set of bounds for all of them."""


class Range(Protocol):
    """A rule for bounds.

    Takes ``r n`` values: one row for a whole tensor, a row for each channel otherwise.
    """

    def __call__(self, rows: Tensor, /) -> Bounds:
        """The bounds of each row."""
        ...
