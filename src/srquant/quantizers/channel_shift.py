"""What quantizers have in common whose grid lies around a centre of each channel."""

from __future__ import annotations

from torch import Tensor, nn

from srquant.quantizers.base import Quantizer
from srquant.support.errors import ArgumentError


class Shifted(Quantizer):
    """What is put before another quantizer: every channel is moved by a number of its own, and moved back afterwards.

    What moves back, ``weight ∗ shift``, depends on the image's border only, so that an integer engine can add it up
    beforehand. Zero padding stays zero: it comes after.

    The parameter ``shift`` has the shape in which it is subtracted: ``(c, 1, 1)`` from ``n c h w``, ``(c,)`` from
    ``… c``, or ``()``.
    """

    shift: nn.Parameter

    @classmethod
    def require_common(cls, name: str, bound: Tensor, ndim: int) -> None:
        """Refuse bounds that channels have each of their own: that is what the shift is for.

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
                f"differ by shift; give {name} for the whole tensor"
            )

    def centred(self, x: Tensor) -> Tensor:
        return x - self.shift.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.centred(x)) + self.shift.to(x.dtype)

    def codes(self, x: Tensor) -> Tensor:
        return super().codes(self.centred(x).detach())

    def decode(self, codes: Tensor) -> Tensor:
        return super().decode(codes) + self.shift.detach()

    def levels(self) -> Tensor:
        shift = self.shift.detach()
        return super().levels() + (shift.reshape(-1, 1) if shift.ndim else shift)

    def integer_grid(self) -> None:
        """None: shifts are not integers."""
