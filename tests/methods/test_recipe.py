"""Our own recipe: what it learns and how."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from srquant.images import Calibration
from srquant.learning.guard import Guard, Outcome
from srquant.learning.losses import OutputAndFeatures, Outputs
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Mover, Stage
from srquant.methods import OAPTQ, PLQ, recipe
from srquant.methods.base import WeightSettings
from srquant.methods.pipeline import samples
from srquant.methods.pipeline.effort import steps_of
from srquant.methods.pipeline.everything import Rates
from srquant.methods.pipeline.output_sizes import OutputSizes
from srquant.methods.pipeline.plan import make_plan
from srquant.methods.recipe import SRQuant
from srquant.model import Model
from srquant.model.layer import CodedWeight
from srquant.model.swapping import copy_network, quant_layers
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.support.errors import ArgumentError, NoGainWarning

SHORT = LearningSettings(epochs=3, rate=2e-3, schedule="cosine")


@pytest.fixture
def tiny() -> Model:
    torch.manual_seed(3)
    return Model(EDSR(EDSRConfig(scale=2, channels=8, blocks=2)).eval().requires_grad_(False), "tiny")


@pytest.fixture
def patches(low_images: Path) -> Calibration:
    return Calibration.from_low_resolution(low_images, count=5, size=16)


def state(model: Model) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, layer in quant_layers(model.network).items():
        found[f"{name}.bias"] = layer.bias.detach().clone()
        assert isinstance(layer.right, CodedWeight)
        found[f"{name}.codes"] = layer.right.get_buffer("codes").clone()
        for side, quantizer in layer.quantizers().items():
            found |= {f"{name}.{side}.{key}": value.detach().clone() for key, value in quantizer.named_parameters()}
    return found


@pytest.mark.parametrize(
    ("levels", "bits", "names"),
    [
        ("auto", 4, {"free_levels", "shifted_levels", "scaled_levels"}),
        ("piecewise", 3, {"piecewise_linear"}),
        ("non_uniform", 6, {"free_levels", "shifted_levels", "scaled_levels"}),
    ],
)
def test_levels(tiny: Model, patches: Calibration, levels: str, bits: int, names: set[str]) -> None:
    model = SRQuant(bits=bits, levels=levels, spare=0, effort="none").quantize(tiny, patches)
    for name, layer in quant_layers(model.network).items():
        edge = tiny.network.edges.role(name) in ("first", "upsampler", "last")
        assert layer.left.bits == (8 if edge else bits)
        assert layer.left.name in ({"scaled_uniform", "shifted_uniform"} if edge else names)
        if layer.left.name == "piecewise_linear":
            assert len(layer.left.levels()) <= 2**layer.left.bits
            assert bool((layer.left.levels().diff() >= 0).all())


def test_each_layer_gets_the_levels_its_output_loses_least_by(
    tiny: Model, patches: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channels with means far apart are moved to one, and channels of extents far apart divided."""
    monkeypatch.setattr(samples, "_OUTSIDE", 1e9)
    head = tiny.network.edges.first[0]
    for change, name in (("means", "shifted_levels"), ("extents", "scaled_levels")):
        network = copy_network(tiny.network)
        module = network.get_submodule(head)
        if change == "means":
            module.bias.data.add_(torch.linspace(-3, 3, 8) * network.value_range)
        else:
            module.weight.data.mul_(10 ** torch.linspace(0, 3, 8)[:, None, None, None])
            network.get_submodule("body.0.body.0").weight.data.div_(10 ** torch.linspace(0, 3, 8)[:, None, None])
        method = SRQuant(bits=3, spare=0, effort="none")
        layers = quant_layers(method.quantize(Model(network, "tiny"), patches).network)
        left = layers["body.0.body.0"].left
        assert left.name == name
        assert getattr(left, left.apart).shape == (8, 1, 1)


def test_an_image_of_bytes_reaches_the_first_convolution_unchanged(tiny: Model, patches: Calibration) -> None:
    method = SRQuant(bits=4, spare=0, effort="none")
    model = method.quantize(tiny, patches)
    first = quant_layers(model.network)[tiny.network.edges.first[0]].left
    assert first.name == "shifted_uniform" and bool((first.shift < 0).all()), "EDSR subtracts a mean"
    image = torch.arange(256).repeat(3, 1)[None, :, None, :] / 255 * tiny.network.value_range
    with torch.no_grad():
        given = image + first.shift
        torch.testing.assert_close(first(given), given, rtol=0, atol=2e-6 * tiny.network.value_range)
    for fields in ({"grid": "int8"}, {"edges": "none"}):
        other = replace(method, **fields).quantize(tiny, patches)
        assert "shifted_uniform" not in {layer.left.name for layer in quant_layers(other.network).values()}


