"""Laws that hold for every method on every network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from tests.conftest import NETWORK_NAMES, small_networks, write_png
from torch import Tensor, nn

from srquant.images import Calibration
from srquant.learning.photographs import Photographs
from srquant.learning.settings import LearningSettings, TruthSettings
from srquant.methods import Method, all_methods
from srquant.methods.base import ObservationSettings
from srquant.model import Model, load
from srquant.model.layer import CodedWeight
from srquant.model.observing import hooks
from srquant.model.swapping import quant_layers
from srquant.quantizers import Quantizer
from srquant.support.errors import ArgumentError

SHORT: dict[str, dict[str, object]] = {
    "oaptq": {"finetuning": LearningSettings(epochs=4)},
    "srquant": {"finetuning": LearningSettings(epochs=2, rate=2e-3, schedule="cosine")},
    "ptq4sr": {"finetuning": LearningSettings(epochs=None, steps=6, batch=3, rate=5e-3, schedule="cosine", end=0.4)},
    "adabm": {"finetuning": LearningSettings(epochs=4, rate=1e-2)},
    "2dquant": {"finetuning": LearningSettings(steps=4, batch=3, rate=1e-4, schedule="cosine", cache=8)},
}
PAIRS = sorted(name for name, kind in all_methods().items() if kind.needs == "pairs")
SHORT |= {name: {"training": TruthSettings(steps=6, epochs=3, batch=2, patch=16, rate=1e-6)} for name in PAIRS}
SHORT["ddtb"] |= {"observation": ObservationSettings(batch=4)}
"""Fields of methods whose defaults take long. All that can be learned is learned here too."""


def configured(method: str, **fields: object) -> Method:
    short = {} if (method, fields.get("bits")) == ("srquant", 8) else SHORT.get(method, {})  # it learns nothing there
    return all_methods()[method](**{**short, **fields})


def data(method: str, folder: Path, scale: int, count: int) -> Calibration | Photographs:
    """What a method needs: patches of the LR images in a folder, or photographs that are written beside it."""
    if method in PAIRS:
        beside = folder.with_name(f"{folder.name}_photographs")
        for number in range(0 if beside.exists() else 3):
            write_png(beside / f"{number}.png", 96, 112, number)
        return Photographs.of(beside, scale, 16)
    return Calibration.from_low_resolution(folder, count=count, size=24)


REFUSED = {("daq", "swinir"), ("daq", "swinir_classical")}
"""Methods that refuse a network by name, of which their own tests tell."""
CASES = [pair for pair in product(sorted(all_methods()), NETWORK_NAMES) if pair not in REFUSED]
each_method = pytest.mark.parametrize("method", sorted(all_methods()))


@dataclass(frozen=True)
class Case:
    teacher: Model
    before: dict[str, Tensor]
    model: Model


def quantized(method: str, network: str, folder: Path, bits: int = 3) -> Case:
    torch.manual_seed(0)
    teacher = Model(small_networks()[network], f"{network}.pth")
    before = {key: value.clone() for key, value in teacher.network.state_dict().items()}
    given = data(method, folder, teacher.scale, 4)
    fields = fixed(method, network)
    return Case(teacher, before, configured(method, bits=bits, weight_bits=4, **fields).quantize(teacher, given))


def fixed(method: str, network: str) -> dict[str, object]:
    """Inside windows of attention bits cannot follow the image."""
    follows = all_methods()[method].bits_of == "image" and network.startswith("swinir")
    return {"fixed": ("layers.*",)} if follows else {}


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, low_images: Path) -> Case:
    """Every method on every network. Quantized once: pytest puts the tests of one value of the fixture in a row."""
    return quantized(*request.param, low_images)


def test_the_teacher_is_left_alone(case: Case) -> None:
    after = case.teacher.network.state_dict()
    assert after.keys() == case.before.keys()
    assert all(torch.equal(case.before[key], value) for key, value in after.items())
    assert not quant_layers(case.teacher.network)


def test_every_operand_takes_at_most_two_to_the_bits_values(case: Case) -> None:
    """Counted where they are multiplied, on images that were not calibrated on."""
    layers = quant_layers(case.model.network)
    values: dict[str, Tensor] = {}

    def look(name: str):
        def hook(module: nn.Module, _inputs: object, output: Tensor) -> None:
            if getattr(module, "gridless", False):  # levels are those of an image and channel
                values[name] = max(output.flatten(2).flatten(0, 1), key=lambda channel: len(channel.unique())).unique()
                return
            shift = getattr(module, "shift", torch.tensor(0.0))  # channels may have a centre of their own
            if shift.ndim:
                output = max(output.movedim(-shift.ndim, 0), key=lambda channel: len(channel.unique()))
            values[name] = output.unique()

        return hook

    quantizers = {
        f"{name}.{side}": getattr(layer, side)
        for name, layer in layers.items()
        for side in ("left", "right")
        if isinstance(getattr(layer, side), Quantizer)
    }
    images = torch.rand(1, 3, 19, 22)
    with hooks(case.model.network, after={name: look(name) for name in quantizers}):
        case.model(images)
    assert quantizers.keys() == values.keys()
    for name, quantizer in quantizers.items():
        bits = quantizer.bits
        if quantizer.follows_image:
            bits = int(quantizer.bits_of(quantizer.images(images * case.model.network.value_range)))
        assert len(values[name]) <= 2**bits, name
    for name, layer in layers.items():
        if isinstance(layer.right, CodedWeight):
            own = any(bound.ndim for bound in layer.right.quantizer.parameters())  # bounds for each channel
            weight = layer.right()  # as it is multiplied, channels' factors in it
            rows = weight.flatten(1) if own else weight.reshape(1, -1)
            assert max(len(row.unique()) for row in rows) <= 2**layer.right.quantizer.bits, name


def test_saved_and_reopened_it_gives_the_same_bits(case: Case, tmp_path: Path) -> None:
    path = case.model.save(tmp_path / "m.safetensors")
    again = load(path)
    images = torch.rand(2, 3, 17, 20)
    assert torch.equal(again(images), case.model(images))
    assert again.record == case.model.record
    assert again.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_file_is_as_large_as_the_bits_counted(case: Case, tmp_path: Path) -> None:
    size = case.model.save(tmp_path / "m.safetensors").stat().st_size
    assert size <= 1.03 * case.model.sizes().stored_bits / 8 + 20 * 1024
    assert size >= case.model.sizes().stored_bits / 8


@each_method
def test_the_same_seed_gives_the_same_bytes(method: str, low_images: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        quantized(method, "edsr", low_images).model.save(tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("method", "network"),
    [
        (method, network)
        if method == "minmax" or network in ("edsr", "swinir")
        else pytest.param(method, network, marks=pytest.mark.exhaustive)
        for method, network in CASES
    ],
)
def test_eight_bits_stay_close_to_float(method: str, network: str, low_images: Path) -> None:
    """By default one method on every network, and every method on one network of convolutions and one of attention."""
    torch.manual_seed(0)
    teacher = Model(small_networks()[network], "x")
    patches = Calibration.from_low_resolution(low_images, count=6, size=24)
    student = configured(method, bits=8, **fixed(method, network)).quantize(
        teacher, data(method, low_images, teacher.scale, 6)
    )
    images = patches.batch(range(3))
    expected = teacher(images)
    error = (student(images) - expected).square().mean() / expected.var()
    # Percentile, and DDTB of weights, clip 1 % on each side, whatever the bits.
    assert float(error) < (0.2 if method in ("percentile", "ddtb") else 0.01)


@each_method
def test_edges_and_exceptions(method: str, edsr: Model, low_images: Path) -> None:
    given = data(method, low_images, edsr.scale, 6)
    own = {"srquant": {"spare": 0}} | {name: {"edges": "8bit"} for name in PAIRS}
    kind = partial(configured, method, **own.get(method, {}))

    def bits(chosen: Method) -> dict[str, tuple[int, int]]:
        model = chosen.quantize(edsr, given)
        return {layer.name: (layer.right.bits, layer.left.bits) for layer in model.layers()}

    body = {f"body.{i}.body.{j}" for i in range(2) for j in (0, 2)}
    ends = {"head.0", "tail.0.0", "tail.0.2", "tail.1"}
    eight = bits(kind(bits=4, weight_bits=5))
    assert {name for name, b in eight.items() if b == (8, 8)} == ends
    may = {4} if all_methods()[method].bits_of == "layer" else {3, 4, 5}
    assert {name for name, b in eight.items() if b[0] == 5 and b[1] in may} == body | {"body.2"}
    kind = partial(configured, method, **own["srquant"] if method == "srquant" else {})
    assert set(bits(kind(bits=4, edges="float"))) == body
    assert set(bits(kind(bits=4, edges="none")).values()) <= set(product({4}, may))
    rules = bits(kind(bits=4, layers=("body.*=6", "body.0.*=3/7", "tail.1=float")))
    assert rules["body.0.body.2"] == (3, 7)
    assert rules["body.1.body.0"] == (6, 6)
    assert "tail.1" not in rules


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("nothing.*=8", "matches no layer"),
        ("body.*", "is not a rule"),
        ("=8", "is not a rule"),
        ("body.*=9", "bits=9 is outside 2…8"),
        ("body.*=4/1", "bits=1 is outside 2…8"),
        ("body.*=four", "'four' in 'body.*=four' is not a number of bits"),
        ("body.*=4/4/4", "is not a number of bits"),
        ("*=float", "nothing is left to quantize"),
    ],
)
def test_bad_rules(rule: str, message: str, edsr: Model, calibration: Calibration) -> None:
    with pytest.raises(ArgumentError) as caught:
        all_methods()["minmax"](layers=(rule,)).quantize(edsr, calibration)
    assert message in str(caught.value)


def test_a_quantized_model_is_not_quantized_again(low_images: Path, calibration: Calibration) -> None:
    case = quantized("minmax", "edsr", low_images)
    with pytest.raises(ArgumentError, match=r"quantized already \(by minmax\)"):
        all_methods()["plq"]().quantize(case.model, calibration)
