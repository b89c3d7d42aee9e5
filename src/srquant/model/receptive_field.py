"""How far a network sees: said by those that describe themselves, measured for all others."""

from __future__ import annotations

import torch
from torch import Tensor

from srquant.model.swapping import without_activation_quantizers
from srquant.networks.base import SRNetwork
from srquant.networks.undescribed import UndescribedNetwork
from srquant.support.errors import SrquantError

LARGEST = 128
"""Pixels in one direction up to which is looked; tiles that overlap by more cost too much."""
_SAME = 1e-4
"""Of the output's standard deviation: what sums in another order may change."""
_ACROSS = 16
"""Pixels, at least, of an image's shorter side."""


def receptive_field(network: SRNetwork) -> int | None:
    """How many pixels of the input, in each direction, can change an output pixel.

    Of a network that does not describe itself it is measured: of an image, 257 pixels long and a few wide, one pixel
    over the whole width is no number, and what comes out as no number has seen it; once along each side. As a number's
    way may be lost (in a comparison), the same is done with another colour instead. Of a network whose tiles lie on
    multiples of an alignment, that many pixels are changed, and only those beyond them count. At last as many pixels
    are cut off, and what lies beyond the field must stay as it was.

    Args:
        network: Float or quantized; it is measured without its quantizers of activations.

    Returns:
        None where more than 128 pixels away are seen, or all, as with the mean of an image; where it matters at which
        pixel an image begins, as with windows; and where a network cannot be measured.
    """
    if not isinstance(network, UndescribedNetwork):
        return network.receptive_field
    # On the CPU, where no convolution is computed in blocks of pixels that would share what is no number.
    bare = without_activation_quantizers(network).to("cpu")
    found = 0
    for axis in (-1, -2):
        try:
            with torch.inference_mode():
                reach = _reach(bare, axis)
        except SrquantError:  # of a network that does not run on such images
            return None
        if reach is None:
            return None
        found = max(found, reach)
    return found


def _reach(network: SRNetwork, axis: int) -> int | None:
    step = network.alignment
    margin = LARGEST + step + -LARGEST % step
    across = _ACROSS + -_ACROSS % step
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, across, 2 * margin + step, generator=generator) * network.value_range
    if axis == -2:
        images = images.transpose(-1, -2).contiguous()

    def poked(value: float) -> Tensor:
        changed = images.clone()
        changed.narrow(axis, margin, step).fill_(value * network.value_range)
        return network(changed)

    seen = _along(poked(float("nan")).isnan(), axis, network.scale)
    if _beyond(seen, margin, step) is None:
        return None
    whole = network(images)
    seen |= _along(poked(0.5) != whole, axis, network.scale)
    reach = _beyond(seen, margin, step)
    return reach if reach is None or _starts_anywhere(network, images, whole, axis, reach) else None


def _starts_anywhere(network: SRNetwork, images: Tensor, whole: Tensor, axis: int, reach: int) -> bool:
    """Whether what lies beyond the reach stays as it was when some pixels are cut off an image."""
    step, length = network.alignment, images.shape[axis]
    cut = network(images.narrow(axis, step, length - step))
    kept = (length - step - reach) * network.scale
    before, after = (output.narrow(axis, output.shape[axis] - kept, kept) for output in (whole, cut))
    return float((before - after).abs().max()) <= _SAME * float(whole.std())


def _along(touched: Tensor, axis: int, scale: int) -> Tensor:
    """Which pixels of the input lie where output pixels were touched, along an axis."""
    other = -1 if axis == -2 else -2
    return touched.any(dim=1).any(dim=0).any(dim=other).view(-1, scale).any(dim=1)


def _beyond(seen: Tensor, margin: int, step: int) -> int | None:
    """How many pixels beyond those that were changed were touched; None if more than are looked at."""
    touched = seen.nonzero().flatten()
    if not len(touched):
        return 0
    reach = max(margin - int(touched[0]), int(touched[-1]) - (margin + step - 1), 0)
    return None if reach > LARGEST else reach
