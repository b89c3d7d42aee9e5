"""Methods. Each module of this folder that defines a named ``Method`` is found by itself."""

from __future__ import annotations

from srquant.methods.base import Method as Method
from srquant.methods.minmax import MinMax as MinMax
from srquant.methods.mse import MSE as MSE
from srquant.methods.oaptq import OAPTQ as OAPTQ
from srquant.methods.oaptq import PLQ as PLQ
from srquant.methods.percentile import Percentile as Percentile
from srquant.methods.recipe import SRQuant as SRQuant
from srquant.methods.two_d_quant import DOBI as DOBI
from srquant.methods.two_d_quant import TwoDQuant as TwoDQuant
from srquant.support.plugins import plugin, plugins


def all_methods() -> dict[str, type[Method]]:
    """Every method, by name."""
    return plugins("srquant.methods", Method)


def method_named(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        UnknownNameError: There is none.
    """
    return plugin("srquant.methods", Method, "method", name)
