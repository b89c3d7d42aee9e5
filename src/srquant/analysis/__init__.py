"""Looking into networks: what quantization would do to them, and has done."""

from __future__ import annotations

from srquant.analysis.bounds import BoundPercentiles as BoundPercentiles
from srquant.analysis.bounds import bound_percentiles as bound_percentiles
from srquant.analysis.distributions import Distribution as Distribution
from srquant.analysis.distributions import distributions as distributions
from srquant.analysis.outliers import Clipped as Clipped
from srquant.analysis.outliers import clip_outliers as clip_outliers
from srquant.analysis.regions import most_different as most_different
from srquant.analysis.sensitivity import Sensitivity as Sensitivity
from srquant.analysis.sensitivity import sensitivity as sensitivity
