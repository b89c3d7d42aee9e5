"""Rules for bounds, named by what they compute. A new one is a new file."""

from __future__ import annotations

from srquant.ranges.base import Bounds as Bounds
from srquant.ranges.base import OfChannels as OfChannels
from srquant.ranges.base import Range as Range
from srquant.ranges.bound_search import BoundSearch as BoundSearch
from srquant.ranges.channel_shift import ChannelShift as ChannelShift
from srquant.ranges.extremes import Extremes as Extremes
from srquant.ranges.least_squares import LeastSquares as LeastSquares
from srquant.ranges.lloyd import Lloyd as Lloyd
from srquant.ranges.piecewise_search import PiecewiseSearch as PiecewiseSearch
from srquant.ranges.quantiles import Quantiles as Quantiles
from srquant.ranges.quantiles import quantile as quantile
