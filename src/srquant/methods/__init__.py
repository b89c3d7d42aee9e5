"""Methods. Each module of this folder that defines a named ``Method`` is found by itself."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

from srquant.methods.adabm import AdaBM as AdaBM
from srquant.methods.base import BitsOf, Needs
from srquant.methods.base import Method as Method
from srquant.methods.daq import DAQ as DAQ
from srquant.methods.ddtb import DDTB as DDTB
from srquant.methods.minmax import MinMax as MinMax
from srquant.methods.mse import MSE as MSE
from srquant.methods.oaptq import OAPTQ as OAPTQ
from srquant.methods.oaptq import PLQ as PLQ
from srquant.methods.odm import ODM as ODM
from srquant.methods.pams import PAMS as PAMS
from srquant.methods.percentile import Percentile as Percentile
from srquant.methods.ptq4sr import PTQ4SR as PTQ4SR
from srquant.methods.recipe import SRQuant as SRQuant
from srquant.methods.two_d_quant import DOBI as DOBI
from srquant.methods.two_d_quant import TwoDQuant as TwoDQuant
from srquant.support.describing import FieldDescription, describe_fields, source, summary
from srquant.support.plugins import Registry

METHODS: Registry[type[Method]] = Registry("method", "srquant.methods", Method, group="srquant.methods")


def all_methods() -> dict[str, type[Method]]:
    """Every method, by name."""
    return dict(METHODS)


USUAL = SRQuant.name
"""The method that is taken where none is named."""


def method_named(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        UnknownNameError: There is none.
    """
    return METHODS.named(name)


@dataclass(frozen=True)
class MethodDescription:
    """A method in words.

    Args:
        name: On the command line and in Python.
        kind: The class.
        summary: What it does.
        source: The paper; ``ours`` where there is none.
        needs: What it is given: LR patches, or pairs of LR and HR.
        bits_of: Whose the bits of activations are: each layer's, or each image's too.
        fields: All that can be set.
    """

    name: str
    kind: type[Method]
    summary: str
    source: str
    needs: Needs
    bits_of: BitsOf
    fields: tuple[FieldDescription, ...]


def describe_method(kind: type[Method]) -> MethodDescription:
    """A method in words."""
    return MethodDescription(
        kind.name, kind, summary(kind), source(kind) or "ours", kind.needs, kind.bits_of, describe_fields(kind())
    )


def describe_methods() -> tuple[MethodDescription, ...]:
    """All methods in words, those of installed packages too."""
    return tuple(map(describe_method, METHODS.values()))


class _Callable(ModuleType):
    """Makes ``srquant.methods()`` the same as :func:`describe_methods`, beside the classes in ``srquant.methods``."""

    def __call__(self) -> tuple[MethodDescription, ...]:
        return describe_methods()


sys.modules[__name__].__class__ = _Callable
