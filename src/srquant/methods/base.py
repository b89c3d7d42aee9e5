"""What every method is: a frozen configuration that makes a quantized model of a float one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from torch import Tensor

from srquant.images.calibration import Calibration
from srquant.learning.photographs import Photographs
from srquant.methods.pipeline.work import Work, observing
from srquant.model import Model
from srquant.model.preparing import Norms
from srquant.quantizers import BITS, Uniform, check_bits
from srquant.quantizers.numerics.integers import Grid
from srquant.quantizers.ranges import RANGES
from srquant.support.errors import ArgumentError
from srquant.support.plugins import NameIn
from srquant.support.settings import Checked, Former

EdgeProtocol = Literal["8bit", "float", "none"]
Scope = Literal["auto", "transformer", "all"]
Width = Annotated[int, Field(ge=BITS[0], le=BITS[-1])]
"""Bits of codes; fewer cannot be quantized to, more gain nothing over 8."""
Quantile = Annotated[float, Field(gt=0.5, le=1)]
"""Of values, those inside; 0.99 puts a bound at the 99th percentile."""
Factor = Annotated[float, Field(ge=0, le=1_000_000)]
"""On a part of a loss or on a rate; 0 leaves it out."""
RangeName = Annotated[str, AfterValidator(NameIn(RANGES))]
"""Of a rule for bounds, in :data:`srquant.quantizers.ranges.RANGES`."""
Batch = Annotated[int, Field(ge=1, le=10_000)]
"""Patches."""
Bits = tuple[int, int] | None
"""Of weights and activations; None leaves a layer float."""
Data = Calibration | Photographs
"""What methods are given. What either is, it says itself: ``holds``."""
Needs = Literal["patches", "pairs"]
"""``patches``: LR images alone, a :class:`~srquant.images.calibration.Calibration`; ``pairs``: LR images and the HR
images that they were made of, :class:`~srquant.learning.photographs.Photographs`."""
BitsOf = Literal["layer", "image"]
"""``layer``: each quantized layer has its bits; ``image``: they also follow the image that a model is given, so that a
score means nothing without the mean bits it was reached with, and no file for an engine can be written."""


@dataclass(frozen=True)
class WeightSettings(Checked):
    """How weights are quantized."""

    former: ClassVar[Former] = {
        "range": ("range", {"extremes": "min_max", "quantiles": "percentile"}),
        "per_channel": ("granularity", {"true": "per_channel", "false": "per_tensor"}),
    }

    range: RangeName = "min_max"
    """Which rule finds the bounds."""
    symmetric: bool = True
    """[-u, u] (OAPTQ §3.1) instead of [l, u]."""
    granularity: Literal["per_tensor", "per_channel"] = "per_tensor"
    """Bounds for the whole tensor, or for each output channel."""


@dataclass(frozen=True)
class ObservationSettings(Checked):
    """How activation statistics are gathered from the calibration patches. Source: OAPTQ algorithm 1, AdaBM."""

    former: ClassVar[Former] = {"momentum": ("ema_decay", {})}

    batch: Batch = 16
    """Patches that pass through the network together."""
    average: Literal["moving", "mean"] = "moving"
    """Over batches: ``moving``, an exponential moving average; ``mean``, in which all batches count alike."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Weight of the old value in the moving average; the first batch counts in full."""

    def weight_of_old(self, batches: int) -> float:
        """Of the average of so many batches, where the next one enters it."""
        return self.ema_decay if self.average == "moving" else batches / (batches + 1)


