"""What every quantizer is: integer codes and a decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from srquant.quantizers.granularity import Granularity, PerChannel, PerTensor
from srquant.quantizers.numerics import grid, integers, rounding
from srquant.support.errors import ArgumentError

NARROWEST = 1e-3
"""Two bounds are kept apart by this part of the larger."""

BITS = range(2, 9)
"""Bit widths that can be asked for."""


def check_bits(bits: int, name: str = "bits") -> None:
    """Refuse bit widths outside 2…8.

    Raises:
        ArgumentError: They are.
    """
    if bits not in BITS:
        raise ArgumentError(
            f"{name}={bits} is outside {BITS[0]}…{BITS[-1]}; fewer bits cannot be quantized to, "
            f"more gain nothing over 8"
        )


def check_grid(grid: integers.Grid) -> integers.Grid:
    """Refuse unknown grids.

    Raises:
        ArgumentError: It is not ``free`` or ``int8``.
    """
    if grid not in ("free", "int8"):
        raise ArgumentError(f"grid={grid!r} is not one of free, int8")
    return grid


class Quantizer(nn.Module):
    """Maps real values to at most 2^bits integer codes and codes to values, on a piecewise-affine grid.

    ``forward`` is decode ∘ codes with straight-through gradients; the bounds are parameters, so finetuning can learn
    them. A new quantizer is a new file in this folder: a subclass with a ``name``, parameters of shape ``()`` (per
    tensor) or ``(c,)`` (per channel, along ``axis``; levels have one axis more) unless it does its own computing, and
    the attributes and methods below. One that cannot have bounds per channel refuses them with an
    :class:`~srquant.support.errors.ArgumentError`.
    """

    name: ClassVar[str]
    """Name in files."""
    bits: int
    intervals: grid.Intervals
    """Intervals of each segment of the grid, between neighbouring levels; at most 2^bits - 1 in all."""
    grid: integers.Grid = "free"
    axis: int = 0
    """Of the values, along which bounds of shape ``(c,)`` lie."""
    follows_image: ClassVar[bool] = False
    """Whether its bits depend on the image that it quantizes for. Such a class is made with an ``images`` more, an
    :class:`~srquant.quantizers.image_factor.ImageFactor`; ``bits`` are then those of an image with the factor 0."""
    apart: ClassVar[str] = ""
    """The parameter by which channels differ that share all bounds, if there is one."""

    gridless: ClassVar[bool] = False
    """Whether its levels follow each image: then there is no grid to look at or to export."""

    @classmethod
    def require_common(cls, name: str, bound: Tensor, ndim: int) -> None:
        """Refuse bounds that channels have each of their own, where they differ by something else; see :attr:`apart`.

        Args:
            name: Of the bound.
            bound: What was given.
            ndim: How many axes it has where channels share it.

        Raises:
            ArgumentError: It has more.
        """
        if bound.ndim != ndim:
            raise ArgumentError(
                f"{name} of shape {tuple(bound.shape)}: {cls.name} quantizers have one grid for all channels, which "
                f"differ by {cls.apart}; give {name} for the whole tensor"
            )

    def knots(self) -> Tensor:
        """Increasing knots of the grid, ``(m + 1,)`` or ``(c, m + 1)``, differentiable in the bounds."""
        raise NotImplementedError(f"{type(self).__name__} lacks knots()")

    def constrain(self) -> None:
        """Put bounds that learning has moved too far back in order, in place; called without gradients."""
        raise NotImplementedError(f"{type(self).__name__} lacks constrain()")

    def centred(self, x: Tensor) -> Tensor:
        """Values as they are compared with the knots."""
        return x

    def arguments(self) -> dict[str, Any]:
        """What :meth:`__init__` takes besides the bounds, as JSON values."""
        other = {"grid": self.grid} if self.grid != "free" else {}
        return {"bits": self.bits} | ({"axis": self.axis} if self.axis else {}) | other

    @property
    def granularity(self) -> Granularity:
        """Which values share their bounds."""
        return PerChannel(self.axis) if self.knots().ndim == 2 else PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """Values of the nearest levels; shape, dtype and memory format of ``x``."""
        knots = self.knots()
        return self._along_axis(x, lambda moved, intervals: rounding.quantize(moved, knots, intervals))

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes in [0, 2^bits), int16."""
        return self._along_axis(x, lambda moved, intervals: grid.grid_codes(moved, self.knots(), intervals))

    def decode(self, codes: Tensor) -> Tensor:
        """Values of integer codes, float32."""
        knots = self.knots().detach()
        return self._along_axis(codes, lambda moved, intervals: grid.grid_values(moved, knots, intervals))

    def levels(self) -> Tensor:
        """All values it can give, increasing: ``(k,)`` or ``(c, k)``."""
        knots = self.knots().detach()
        codes = torch.arange(1 + sum(self.intervals), device=knots.device)
        return grid.grid_values(codes.expand(*knots.shape[:-1], -1), knots, self.intervals)

    def integer_grid(self) -> integers.IntegerGrid | None:
        """The integers its levels are multiples of, or None if they are not."""
        found = integers.integer_grid(self.knots(), self.intervals)
        return found if found is None else replace(found, axis=self.axis)

    def finished(self) -> Quantizer:
        """The same with nothing left to learn but its bounds; itself where there is nothing else."""
        return self

    def _along_axis(self, x: Tensor, work: Callable[[Tensor, grid.Intervals], Tensor]) -> Tensor:
        """Do a work that takes channels along axis 0, and the intervals of each segment."""
        if not self.axis:
            return work(x, self.intervals)
        return work(x.movedim(self.axis, 0), self.intervals).movedim(0, self.axis)

    def extra_repr(self) -> str:
        bounds = ", ".join(f"{name}={_shown(value)}" for name, value in self.named_parameters())
        return f"bits={self.bits}, {bounds}"


def _shown(value: Tensor) -> str:
    if value.ndim == 0:
        return f"{float(value):.4g}"
    return f"{float(value.min()):.4g}…{float(value.max()):.4g} ({len(value)} channels)"
