"""Our own recipe: what it learns and how."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from srquant.images import Calibration
from srquant.learning.losses import Outputs
from srquant.learning.settings import LearningSettings
from srquant.learning.stages import Mover, Stage
from srquant.methods import OAPTQ, PLQ, recipe
from srquant.methods.base import WeightSettings
from srquant.methods.pipeline.output_sizes import OutputSizes
from srquant.methods.recipe import OutputAndFeatures, SRQuant
from srquant.model import Model
from srquant.model.layer import CodedWeight
from srquant.model.observing import observe
from srquant.model.swapping import copy_network, quant_layers
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.support.errors import ArgumentError

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


def test_without_steps_it_is_searched_bounds_and_weights_per_channel(tiny: Model, patches: Calibration) -> None:
    rates = {"bound_rate": 0, "weight_rate": 0, "bias_rate": 1e-12}
    nothing = SRQuant(bits=3, levels="piecewise", image_grid=False, finetuning=replace(SHORT, epochs=1), **rates)
    weights = WeightSettings(range="least_squares", granularity="per_channel")
    expected = state(PLQ(bits=3, bounds="least_squares", weights=weights).quantize(tiny, patches))
    model = nothing.quantize(tiny, patches)
    idle = {name for name, layer in quant_layers(model.network).items() if layer.left.sides == "none"}
    for name, value in state(model).items():
        if name.removesuffix(".left.breakpoint") not in idle:
            torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize(
    ("levels", "bits", "names"),
    [
        ("auto", 4, {"free_levels"}),
        ("piecewise", 3, {"piecewise_linear"}),
        ("non_uniform", 6, {"free_levels"}),
    ],
)
def test_levels(tiny: Model, patches: Calibration, levels: str, bits: int, names: set[str]) -> None:
    method = SRQuant(
        bits=bits, levels=levels, channel_shift=False, image_grid=False, finetuning=replace(SHORT, epochs=1)
    )
    model = method.quantize(tiny, patches)
    assert {layer.left.name for layer in quant_layers(model.network).values()} == names
    for layer in quant_layers(model.network).values():
        assert len(layer.left.levels()) <= 2**layer.left.bits
        assert bool((layer.left.levels().diff() >= 0).all())


def test_channels_with_means_of_their_own_are_centred(tiny: Model, patches: Calibration) -> None:
    head = tiny.network.edges.first[0]
    network = copy_network(tiny.network)
    network.get_submodule(head).bias.data.add_(torch.linspace(-3, 3, 8) * network.value_range)
    model, method = Model(network, "tiny"), SRQuant(bits=3, finetuning=replace(SHORT, epochs=1))
    layers = quant_layers(method.quantize(model, patches).network)
    shifted = {name: layer.left for name, layer in layers.items() if layer.left.name == "shifted_levels"}
    assert shifted, "what follows the first convolution has means far apart"
    for name, quantizer in shifted.items():
        assert quantizer.shift.shape == (layers[name].weight.shape[1], 1, 1)
    seen: dict[str, list[Tensor]] = {}
    observe(network, list(shifted), patches.batches(16), lambda name, _, x: seen.setdefault(name, []).append(x))
    for name, quantizer in shifted.items():
        torch.testing.assert_close(quantizer.shift.flatten(), seen[name][0].mean((0, 2, 3)))  # one batch
    plain = quant_layers(replace(method, channel_shift=False).quantize(model, patches).network)
    assert "shifted_levels" not in {layer.left.name for layer in plain.values()}


def test_an_image_of_bytes_reaches_the_first_convolution_unchanged(tiny: Model, patches: Calibration) -> None:
    method = SRQuant(bits=4, finetuning=replace(SHORT, epochs=1))
    model = method.quantize(tiny, patches)
    first = quant_layers(model.network)[tiny.network.edges.first[0]].left
    assert first.name == "shifted_uniform" and bool((first.shift < 0).all()), "EDSR subtracts a mean"
    image = torch.arange(256).repeat(3, 1)[None, :, None, :] / 255 * tiny.network.value_range
    with torch.no_grad():
        given = image + first.shift
        torch.testing.assert_close(first(given), given, rtol=0, atol=2e-6 * tiny.network.value_range)
    for fields in ({"image_grid": False}, {"grid": "int8"}, {"edges": "none"}):
        other = replace(method, **fields).quantize(tiny, patches)
        assert "shifted_uniform" not in {layer.left.name for layer in quant_layers(other.network).values()}


def test_unknown_levels_are_refused() -> None:
    with pytest.raises(ArgumentError, match="levels='best' is not one of auto, non_uniform, piecewise"):
        SRQuant(levels="best")


@pytest.mark.parametrize(
    ("rates", "moving"),
    [
        ((1.0, 0.0, 0.0), ("values", "bound")),
        ((0.0, 3.0, 0.0), ("codes",)),
        ((0.0, 0.0, 1.0), ("bias",)),
    ],
)
def test_each_rate_moves_its_own(tiny: Model, patches: Calibration, rates: tuple, moving: tuple[str, ...]) -> None:
    names = ("bound_rate", "weight_rate", "bias_rate")
    still = dict.fromkeys(names, 0.0) | {"bias_rate": 1e-12}
    one = replace(SHORT, epochs=1)
    before = state(SRQuant(bits=3, finetuning=one, **still).quantize(tiny, patches))
    chosen = dict(zip(names, rates, strict=True))
    after = state(SRQuant(bits=3, finetuning=replace(SHORT, rate=0.05), **chosen).quantize(tiny, patches))
    # A weight whose bound moves gets other codes too.
    allowed = (*moving, "codes") if "bound" in moving else moving
    for name, value in after.items():
        assert torch.allclose(value.float(), before[name].float()) or name.endswith(allowed), name
    for kind in moving:
        assert any(not torch.equal(after[name], before[name]) for name in after if name.endswith(kind)), kind


def test_what_is_learned_takes_turns_where_asked(tiny: Model, patches: Calibration) -> None:
    one = replace(SHORT, epochs=1, rate=0.05)
    start = state(SRQuant(bits=3, bound_rate=0, weight_rate=0, bias_rate=0).quantize(tiny, patches))
    method = SRQuant(bits=3, alternating=True, finetuning=one)
    after = state(method.quantize(tiny, patches))
    changed = {name.rpartition(".")[2] for name in after if not torch.equal(after[name], start[name])}
    assert changed == {"codes"}, "weights come first"
    curve = replace(method, finetuning=replace(one, epochs=4)).quantize(tiny, patches).record.curve
    assert [epoch["stage"] for epoch in curve] == ["weights", "biases", "bounds", "weights"]
    assert {epoch["stage"] for epoch in replace(method, alternating=False).quantize(tiny, patches).record.curve} == {
        "all"
    }


def test_nothing_to_learn_is_no_error(tiny: Model, patches: Calibration) -> None:
    model = SRQuant(bits=4, bound_rate=0, weight_rate=0, bias_rate=0).quantize(tiny, patches)
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
    assert error(SRQuant(bits=3, finetuning=replace(SHORT, epochs=30, rate=5e-3))) < 0.9 * error(searched)


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
    torch.testing.assert_close(parts["output"], (student - teacher).abs().mean())
    torch.testing.assert_close(parts["features"], 0.5 * distance)
    alone = OutputAndFeatures((), 0.5)(Outputs(student, {}), Outputs(teacher, {}))
    assert float(alone["features"]) == 0


def test_bad_rates() -> None:
    with pytest.raises(ArgumentError, match="weight_rate=-1 is outside"):
        SRQuant(weight_rate=-1)


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("kind", [SRQuant, OAPTQ])
def test_learning_stays_on_the_int8_grid(kind: type, bits: int, tiny: Model, patches: Calibration) -> None:
    settings = replace(SHORT, epochs=3, rate=2e-2)
    start = state(PLQ(bits=bits, grid="int8").quantize(tiny, patches))
    levels = {"levels": "piecewise"} if kind is SRQuant else {}
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
    SRQuant(bits=4).quantize(tiny, patches)
    (stage,) = taken
    factors = {name: (group.factor, group.relative) for group in stage.groups for name in group.parameters}
    modules = dict(tiny.network.named_modules())
    seen = 0
    for name, (factor, relative) in factors.items():
        if name.endswith(".right.weight"):
            size = float(modules[name.removesuffix(".right.weight")].weight.abs().mean())
            assert (factor, relative) == (pytest.approx(3.0 * size), False)
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