def test_the_layers_that_cost_most_get_eight_bits(tiny: Model, patches: Calibration) -> None:
    plan = make_plan(tiny, SRQuant(bits=2))
    costs = {each.name: each.multiply_adds / plan.survey.multiply_adds for each in plan.survey.multiplications}
    wide: dict[float, set[str]] = {}
    for part in (0.0, 0.3):
        model = SRQuant(bits=2, spare=part, effort="none").quantize(tiny, patches)
        found = quant_layers(model.network).items()
        wide[part] = {name for name, layer in found if layer.left.bits == layer.right.quantizer.bits == 8}
    more = wide[0.3] - wide[0.0]
    assert more and wide[0.0] < wide[0.3]
    assert sum(costs[name] for name in more) <= 0.3


def test_what_was_asked_for_is_not_spared(tiny: Model, patches: Calibration) -> None:
    for bits in (2, 8):
        method = SRQuant(bits=bits, spare=1, layers=("body.*=3",), effort="none")
        layers = quant_layers(method.quantize(tiny, patches).network)
        asked = [layer for name, layer in layers.items() if name.startswith("body.")]
        assert len(asked) == 5
        assert {(layer.left.bits, layer.right.quantizer.bits) for layer in asked} == {(3, 3)}
        if bits == 8:
            assert all(layer.left.integer_grid() is not None for layer in layers.values()), "it can be exported"


def test_unknown_levels_are_refused() -> None:
    with pytest.raises(ArgumentError, match="levels='best' is not one of auto, non_uniform, piecewise"):
        SRQuant(levels="best")


@pytest.mark.parametrize(
    ("rates", "moving"),
    [
        (Rates(1.0, 0.0, 0.0), ("values", "bound")),
        (Rates(0.0, 3.0, 0.0), ("codes",)),
        (Rates(0.0, 0.0, 1.0), ("bias",)),
    ],
)
def test_each_rate_moves_its_own(
    tiny: Model, patches: Calibration, monkeypatch: pytest.MonkeyPatch, rates: Rates, moving: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Guard, "settle", lambda self: Outcome(0.0, 1.0))
    before = state(SRQuant(bits=3, effort="none").quantize(tiny, patches))
    after = state(SRQuant(bits=3, finetuning=replace(SHORT, rate=0.02), rates=rates).quantize(tiny, patches))
    # A weight whose bound moves gets other codes too.
    allowed = (*moving, "codes") if "bound" in moving else moving
    for name, value in after.items():
        assert torch.allclose(value.float(), before[name].float()) or name.endswith(allowed), name
    for kind in moving:
        assert any(not torch.equal(after[name], before[name]) for name in after if name.endswith(kind)), kind


def test_nothing_to_learn_is_no_error(tiny: Model, patches: Calibration) -> None:
    for fields in ({"effort": "none"}, {"rates": Rates(0, 0, 0)}, {"bits": 8}):
        model = SRQuant(**{"bits": 4, **fields}).quantize(tiny, patches)
        assert model.record.curve == ()


def test_it_comes_closer_to_the_teacher_than_oaptqs_start(tiny: Model, patches: Calibration) -> None:
    images = patches.batch(range(5))
    expected = tiny(images)

    def error(method: PLQ | SRQuant) -> float:
        return float((method.quantize(tiny, patches)(images) - expected).abs().mean())

    searched = PLQ(
        bits=3, bounds="least_squares", weights=WeightSettings(range="least_squares", granularity="per_channel")
    )
    assert error(searched) < error(PLQ(bits=3))
    ours = SRQuant(bits=3, spare=0, drawings=0, saturated=0, effort="none")
    start = error(ours)
    assert start < 0.9 * error(searched)
    assert error(replace(ours, finetuning=replace(SHORT, epochs=30))) < 0.95 * start


def test_what_held_out_patches_do_not_confirm_is_taken_back(tiny: Model, patches: Calibration) -> None:
    method = SRQuant(bits=3, spare=0, finetuning=replace(SHORT, rate=0.5))
    with pytest.warns(NoGainWarning, match="agreement with the float network's images went from"):
        spoilt = method.quantize(tiny, patches)
    assert len(spoilt.record.curve) == 3
    start = replace(method, finetuning=SRQuant().finetuning, effort="none").quantize(tiny, patches)
    for name, value in state(start).items():
        assert torch.equal(value, state(spoilt)[name]), name


@pytest.mark.parametrize(
    ("effort", "work", "steps"),
    [
        ("none", 1e3, 0),
        ("quick", 1e3, 200),
        ("standard", 1e3, 1600),
        ("thorough", 1e3, 4000),
        ("standard", 2e7, 390),
        ("quick", 1e9, 40),
    ],
)
def test_an_effort_is_a_number_of_steps_or_of_multiply_adds(effort: str, work: float, steps: int) -> None:
    assert steps_of(effort, work, 1024) == steps


def test_the_root_mean_square_of_outputs() -> None:
    sizes = OutputSizes()
    outputs = torch.randn(7, 3, 4, 5)
    sizes("a", outputs[:4])
    sizes("a", outputs[4:])
    assert sizes.root_mean_square("a") == pytest.approx(float(outputs.square().mean().sqrt()), rel=1e-5)


