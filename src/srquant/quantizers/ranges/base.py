"""What a range is: a rule that looks at values and says where a quantizer's bounds shall lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Bounds = Mapping[str, Tensor]
"""Bounds by name (``lower``, ``upper``, ``breakpoint``), each of shape ``(r,)``: one per row."""


class OfChannels:
    """Marks a rule that takes the channels of an activation as rows, and gives one set of bounds for all of them."""


Range = Callable[[Tensor], Bounds]
"""A rule for bounds: of ``r n`` values, one row for a whole tensor, a row for each channel otherwise."""
