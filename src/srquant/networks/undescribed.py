"""Finding the ends of a network that nobody described."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor, nn

from srquant.networks.base import Edges, SRNetwork
from srquant.support.errors import NetworkError, SrquantError, first_line
from srquant.support.memory import is_out_of_memory
from srquant.support.watching import Watched, watch

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def find_edges(network: nn.Module, watched: Watched) -> Edges:
    """Deduce the ends: the first and the last convolution to run, and those that enlarge.

    A convolution enlarges if it works at twice the height of the first one or more (padding inside a network makes
    smaller differences), or if its output goes straight into a pixel shuffle.

    Args:
        network: Any network.
        watched: A forward pass of it on an image that is not tiny.
    """
    modules = {call.name: network.get_submodule(call.name) for call in watched.calls}
    convolutions = [call for call in watched.calls if type(modules[call.name]) in _CONVOLUTIONS and call.output]
    shuffled = {call.operands[0].value for call in watched.calls if isinstance(modules[call.name], nn.PixelShuffle)}
    heights = [call.output.shape[-2] for call in convolutions if call.output]
    enlarging = {
        call.name
        for call, height in zip(convolutions, heights, strict=True)
        if height >= 2 * heights[0] or (call.output and call.output.value in shuffled)
    }
    names = list(dict.fromkeys(call.name for call in convolutions))
    ends = {names[0], names[-1]} if names else set[str]()
    return Edges(
        first=tuple(names[:1]),
        upsampler=tuple(name for name in names if name in enlarging and name not in ends),
        last=tuple(names[-1:]) if len(names) > 1 else (),
    )


class UndescribedNetwork(SRNetwork):
    """A network that says nothing of itself: its ends are deduced from a small forward pass, its feature layers
    unknown. A subclass has :meth:`enlarge`.
    """

    network: nn.Module

    def forward(self, images: Tensor) -> Tensor:
        try:
            return self.enlarge(images)
        except Exception as error:  # of somebody else's code, which may raise anything
            if isinstance(error, SrquantError) or is_out_of_memory(error):
                raise
            count, _, height, width = images.shape
            images_of = f"{count} images of {width}x{height}" if count > 1 else f"an image of {width}x{height}"
            alone = "; if it takes one image at a time, give observation.batch=1" if count > 1 else ""
            raise NetworkError(
                f"the network cannot run on {images_of}: {type(error).__name__}: {first_line(error)}{alone}"
            ) from error

    def enlarge(self, images: Tensor) -> Tensor:
        """``n 3 h w`` to ``n 3 scale·h scale·w``, both in [0, value range]; any size."""
        raise NotImplementedError

    @cached_property
    def _edges(self) -> Edges:
        return self.edges_seen(watch(self, self.probe()))

    @property
    def edges(self) -> Edges:
        return self._edges

    def edges_seen(self, watched: Watched) -> Edges:
        return find_edges(self, watched)

    @property
    def feature_layers(self) -> tuple[str, ...]:
        return ()
