"""Quantizers. Each module of this folder that defines a named ``Quantizer`` is found by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from srquant.quantizers.adaptive import Adaptive as Adaptive
from srquant.quantizers.base import BITS as BITS
from srquant.quantizers.base import Quantizer as Quantizer
from srquant.quantizers.base import check_bits as check_bits
from srquant.quantizers.base import check_grid as check_grid
from srquant.quantizers.channel_factor import Scaled as Scaled
from srquant.quantizers.channel_factor import times_factor as times_factor
from srquant.quantizers.channel_factor import without_factor as without_factor
from srquant.quantizers.distribution_aware import DistributionAware as DistributionAware
from srquant.quantizers.gated_uniform import GatedUniform as GatedUniform
from srquant.quantizers.granularity import Granularity as Granularity
from srquant.quantizers.granularity import PerChannel as PerChannel
from srquant.quantizers.granularity import PerTensor as PerTensor
from srquant.quantizers.image_factor import ImageFactor as ImageFactor
from srquant.quantizers.image_factor import mean_slope as mean_slope
from srquant.quantizers.narrow_symmetric import NarrowSymmetric as NarrowSymmetric
from srquant.quantizers.non_uniform import NonUniform as NonUniform
from srquant.quantizers.non_uniform import ScaledNonUniform as ScaledNonUniform
from srquant.quantizers.non_uniform import ShiftedNonUniform as ShiftedNonUniform
from srquant.quantizers.piecewise_linear import PiecewiseLinear as PiecewiseLinear
from srquant.quantizers.piecewise_linear import candidate_levels as candidate_levels
from srquant.quantizers.piecewise_linear import find_sides as find_sides
from srquant.quantizers.uniform import AdaptiveUniform as AdaptiveUniform
from srquant.quantizers.uniform import ScaledUniform as ScaledUniform
from srquant.quantizers.uniform import ShiftedUniform as ShiftedUniform
from srquant.quantizers.uniform import Symmetric as Symmetric
from srquant.quantizers.uniform import Uniform as Uniform
from srquant.support.plugins import Registry

QUANTIZERS: Registry[type[Quantizer]] = Registry(
    "quantizer", "srquant.quantizers", Quantizer, group="srquant.quantizers"
)


def all_quantizers() -> dict[str, type[Quantizer]]:
    """Every quantizer class, by name."""
    return dict(QUANTIZERS)


def build_quantizer(
    name: str, arguments: Mapping[str, Any], bounds: Mapping[str, Tensor], images: ImageFactor | None = None
) -> Quantizer:
    """Make a quantizer from what a file says of it.

    Args:
        name: Of its class.
        arguments: As it gave them.
        bounds: By name.
        images: What it follows, if its class follows the image.

    Raises:
        UnknownNameError: There is no quantizer of that name.
        ValueError: It follows the image, and there is nothing that looks at images.
    """
    kind = QUANTIZERS.named(name)
    if not kind.follows_image:
        return kind(**arguments, **bounds)
    if images is None:
        raise ValueError(f"a {name} quantizer follows the image, and nothing looks at images")
    return kind(**arguments, **bounds, images=images)