@dataclass(frozen=True, kw_only=True)
class Method(Checked):
    """A published way to quantize, and its configuration.

    A new method is a new file in this folder: a frozen dataclass with a ``name``, its own fields with the paper's
    values as defaults, and :meth:`quantize`, which reads like the paper's algorithm.
    """

    name: ClassVar[str]
    """Name on the command line and in files."""
    needs: ClassVar[Needs] = "patches"
    """What the method is given."""
    bits_of: ClassVar[BitsOf] = "layer"
    """Whose the bits of activations are."""

    bits: Width = 4
    """Of activations, 2 to 8."""
    weight_bits: Width | None = None
    """Of weights; as ``bits`` if None."""
    edges: EdgeProtocol = "8bit"
    """``8bit``: first, upsampler and last convolutions at 8/8 bits (OAPTQ table 1); ``float``: those and the
    convolution after the body stay float (OAPTQ tables 2 and 3); ``none``: all alike."""
    scope: Scope = "all"
    """Which multiplications are quantized: ``all``; ``transformer``, linear maps and attention products, while every
    convolution stays float (2DQuant); ``auto``: that for networks with attention products, or whose linear maps do most
    of the multiplying, and ``all`` for the others."""
    layers: tuple[str, ...] = ()
    """Exceptions, the last that matches a layer's name counts: ``pattern=bits``, ``pattern=weights/activations`` or
    ``pattern=float``, for instance ``tail.*=8``."""
    norms: Norms = "float"
    """Of batch normalisations: ``float``, as in the code that the papers' experiments stand on (AdaBM's), quantizes the
    bare weights of convolutions and leaves the normalisations after them; ``folded`` makes each part of the convolution
    before it, which then has other weights, with channels of other sizes. Where weights have one bound for all channels
    that costs much; an exported file has one operation less in each place."""
    grid: Grid = "free"
    """``int8`` puts the levels of every operand on integers of eight bits, zero among them, so that the model can be
    exported and each layer is one int8 product; see :mod:`srquant.quantizers.numerics.integers`. ``free`` leaves
    them where bounds say."""
    weights: WeightSettings = WeightSettings()
    observation: ObservationSettings = ObservationSettings()

    def __post_init__(self) -> None:
        super().__post_init__()
        for rule in self.layers:
            parse_rule(rule)
        if self.grid == "int8" and self.bits_of == "image":
            raise ArgumentError(
                f"grid=int8: the bits of {self.name} follow the image, and an exported file has one grid for each "
                f"layer; use grid=free, or a method whose bits are the layer's (srquant methods lists them)"
            )

    def uniform(self, bits: int, bounds: Mapping[str, Tensor]) -> Uniform:
        """The usual quantizer of activations, on this method's grid."""
        return Uniform(bits, bounds["lower"], bounds["upper"], self.grid)

    def open(self, folder: Path | str, scale: int) -> Data:
        """What a folder holds for this method: of LR images, if it needs patches; of photographs, if it needs pairs.

        Raises:
            ImageError: It holds none.
        """
        return Calibration.from_low_resolution(folder)

    def patches_of(self, data: Any) -> Calibration:
        """LR patches like those that :meth:`quantize` works on; here the data themselves."""
        return data

    def work(self, patches: Calibration, layers: int, multiply_adds: float) -> Work:
        """About how much :meth:`quantize` computes; here ranges are measured once on all patches.

        Args:
            patches: What :meth:`patches_of` gives.
            layers: How many multiplications the network has.
            multiply_adds: How many it does per LR pixel.
        """
        return observing(patches, self.observation.batch)

    def quantize(self, model: Model, data: Any, /, state: Path | str | None = None) -> Model:
        """Make the quantized model.

        Args:
            model: A float model; it is left as it is.
            data: What :attr:`needs` names: LR patches like the images the model will be given, or photographs.
            state: Where a method that learns keeps its state, to go on from it after an interruption.

        Raises:
            ArgumentError: The model is quantized already, or a layer rule matches nothing.
            NetworkError: The network's activations are not finite.
            FinetuningError: Learning cannot go on.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks quantize()")


def parse_rule(rule: str) -> tuple[str, Bits]:
    """The pattern and the bits of an exception such as ``tail.*=8``, ``body.*=4/6`` or ``head.*=float``.

    Raises:
        ArgumentError: The text is no such rule.
    """
    pattern, equals, text = rule.rpartition("=")
    if not equals or not pattern:
        raise ArgumentError(
            f"layers: {rule!r} is not a rule; write pattern=bits, pattern=weights/activations or pattern=float"
        )
    if text == "float":
        return pattern, None
    parts = text.split("/")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ArgumentError(f"layers: {text!r} in {rule!r} is not a number of bits, two with a slash, or float")
    weight, activation = int(parts[0]), int(parts[-1])
    check_bits(weight, f"layers: {pattern}: bits")
    check_bits(activation, f"layers: {pattern}: bits")
    return pattern, (weight, activation)
