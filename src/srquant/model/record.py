"""How a model came about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field

from srquant.model.baking import Baked
from srquant.model.folding import Fold
from srquant.support.settings import Checked, from_json, stored_as


@dataclass(frozen=True)
class Epoch(Checked):
    """What happened in an epoch: its stage and the means of the loss's parts."""

    number: Annotated[int, Field(ge=1)]
    stage: str
    losses: dict[str, float]


Coverage = Annotated[float, Field(ge=0, le=1 + 1e-6)]
"""A part of the multiply-adds; sums of parts may round to a little more than 1."""


def _epoch(row: dict[str, Any]) -> dict[str, Any]:
    from_json(Epoch, row, "curve")
    return row


@dataclass(frozen=True)
class Kept(Checked):
    """Something that stayed float, why, and its part of the multiply-adds."""

    __pydantic_config__: ClassVar[ConfigDict] = Checked.__pydantic_config__ | stored_as(coverage="share")

    name: str
    reason: str
    coverage: Coverage


@dataclass(frozen=True)
class LayerLoss(Checked):
    """What a layer loses."""

    name: str
    alone: float
    """Agreement, in dB, of the network's output with the float network's while this layer alone is quantized."""
    gain: float
    """What the agreement of the whole quantized network rises by, in dB, if this layer alone stays float."""
    coverage: Coverage
    """Its part of the multiply-adds."""


@dataclass(frozen=True)
class LayerLosses(Checked):
    """The layers that lose most, and on what that was measured."""

    layers: Annotated[int, Field(ge=1)]
    """How many were tried, each alone."""
    patches: Annotated[int, Field(ge=1)]
    """How many of the calibration's they were tried on."""
    size: Annotated[int, Field(ge=1)]
    """Height and width of these."""
    together: float
    """Agreement with the float network's output, in dB, with all layers quantized."""
    worst: tuple[LayerLoss, ...]
    """The one that loses most first."""


@dataclass(frozen=True)
class Record(Checked):
    """How a model came about."""

    __pydantic_config__: ClassVar[ConfigDict] = Checked.__pydantic_config__ | stored_as(coverage="share")

    method: str
    settings: dict[str, Any]
    """The method's resolved configuration."""
    calibration: str
    source: str
    """Name of the file of float weights."""
    multiply_adds: Annotated[float, Field(gt=0)]
    """Of the whole network, per LR pixel."""
    coverage: Coverage
    """Part of the multiply-adds whose operands are both quantized."""
    kept: tuple[Kept, ...] = ()
    folds: tuple[Fold, ...] = ()
    baked: tuple[Baked, ...] = ()
    versions: dict[str, str] = field(default_factory=dict[str, str])
    curve: tuple[Annotated[dict[str, Any], AfterValidator(_epoch)], ...] = ()
    """Of finetuning: for each epoch its stage and the means of the loss's parts."""
    losses: LayerLosses | None = None
    """The layers that lose most; None in files that were written before this was measured."""

    def __repr__(self) -> str:
        return f"Record({self.method} on {self.calibration}; {self.coverage:.1%} of the multiply-adds quantized)"
