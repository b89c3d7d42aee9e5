"""The finished model and what is written down of how it came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from srquant.images.calibration import Calibration
from srquant.images.covering import Covering
from srquant.methods.base import Method
from srquant.methods.pipeline.layer_losses import layer_losses
from srquant.methods.pipeline.plan import Plan
from srquant.model import Model
from srquant.model.layer import QuantLayer, finished
from srquant.model.record import Epoch, Record
from srquant.model.swapping import swap
from srquant.support.settings import to_json
from srquant.support.versions import versions


def finish(
    model: Model,
    plan: Plan,
    layers: Mapping[str, QuantLayer],
    method: Method,
    calibration: Calibration | Covering,
    curve: Sequence[Epoch] = (),
) -> Model:
    """The quantized model: weights as codes, bounds fixed, provenance written down.

    Args:
        model: The float model.
        plan: What was quantized.
        layers: The quantized layers.
        method: Whose configuration is written down.
        calibration: Described in the record.
        curve: The epochs of finetuning, if there was any.
    """
    finals = {name: finished(layer) for name, layer in layers.items()}
    network = swap(plan.network, finals)
    record = Record(
        method=method.name,
        settings=cast(dict[str, Any], to_json(method)),
        calibration=calibration.describe(),
        source=model.source,
        multiply_adds=plan.survey.multiply_adds,
        coverage=plan.coverage,
        kept=plan.kept,
        folds=plan.folds,
        baked=plan.baked,
        versions=versions(),
        curve=tuple(to_json(epoch) for epoch in curve),
        losses=layer_losses(plan, finals, network, calibration, method.observation.batch),
    )
    return Model(network, model.source, record)
