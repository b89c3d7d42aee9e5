"""Configurations and what is wrong with them, from Python, from texts, and from JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from srquant.engines.exported import Contract
from srquant.learning.settings import LearningSettings, TrainingConfig
from srquant.methods import OAPTQ, PLQ, Percentile, SRQuant, all_methods
from srquant.methods.base import ObservationSettings
from srquant.model.record import Kept
from srquant.networks import all_networks
from srquant.networks.custom import CustomConfig
from srquant.networks.edsr import EDSRConfig
from srquant.networks.swinir import SwinIRConfig
from srquant.support.errors import ArgumentError, UnknownNameError
from srquant.support.overriding import override
from srquant.support.settings import Checked, Seed, check, from_json, to_json


@dataclass(frozen=True)
class Inner(Checked):
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    width: Annotated[int, Field(ge=2, le=8)] | None = None
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    pair: tuple[Annotated[int, Field(ge=1)], int] | None = None
    kind: Literal["a", "b"] = "a"
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer(Checked):
    on: bool = True
    inner: Inner = field(default_factory=Inner)
    least: Annotated[float, Field(ge=0)] = 0.0
    rows: tuple[Inner, ...] = ()


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 2}, r"^rate=2 is outside \(0, 1\]$"),
        ({"rate": NAN}, "^rate=nan is not a finite number$"),
        ({"rate": -INF}, "^rate=-inf is not a finite number$"),
        ({"rate": "0.5"}, "^rate='0.5' is not a number$"),
        ({"rate": None}, "^rate=None is not a number$"),
        ({"width": 9}, "^width=9 is outside 2…8$"),
        ({"width": 4.0}, "^width=4.0 is not a whole number$"),
        ({"width": True}, "^width=True is not a whole number$"),
        ({"sizes": (3, 0)}, r"^sizes.1=0 is not at least 1$"),
        ({"sizes": 3}, "^sizes=3 is not a list$"),
        ({"pair": (1,)}, r"^pair.1 is missing$"),
        ({"pair": (1, 2, 3)}, "is a list of another length$"),
        ({"kind": "c"}, "^kind='c' is not one of a, b$"),
        ({"notes": 3}, "^notes=3 has no fields$"),
    ],
)
def test_python_cannot_make_what_breaks_a_rule(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Inner(**values)


def test_values_stay_as_they_were_given() -> None:
    assert json.dumps(to_json(Inner(rate=1, pair=(1, 2)))).startswith('{"rate": 1, ')


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("on=no", Outer(on=False)),
        ("inner.rate=1e-3", Outer(inner=Inner(rate=1e-3))),
        ("inner.width=4", Outer(inner=Inner(width=4))),
        ("inner.width=None", Outer()),
        ("inner.sizes=1, 2", Outer(inner=Inner(sizes=(1, 2)))),
        ("inner.sizes=", Outer()),
        ("inner.pair=1,2", Outer(inner=Inner(pair=(1, 2)))),
        ("inner.kind=b", Outer(inner=Inner(kind="b"))),
        (" least = 3 ", Outer(least=3.0)),
    ],
)
def test_texts(text: str, config: Outer) -> None:
    assert override(Outer(), [text]) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("on=perhaps", "^on=perhaps is not true or false$"),
        ("inner.rate=2", r"^inner.rate=2 is outside \(0, 1\]$"),
        ("inner.rate=much", "^inner.rate=much is not a number$"),
        ("inner.rate=nan", "^inner.rate=nan is not a finite number$"),
        ("inner.rate=none", "^inner.rate=none is not a number$"),
        ("inner.width=4.5", "^inner.width=4.5 is not a whole number$"),
        ("inner.sizes=1,0", r"^inner.sizes.1=0 is not at least 1$"),
        ("inner.kind=c", "^inner.kind=c is not one of a, b$"),
        ("inner.notes=3", "^inner.notes=3 has no fields$"),
        ("inner=3", "^inner has fields of its own; set one of inner.rate, "),
        ("least.x=1", "least has no fields of its own"),
        ("inner.rat=1", "^unknown field 'inner.rat'; did you mean 'inner.rate'"),
        ("least", "is not an assignment; write field=value"),
    ],
)
def test_texts_that_break_a_rule(text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        override(Outer(), [text])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Invalid JSON"),
        ("[" * 100_000, "recursion limit"),
        ("[]", "has no fields"),
        ('{"least": NaN}', "^least=nan is not a finite number$"),
        ('{"least": 1e999}', "^least=inf is not a finite number$"),
        ('{"on": 1}', "^on=1 is not true or false$"),
        ('{"inner": 3}', "^inner=3 has no fields$"),
        ({"inner": {"rate": "1"}}, "^inner.rate='1' is not a number$"),
        ({"inner": {"pair": [1, 0.5]}}, r"^inner.pair.1=0.5 is not a whole number$"),
        ({"rows": [{}, {"width": 99}]}, r"^rows.1.width=99 is outside 2…8$"),
        ({"rows": [{"widht": 3}]}, r"^unknown field 'rows.0.widht'; did you mean 'rows.0.width'"),
        ({"inner": {1, 2}}, "is no JSON"),
    ],
)
def test_json_that_breaks_a_rule(content: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        from_json(Outer, content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_missing_fields() -> None:
    with pytest.raises(ArgumentError, match=r"^kept\.share is missing$"):
        from_json(Kept, {"name": "a", "reason": "b"}, "kept")


def test_json_comes_back() -> None:
    config = Outer(on=False, inner=Inner(rate=0.25, sizes=(3, 4), pair=(1, 2)), rows=(Inner(kind="b"),))
    assert from_json(Outer, to_json(config)) == config
    assert from_json(Outer, json.dumps(to_json(config))) == config


def test_single_values() -> None:
    check("seed", 0, Seed)
    with pytest.raises(ArgumentError, match=r"^seed=-1 is outside"):
        check("seed", -1, Seed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearningSettings(beta1=2), r"beta1=2 is outside \[0, 1\)"),
        (lambda: LearningSettings(rate=0), "rate=0 is not above 0"),
        (lambda: LearningSettings(rate=INF), "rate=inf is not a finite number"),
        (lambda: LearningSettings(precision="half"), "precision='half' is not one of auto, float32, bf16"),
        (lambda: LearningSettings(cache=-1), "cache=-1 is outside 0…"),
        (lambda: ObservationSettings(ema_decay=1), r"ema_decay=1 is outside \[0, 1\)"),
        (lambda: PLQ(quantile=1.0), r"quantile=1.0 is outside \(0, 1\)"),
        (lambda: PLQ(bounds="best"), "bounds='best' is not one of percentile, least_squares"),
        (lambda: OAPTQ(reconstruction=-1), "reconstruction=-1 is outside"),
        (lambda: SRQuant(features=NAN), "features=nan is not a finite number"),
        (lambda: TrainingConfig(steps=0), "steps=0 is outside 1…"),
        (lambda: TrainingConfig(average=1.0), r"average=1.0 is outside \[0, 1\)"),
        (lambda: EDSRConfig(blocks=10**12), "blocks=1000000000000 is outside 1…4,096"),
        (lambda: EDSRConfig(residual_scale="x"), "residual_scale='x' is not a number"),
        (lambda: EDSRConfig(value_range=0), r"value_range=0 is outside \(0, 65,535\]"),
        (lambda: SwinIRConfig(depths=(2, 2), heads=(2,)), "each residual group has one number of both"),
        (lambda: SwinIRConfig(channels=10), "channels=10 is not a multiple of each of heads"),
        (lambda: SwinIRConfig(upsampler="none"), "upsampler='none' is not one of"),
        (lambda: CustomConfig(scale=0), "scale=0 is outside 1…32"),
        (lambda: Contract(4, (0, 8), 1, None, False, "", "", ""), r"tile.0=0 is outside"),
    ],
)
def test_configurations_refuse_what_makes_no_sense(make, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def every_number(kind: type, path: str = "") -> list[str]:
    """The numeric fields of a configuration with defaults, dots reaching into nested ones."""
    default = kind()
    names: list[str] = []
    for name in to_json(default):
        value = getattr(default, name)
        if isinstance(value, Checked):
            names += every_number(type(value), f"{path}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            names.append(path + name)
    return names


KINDS = [*all_methods().values(), TrainingConfig]
KINDS += [network.Config for name, network in all_networks().items() if name not in ("custom", "spandrel")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_number_of_every_configuration_has_a_lower_end_and_is_finite(kind: type) -> None:
    names = every_number(kind)
    assert names
    for name in names:
        for text in ("-1", "nan", "inf", "-inf", "x"):
            with pytest.raises(ArgumentError, match=rf"^{name}={text} is ") as caught:
                override(kind(), [f"{name}={text}"])
            assert not isinstance(caught.value, UnknownNameError)
            with pytest.raises(ArgumentError, match=rf"^{name}={text} is ") as caught:
                override(kind(), [f"{name}={text}"])
            assert not isinstance(caught.value, UnknownNameError)


def test_former_names_of_fields_and_values_are_still_taken() -> None:
    texts = [
        "levels=free",
        "observation.momentum=0.5",
        "weights.range=extremes",
        "finetuning.chunk=3",
    ]
    method = override(SRQuant(), [*texts, "weights.per_channel=false"])
    assert method.levels == "non_uniform"
    assert method.observation.ema_decay == 0.5
    assert method.weights.range == "min_max"
    assert method.weights.granularity == "per_tensor"
    assert method.finetuning.micro_batch == 3
    assert override(PLQ(), ["share=0.5"]).quantile == 0.5
    assert override(Percentile(), ["share=0.75"]).quantile == 0.75
    with pytest.raises(UnknownNameError, match=r"'observation\.momentun'; did you mean"):
        override(SRQuant(), ["observation.momentun=0.5"])
