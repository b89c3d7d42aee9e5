"""What quantizers have in common whose grid lies around a centre of each channel."""

from __future__ import annotations

from torch import Tensor, nn

from srquant.quantizers.base import Quantizer


class Shifted(Quantizer):
    """What is put before another quantizer: every channel is moved by a number of its own, and moved back afterwards.

    What moves back, ``weight ∗ shift``, depends on the image's border only, so that an integer engine can add it up
    beforehand. Zero padding stays zero: it comes after.

    The parameter ``shift`` has the shape in which it is subtracted: ``(c, 1, 1)`` from ``n c h w``, ``(c,)`` from
    ``… c``, or ``()``.
    """

    apart = "shift"
    shift: nn.Parameter

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
