"""Fields set by texts and by keywords: their order never counts, and two values for one field are an error."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from srquant.api import configure
from srquant.learning.settings import LearningSettings
from srquant.methods import OAPTQ, PLQ, Percentile, SRQuant, TwoDQuant
from srquant.methods.base import WeightSettings
from srquant.support.errors import ArgumentError, UnknownNameError
from srquant.support.overriding import override

RELEASED = TwoDQuant(as_released=True).finetuning


@pytest.mark.parametrize(
    ("method", "texts"),
    [
        ("2dquant", ("as_released=true", "finetuning.rate=0.5", "finetuning.batch=3")),
        (
            "oaptq",
            ("finetuning.epochs=3", "finetuning.batch=1", "weights.granularity=per_channel", "quantizer=uniform"),
        ),
        ("srquant", ("levels=piecewise", "grid=int8", "effort=quick", "weights.per_channel=false")),
        ("mse", ("weights.range=min_max", "bits=3", "layers=tail.*=8,head.*=float")),
    ],
)
def test_the_order_of_texts_does_not_count(method: str, texts: tuple[str, ...]) -> None:
    first, *others = (configure(method, settings=order) for order in permutations(texts))
    assert all(other == first for other in others)
    assert configure(method, settings=[*texts, *texts]) == first, "said twice is said once"
    nested: dict[str, Any] = {"as_released": True, "finetuning": {"rate": 0.5, "batch": 3}}
    if method == "2dquant":
        assert configure(method, **nested) == first
        assert configure(method, **dict(reversed(nested.items()))) == first
        assert first.finetuning == replace(RELEASED, rate=0.5, batch=3), "the released code's, but for what was said"


def test_what_defaults_depend_on_may_be_set_later() -> None:
    paper = TwoDQuant()
    assert override(paper, ["as_released=true"]) == TwoDQuant(as_released=True)
    assert override(TwoDQuant(as_released=True), ["as_released=false"]) == paper
    own = LearningSettings(steps=5)
    assert override(TwoDQuant(finetuning=own), ["as_released=true"]).finetuning == own
    equal = replace(paper.finetuning)
    assert TwoDQuant(as_released=True, finetuning=equal).finetuning is equal, "what a user gives is taken"


def test_fields_are_keywords() -> None:
    assert configure("percentile", quantile=0.9) == Percentile(quantile=0.9)
    assert configure("percentile", share=0.9) == Percentile(quantile=0.9), "under its former name"
    assert configure("plq", 3, plq="literal", edges="none") == PLQ(bits=3, plq="literal", edges="none")
    assert configure("srquant", levels="free") == SRQuant(levels="non_uniform")
    assert configure("mse", layers=["tail.*=8"]).layers == ("tail.*=8",)
    learning = LearningSettings(epochs=3, rate=0.5)
    assert configure("oaptq", finetuning=learning) == OAPTQ(finetuning=learning)
    both = configure("oaptq", finetuning={"epochs": 3}, settings=["finetuning.rate=0.5"])
    assert both == configure("oaptq", **{"finetuning.epochs": 3, "finetuning.rate": 0.5}) == OAPTQ(finetuning=learning)
    assert configure("plq", weights={"per_channel": True}).weights == WeightSettings(granularity="per_channel")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantil": 0.9}, "^unknown field 'quantil'; did you mean 'quantile'"),
        ({"quantile": "0.9"}, "^quantile='0.9' is not a number$"),
        ({"quantile": 2}, r"^quantile=2 is outside \(0, 1\)$"),
        ({"finetuning": {"rate": -1}}, "^finetuning.rate=-1 is not above 0$"),
        ({"finetuning": {"rat": 1.0}}, "^unknown field 'finetuning.rat'; did you mean 'finetuning.rate'"),
        ({"finetuning": 3}, "^finetuning has fields of its own; set one of finetuning.epochs, "),
        ({"quantile.x": 3}, "quantile has no fields of its own"),
        ({"name": "plq"}, "^unknown field 'name'"),
    ],
)
def test_keywords_that_break_a_rule(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        configure("oaptq", **fields)


@pytest.mark.parametrize(
    ("texts", "fields", "message"),
    [
        (["quantile=0.9", "quantile=0.8"], {}, "^quantile=0.8 contradicts quantile=0.9; give one of them$"),
        (["quantile=0.9", "share=0.8"], {}, "^share=0.8 contradicts quantile=0.9"),
        (["quantile=0.9"], {"quantile": 0.8}, "^quantile=0.8 contradicts quantile=0.9"),
        (["bits=3"], {"bits": 4}, "^bits=4 contradicts bits=3"),
        (["finetuning.rate=1"], {"finetuning": {"rate": 2.0}}, "^finetuning.rate=2.0 contradicts finetuning.rate=1"),
        (["finetuning.chunk=1", "finetuning.micro_batch=none"], {}, "contradicts finetuning.chunk=1"),
        (["finetuning.rate=1"], {"finetuning": LearningSettings(rate=2.0)}, "contradicts finetuning.rate=1"),
    ],
)
def test_two_values_for_one_field_are_a_contradiction(texts: list[str], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        configure("oaptq", settings=texts, **fields)
    assert not isinstance(caught.value, UnknownNameError)


def test_fields_that_do_not_go_together_are_told_whatever_their_order() -> None:
    for texts in permutations(["levels=non_uniform", "grid=int8"]):
        with pytest.raises(ArgumentError, match="levels=non_uniform with grid=int8"):
            configure("srquant", settings=texts)
