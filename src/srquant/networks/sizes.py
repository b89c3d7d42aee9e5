"""Which sizes of images a module takes, found by running it, and images padded to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from srquant.networks.modules import pad_to_size
from srquant.support.errors import ArgumentError, SrquantError, first_line

_TRIED = (8, 16, 32, 48, 64, 96, 128, 192, 256)
"""Heights and widths on which a module is tried, one after the other, until one works."""
_ALIGNMENTS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 64)


class RunsNowhereError(ArgumentError):
    """A module runs on no image that was tried."""


@dataclass(frozen=True)
class Sizes:
    """Heights and widths that a module takes: multiples of the alignment, from the smallest on."""

    alignment: int = 1
    smallest: int = 1
    square: bool = False

    def run(self, module: Callable[[Tensor], Tensor], images: Tensor, scale: int) -> Tensor:
        """What a module gives for images of any size: their lower and right borders are mirrored as far as it needs.

        Args:
            module: ``n c h w`` of these sizes to ``n c scale·h scale·w``.
            images: ``n c h w``.
            scale: How many times larger the output is.
        """
        if self == Sizes():
            return module(images)
        height, width = images.shape[-2:]
        padded = [max(size + -size % self.alignment, self.smallest) for size in (height, width)]
        if self.square:
            padded = [max(padded)] * 2
        return module(pad_to_size(images, *padded))[..., : height * scale, : width * scale]


def find_sizes(works: Callable[[int, int], object], alignment: int) -> Sizes:
    """The sizes that a module takes.

    Args:
        works: Runs the module on an image of a height and a width; raises what the module raises.
        alignment: What they are multiples of, as far as is known.

    Raises:
        RunsNowhereError: The module runs on no image.
        ArgumentError: It runs on images of one size alone, or of multiples of something else.
    """

    def runs(height: int, width: int) -> bool:
        try:
            works(height, width)
        except SrquantError:
            raise
        except Exception:  # of the module's own code, which may raise anything
            return False
        return True

    tried = sorted({-(-size // alignment) * alignment for size in _TRIED} | {8 * alignment})
    size = next((size for size in tried if runs(size, size)), None)
    if size is None:
        size = tried[0]
        try:
            works(size, size)
        except Exception as error:
            raise RunsNowhereError(
                f"the network cannot run on an RGB image of {size}x{size}, nor on larger ones: {first_line(error)}"
            ) from error
    if not (runs(size, size + alignment) and runs(size + alignment, size)):
        raise ArgumentError(f"the network runs on an image of {size}x{size}, but {_way_out(runs, size, alignment)}")
    fails, smallest = 0, size  # in between lies the border, if larger images always run
    while smallest - fails > alignment:
        middle = (fails + smallest) // (2 * alignment) * alignment or alignment
        if middle == fails:
            break
        fails, smallest = (fails, middle) if runs(middle, middle) else (middle, smallest)
    return Sizes(alignment, smallest)


def _way_out(runs: Callable[[int, int], bool], size: int, alignment: int) -> str:
    for multiple in _ALIGNMENTS:
        start = -(-size // multiple) * multiple
        if multiple % alignment == 0 and runs(start, start + multiple) and runs(start + multiple, start):
            return f"not on one of {size + alignment}x{size}: give alignment={multiple}"
    return (
        f"not on one of {size + alignment}x{size}, nor on other sizes; srquant needs networks that take images of many "
        f"sizes: pad or resize inside the network"
    )