def test_the_loss_by_hand_and_without_taps() -> None:
    student, teacher = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    features = [torch.randn(2, 5, 4, 4) for _ in range(2)]
    loss = OutputAndFeatures(("x",), 0.5)
    parts = loss(Outputs(student, {"x": features[0]}), Outputs(teacher, {"x": features[1]}))
    unit = [f / f.flatten(1).norm(dim=1).view(2, 1, 1, 1) for f in features]
    distance = (unit[0] - unit[1]).flatten(1).norm(dim=1).mean()
    root = ((student - teacher) ** 2).flatten(1).mean(1).sqrt().mean()
    torch.testing.assert_close(parts["output"], root, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(parts["features"], 0.5 * distance)
    alone = OutputAndFeatures((), 0.5)(Outputs(student, {}), Outputs(teacher, {}))
    assert float(alone["features"]) == 0


def test_bad_rates() -> None:
    with pytest.raises(ArgumentError, match="weights=-1 is outside"):
        SRQuant(rates=Rates(weights=-1))


@pytest.mark.parametrize(("kind", "bits"), [(SRQuant, 3), (OAPTQ, 3), (OAPTQ, 8)])
def test_learning_stays_on_the_int8_grid(kind: type, bits: int, tiny: Model, patches: Calibration) -> None:
    settings = replace(SHORT, epochs=3, rate=2e-2)
    start = state(PLQ(bits=bits, grid="int8").quantize(tiny, patches))
    levels = {"levels": "piecewise", "spare": 0} if kind is SRQuant else {}
    model = kind(bits=bits, grid="int8", finetuning=settings, **levels).quantize(tiny, patches)
    moved = 0
    for name, layer in quant_layers(model.network).items():
        for side, quantizer in layer.quantizers().items():
            grid = quantizer.integer_grid()
            assert grid is not None
            assert grid.high - grid.low <= 255
            codes = torch.arange(1 + sum(quantizer.intervals)).expand(*quantizer.knots().shape[:-1], -1)
            scale = grid.scale[..., None] if grid.scale.ndim else grid.scale
            assert torch.equal(quantizer.decode(codes), grid.integers(codes) * scale)
            moved += not torch.equal(quantizer.upper, start[f"{name}.{side}.upper"]) if side == "left" else 0
    assert moved


def test_first_steps_are_of_the_size_of_what_moves(
    tiny: Model, patches: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In units of the mean magnitude of a weight, and of the root mean square of what its layer gives."""
    taken: list[Stage] = []

    def noted(student: object, teacher: object, patches: object, stages: tuple[Stage, ...], *others: object) -> tuple:
        taken.extend(stages)
        return ()

    monkeypatch.setattr(recipe, "finetune", noted)
    SRQuant(bits=4, spare=0).quantize(tiny, patches)
    (stage,) = taken
    factors = {name: (group.factor, group.relative) for group in stage.groups for name in group.parameters}
    modules = dict(tiny.network.named_modules())
    seen = 0
    for name, (factor, relative) in factors.items():
        if name.endswith(".right.weight"):
            size = float(modules[name.removesuffix(".right.weight")].weight.abs().mean())
            edge = tiny.network.edges.role(name.removesuffix(".right.weight")) in ("first", "upsampler", "last")
            assert (factor, relative) == (pytest.approx((0.6 if edge else 3.0) * size, rel=0.5), False)
            seen += 1
        elif not name.endswith(".bias"):
            assert (factor, relative) == (1.0, True)
    assert seen == len([name for name in factors if name.endswith(".bias")]) > 3


LEARNING = {
    **{"epochs": 2, "steps": 4, "batch": 3, "rate": 1e-2, "decay": 0.5, "beta1": 0.5, "beta2": 0.5, "seed": 1},
    **{"schedule": "constant", "precision": "bf16"},
}


@pytest.mark.parametrize("name", LEARNING)
def test_every_setting_of_learning_decides_the_result(tiny: Model, patches: Calibration, name: str) -> None:
    settings = LearningSettings(epochs=3, batch=2)
    first, second = (
        state(OAPTQ(bits=4, finetuning=given).quantize(tiny, patches))
        for given in (settings, replace(settings, **{name: LEARNING[name]}))
    )
    assert any(not torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "constant"])
def test_rates_fall_as_the_settings_say(
    tiny: Model, patches: Calibration, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    rates: list[float] = []
    move = Mover.move

    def noted(self: Mover, stage: Stage, rate: float) -> None:
        rates.append(rate)
        move(self, stage, rate)

    monkeypatch.setattr(Mover, "move", noted)
    settings = LearningSettings(epochs=2, batch=2, rate=1e-3, decay=0.5, schedule=schedule)
    OAPTQ(bits=4, finetuning=settings).quantize(tiny, patches)
    expected = {
        "exponential": [1, 1, 1, 0.5, 0.5, 0.5],
        "cosine": [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)],
        "constant": [1] * 6,
    }[schedule]
    assert rates == pytest.approx([1e-3 * factor for factor in expected])
