"""What each method measures, against slow twins of the papers' calibration."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

from srquant.images import Calibration
from srquant.methods import MSE, PLQ, MinMax, Percentile
from srquant.methods.base import ObservationSettings, WeightSettings
from srquant.methods.pipeline.build import weight_quantizer
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from srquant.model import Model, load
from srquant.model.layer import CodedWeight
from srquant.model.swapping import quant_layers
from srquant.quantizers import PiecewiseLinear, Uniform, find_sides
from srquant.quantizers.ranges import LeastSquares, MinMaxRange
from srquant.support.errors import ArgumentError


def inputs_by_batch(model: Model, name: str, patches: Calibration, size: int) -> list[Tensor]:
    """The input of a layer, batch by batch, by cutting the network there."""
    network, seen = model.network, []
    handle = network.get_submodule(name).register_forward_pre_hook(lambda _, x: seen.append(x[0].clone()))
    for start in range(0, len(patches), size):
        images = torch.stack([patches.patch(i) for i in range(start, min(start + size, len(patches)))])
        network(images * network.value_range)
    handle.remove()
    return seen


def moving_average(values: list[float], beta: float = 0.9) -> float:
    """OAPTQ algorithm 1: the first batch sets the value, later ones enter with 1 − β."""
    result = values[0]
    for value in values[1:]:
        result = beta * result + (1 - beta) * value
    return result


NAMES = ("head.0", "body.0.body.2", "body.2", "tail.1")


@pytest.mark.parametrize("name", NAMES)
def test_minmax(name: str, edsr: Model, low_images) -> None:
    patches = Calibration.from_low_resolution(low_images, count=11, size=24)
    model = MinMax().quantize(edsr, patches)
    quantizer = quant_layers(model.network)[name].left
    assert isinstance(quantizer, Uniform)
    batches = inputs_by_batch(edsr, name, patches, 16)
    assert len(batches) == 1
    assert float(quantizer.lower) == pytest.approx(float(batches[0].min()), rel=1e-5)
    assert float(quantizer.upper) == pytest.approx(float(batches[0].max()), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("signed", ["magnitude", "signed"])
def test_plq_is_algorithm_1(name: str, signed: str, edsr: Model, low_images) -> None:
    """l, u = min, max; bp = 99th percentile of |x| (of x in the signed variant); moving averages over batches of 16."""
    patches = Calibration.from_low_resolution(low_images, count=37, size=24)
    model = PLQ(breakpoint=signed).quantize(edsr, patches)  # type: ignore[arg-type]
    quantizer = quant_layers(model.network)[name].left
    assert isinstance(quantizer, PiecewiseLinear)
    batches = inputs_by_batch(edsr, name, patches, 16)
    assert len(batches) == 3
    lower, upper = (moving_average([float(end(x)) for x in batches]) for end in (torch.min, torch.max))
    assert float(quantizer.lower) == pytest.approx(lower, rel=1e-4, abs=1e-5)
    assert float(quantizer.upper) == pytest.approx(upper, rel=1e-4)
    magnitudes = [(x.abs() if signed == "magnitude" else x).numpy() for x in batches]
    breakpoints = [abs(float(np.quantile(x, 0.99))) for x in magnitudes]
    assert float(quantizer.breakpoint) == pytest.approx(moving_average(breakpoints), rel=1e-4)
    assert quantizer.sides == ("upper" if float(quantizer.lower) >= -float(quantizer.breakpoint) else "both")


def test_percentile_cuts_both_sides(edsr: Model, low_images) -> None:
    patches = Calibration.from_low_resolution(low_images, count=6, size=24)
    model = Percentile(quantile=0.9).quantize(edsr, patches)
    quantizer = quant_layers(model.network)["body.2"].left
    (batch,) = inputs_by_batch(edsr, "body.2", patches, 16)
    assert isinstance(quantizer, Uniform)
    assert float(quantizer.lower) == pytest.approx(np.quantile(batch.numpy(), 0.1), rel=1e-4)
    assert float(quantizer.upper) == pytest.approx(np.quantile(batch.numpy(), 0.9), rel=1e-4)


def test_mse_errs_less_than_minmax_on_every_operand(edsr: Model, calibration: Calibration) -> None:
    models = [kind(bits=3, edges="none").quantize(edsr, calibration) for kind in (MSE, MinMax)]
    for name, least in quant_layers(models[0].network).items():
        other = quant_layers(models[1].network)[name]
        (x,) = inputs_by_batch(edsr, name, calibration, 16)
        weight = edsr.network.get_submodule(name).weight
        errors = [(layer.left(x) - x).square().sum() + 1e-12 for layer in (least, other)]
        weights = [(layer.weight - weight).square().sum() for layer in (least, other)]
        assert errors[0] <= errors[1] * 1.001
        assert weights[0] < weights[1]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("rule", ["min_max", "percentile", "least_squares"])
def test_weights(rule: str, per_channel: bool, symmetric: bool) -> None:
    weight = torch.randn(6, 4, 3, 3) * torch.linspace(0.1, 2, 6).view(-1, 1, 1, 1)
    settings = WeightSettings(rule, symmetric, "per_channel" if per_channel else "per_tensor")  # type: ignore[arg-type]
    quantizer = weight_quantizer(weight, 4, settings)
    bounds = list(quantizer.parameters())
    assert len(bounds) == (1 if symmetric else 2)
    assert all(bound.shape == ((6,) if per_channel else ()) for bound in bounds)
    rounded = quantizer(weight).detach()
    for channel in rounded if per_channel else [rounded]:
        assert len(channel.unique()) <= 16
    if rule == "min_max":
        reach = weight.abs().flatten(1).amax(1) if per_channel else weight.abs().max()
        torch.testing.assert_close(rounded.abs().flatten(1).amax(1) if per_channel else rounded.abs().max(), reach)
    coded = CodedWeight.of(weight, quantizer)
    assert torch.equal(coded(), quantizer(weight).detach())


def test_per_channel_weights_err_less() -> None:
    weight = torch.randn(6, 4, 3, 3) * torch.linspace(0.1, 2, 6).view(-1, 1, 1, 1)

    def error(**settings: object) -> float:
        rounded = weight_quantizer(weight, 4, WeightSettings(**settings))(weight).detach()  # type: ignore[arg-type]
        return float((rounded - weight).square().sum())

    assert error(granularity="per_channel") < error() / 2
    assert error(range="least_squares") < error()


def test_memory_does_not_grow_with_the_patches(edsr: Model, low_images) -> None:
    """Activations die with their batch: of all that the network computed, only what is running is alive."""
    seen: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    patches = Calibration.from_low_resolution(low_images, count=40, size=24)
    plan = make_plan(edsr, MinMax())

    def look(_module: object, operands: tuple[Tensor, ...]) -> None:
        alive.append(sum(reference() is not None for reference in seen))
        seen.append(weakref.ref(operands[0]))

    plan.network.get_submodule("body.2").register_forward_pre_hook(look)
    observe_ranges(plan, patches, MinMax(observation=ObservationSettings(batch=4)), lambda bits: MinMaxRange())
    assert len(alive) == 10
    assert max(alive) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinMax(bits=1), "bits=1 is outside 2…8"),
        (lambda: MinMax(weight_bits=9), "weight_bits=9 is outside 2…8"),
        (lambda: MinMax(edges="some"), "edges='some' is not one of"),  # type: ignore[arg-type]
        (lambda: Percentile(quantile=0.4).quantize, "quantile=0.4 is outside"),
        (lambda: PLQ(quantile=1.0), "quantile=1.0 is outside"),
    ],
)
def test_bad_settings(make, message: str, edsr: Model, calibration: Calibration) -> None:
    with pytest.raises(ArgumentError, match=message):
        made = make()
        made(edsr, calibration)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("bounds", ["percentile", "least_squares"])
def test_int8_grids_put_every_operand_on_integers(bounds: str, bits: int, edsr: Model, calibration, tmp_path) -> None:
    """Found, saved and opened again, at the ends of the network too."""
    method = PLQ(bits=bits, bounds=bounds, grid="int8", weights=WeightSettings(granularity="per_channel"))  # type: ignore[arg-type]
    model = load(method.quantize(edsr, calibration).save(tmp_path / "m.safetensors"))
    for layer in model.layers():
        for quantizer in (layer.left, layer.right):
            grid = quantizer.integer_grid()
            assert grid is not None
            assert grid.high - grid.low <= 255
        assert 0 in layer.left.levels()
        assert layer.right.integer_grid().low >= -128


@pytest.mark.parametrize("kind", [MinMax, MSE, Percentile])
def test_uniform_methods_on_int8_grids(kind: type, edsr: Model, calibration: Calibration) -> None:
    free, whole = (kind(bits=8, grid=grid).quantize(edsr, calibration) for grid in ("free", "int8"))
    assert any(layer.left.integer_grid() is None for layer in free.layers())
    for layer in whole.layers():
        grid = layer.left.integer_grid()
        assert grid is not None
        assert grid.knots.diff().tolist() == [255], "zero point and scale, nothing else"
    images = calibration.batch([0])
    assert float((whole(images) - free(images)).square().mean()) <= 0.01 * float(free(images).var())


@pytest.mark.parametrize("kind", ["normal", "heavy", "relu"])
@pytest.mark.parametrize("bits", [3, 4])
def test_the_search_chooses_among_int8_grids(kind: str, bits: int) -> None:
    """The bounds it finds, snapped, err no more than the best free bounds snapped afterwards."""
    x = torch.randn(3000)
    x = {"normal": x, "heavy": x**3, "relu": x.relu()}[kind]

    def error(bounds: dict[str, Tensor], grid: str) -> float:
        scalars = {name: value[0] for name, value in bounds.items()}
        quantizer = PiecewiseLinear(bits, **scalars, sides=find_sides(**scalars), grid=grid)  # type: ignore[arg-type]
        return float((quantizer(x).detach() - x).square().sum())

    free, whole = (PLQ(bits=bits, bounds="least_squares", grid=g).range(bits)(x[None]) for g in ("free", "int8"))
    assert error(whole, "int8") <= error(free, "int8") * 1.0001
    assert error(whole, "int8") <= 1.25 * error(free, "free")


def test_uniform_search_chooses_among_int8_grids() -> None:
    x = torch.randn(2000) + 1
    free, whole = (LeastSquares(3, grid=g)(x[None]) for g in ("free", "int8"))  # type: ignore[arg-type]
    errors = [
        float((Uniform(3, b["lower"][0], b["upper"][0], "int8")(x).detach() - x).square().sum()) for b in (free, whole)
    ]
    assert errors[1] < errors[0]
