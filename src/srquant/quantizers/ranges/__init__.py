"""Rules for bounds, named by what they compute. Each module that defines a named ``UniformRange`` is found."""

from __future__ import annotations

from srquant.quantizers.ranges.base import Bounds as Bounds
from srquant.quantizers.ranges.base import OfChannels as OfChannels
from srquant.quantizers.ranges.base import Range as Range
from srquant.quantizers.ranges.base import UniformRange as UniformRange
from srquant.quantizers.ranges.bound_search import BoundSearch as BoundSearch
from srquant.quantizers.ranges.channel_means import ChannelShift as ChannelShift
from srquant.quantizers.ranges.density_clipping import DensityClipping as DensityClipping
from srquant.quantizers.ranges.joint_shrink import JointShrink as JointShrink
from srquant.quantizers.ranges.least_squares import LeastSquares as LeastSquares
from srquant.quantizers.ranges.lloyd_max import LloydMax as LloydMax
from srquant.quantizers.ranges.min_max import MinMaxRange as MinMaxRange
from srquant.quantizers.ranges.percentile import PercentileRange as PercentileRange
from srquant.quantizers.ranges.percentile import quantile as quantile
from srquant.quantizers.ranges.piecewise_search import PiecewiseSearch as PiecewiseSearch
from srquant.support.plugins import Registry

RANGES: Registry[type[UniformRange]] = Registry(
    "range", "srquant.quantizers.ranges", UniformRange, group="srquant.ranges"
)
"""Those that settings choose by name, as ``weights.range`` does."""
