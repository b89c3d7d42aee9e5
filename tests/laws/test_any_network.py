"""Laws for whatever network somebody brings: quantized layers change nothing but values, and files open again."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from tests.architectures import ARCHITECTURES, architecture
from tests.conftest import NETWORK_NAMES, small_networks
from tests.wild import IN_PART, QUANTIZED
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srquant.images import Calibration
from srquant.methods import MinMax
from srquant.methods.base import ObservationSettings
from srquant.model import Model, load
from srquant.model.preparing import prepare
from srquant.model.sameness import let_through
from srquant.support.errors import NetworkError

NAMES = [*QUANTIZED, *IN_PART]
each = pytest.mark.parametrize("name", NAMES)


def module(name: str) -> nn.Module:
    torch.manual_seed(0)
    made = QUANTIZED[name]() if name in QUANTIZED else IN_PART[name][0]()
    return made.eval()


def quantized(name: str, calibration: Calibration, bits: int = 2) -> Model:
    method = MinMax(bits=bits, edges="none")
    return method.quantize(Model.wrap(module(name), 2), calibration)


@pytest.mark.parametrize("name", [*NETWORK_NAMES, *NAMES])
def test_layers_that_let_everything_through_change_nothing(name: str) -> None:
    network = small_networks()[name] if name in NETWORK_NAMES else Model.wrap(module(name), 2).network
    prepared = prepare(network)
    images = torch.rand(2, 3, 16, 24) * network.value_range
    swapped = let_through(prepared.network, [found.name for found in prepared.survey.multiplications])
    with torch.no_grad():
        expected, found = network(images), swapped(images)
        assert torch.equal(prepared.network(images), found), "to the bit, but for what was folded"
    if prepared.folds:
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    else:
        assert torch.equal(found, expected)


@each
def test_everything_is_quantized_or_named(name: str, calibration: Calibration) -> None:
    record = quantized(name, calibration).record
    assert record is not None
    if name in QUANTIZED:
        assert record.coverage == pytest.approx(1)
        assert not record.kept
    else:
        (kept,) = record.kept
        assert (kept.name, kept.reason) == ("network.body", IN_PART[name][1])
        assert kept.coverage + record.coverage == pytest.approx(1)


_NARROW = "ignore:Initializing zero-element tensors"
"""So narrow transformers have layers without elements."""
FEW = ("SPAN", "RCAN", "RealPLKSR", "DAT")


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.exhaustive) for name in ARCHITECTURES]
)
@pytest.mark.filterwarnings(_NARROW)
def test_published_architectures(name: str, calibration: Calibration, tmp_path: Path) -> None:
    """The laws above, for small networks of the architectures that people train."""
    if find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    network = architecture(name)
    prepared = prepare(network)
    images = torch.rand(1, 3, 24, 40)
    swapped = let_through(prepared.network, [found.name for found in prepared.survey.multiplications])
    with torch.no_grad():
        expected, found = network(images.clone()), swapped(images.clone())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    model = MinMax(bits=8, edges="none", observation=ObservationSettings(batch=1)).quantize(
        Model(network, name), calibration
    )
    again = load(model.save(tmp_path / "q.safetensors"))
    assert torch.equal(again(images), model(images))
    record = model.record
    assert record is not None
    assert record.coverage + sum(kept.coverage for kept in record.kept) == pytest.approx(1)
    distinct = _Distinct()
    with distinct:
        model(images)
    seen = [max(pair) <= 256 for pair in distinct.counts]
    assert sum(seen) >= len(model.layers())
    if not record.kept:
        assert all(seen)


class _Distinct(TorchFunctionMode):
    """How many values the operands of each product have that runs, in its worst run."""

    PRODUCTS = (F.conv2d, F.conv_transpose2d, F.linear, torch.matmul, torch.linalg.matmul, Tensor.__matmul__)

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[tuple[int, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.PRODUCTS:
            left, right, *_ = (*args, *(kwargs or {}).values())
            self.counts.append((left.unique().numel(), right.unique().numel()))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*NETWORK_NAMES, *QUANTIZED])
def test_no_product_that_runs_sees_more_values_than_codes(name: str, calibration: Calibration) -> None:
    """Counted where the products are, not read from a report."""
    if name in NETWORK_NAMES:
        model = MinMax(bits=2, edges="none").quantize(Model(small_networks()[name], name), calibration)
    else:
        model = quantized(name, calibration)
    distinct = _Distinct()
    with distinct:
        model(torch.rand(1, 3, 16, 16))
    assert distinct.counts
    assert max(max(pair) for pair in distinct.counts) <= 4


@each
def test_a_saved_network_opens_again(name: str, calibration: Calibration, tmp_path: Path) -> None:
    """With the module as it was made, and with one that has run."""
    model = quantized(name, calibration)
    path = model.save(tmp_path / "q.safetensors")
    images = torch.rand(1, 3, 10, 14)
    ran = module(name)
    with torch.no_grad():
        ran(images)
    for given in (module(name), ran):
        again = load(path, network=given)
        assert again.record == model.record
        assert torch.equal(again(images), model(images))
    assert torch.equal(load(again.save(tmp_path / "again.safetensors"), network=ran)(images), model(images))
    if name in QUANTIZED:
        with safe_open(path, "pt") as file:
            floats = file.get_tensor("float32").numel() if "float32" in set(file.keys()) else 0
        layers = model.layers()
        others = [part for part in model.network.modules() if isinstance(part, nn.PReLU | nn.BatchNorm2d)]
        kept = [value for part in others for value in part.state_dict().values() if value.is_floating_point()]
        needed = sum(layer.biases + 3 for layer in layers) + sum(value.numel() for value in kept)
        assert floats <= needed, "numbers are stored that no layer computes with any more"


@each
def test_a_float_network_is_left_as_it_is(name: str, calibration: Calibration) -> None:
    mine = module(name)
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        expected = mine(images)
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    MinMax(bits=8).quantize(Model.wrap(mine, 2), calibration)
    assert all(torch.equal(value, before[key]) for key, value in mine.state_dict().items())
    with torch.no_grad():
        assert torch.equal(mine(images), expected)


def test_a_network_that_treats_its_layers_in_a_way_of_its_own_is_refused(calibration: Calibration) -> None:
    class ByClass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            for layer in (self.first, self.last):
                x = layer(x) if type(layer) is nn.Conv2d else layer(x) * 2
            return F.pixel_shuffle(x, 2)

    with pytest.raises(NetworkError, match=r"computes something else.*network\.last is the first.*layers=NAME=float"):
        MinMax().quantize(Model.wrap(ByClass().eval(), 2), calibration)


def test_a_network_that_fails_with_other_layers_is_refused(calibration: Calibration) -> None:
    class NeedsTheRealOne(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.only(x) + self.only._conv_forward(x, self.only.weight, self.only.bias)
            return F.pixel_shuffle(y, 2)

    with pytest.raises(
        NetworkError, match="with quantized layers in it, the network cannot run on an image of 48x47: Attrib"
    ):
        MinMax().quantize(Model.wrap(NeedsTheRealOne().eval(), 2), calibration)
