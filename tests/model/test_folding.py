"""Which normalisations are folded: only those whose input is a convolution's output that nobody else sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import small_networks
from tests.model.test_model import Custom
from torch import Tensor, nn

from srquant.images import Calibration
from srquant.methods import MinMax, all_methods
from srquant.methods.pipeline.plan import make_plan
from srquant.model import Model, folding, load
from srquant.model.preparing import prepare
from srquant.model.swapping import quant_layers
from srquant.networks import SRNetwork
from srquant.support.watching import watch


class Network(nn.Module):
    """A convolution, what a function makes of it, and the end."""

    def __init__(self, middle: Callable[[Network, Tensor], Tensor]) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 12, 3, padding=1)
        self.conv = nn.Conv2d(12, 12, 3, padding=1)
        self.norm, self.other = nn.BatchNorm2d(12), nn.BatchNorm2d(12)
        self.same = nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.tail = nn.Conv2d(12, 12, 3, padding=1)
        self.middle = middle
        for norm in (self.norm, self.other):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(self.middle(self, self.head(x))), 2)


def read_by_a_sum(n: Network, x: Tensor) -> Tensor:
    y = n.conv(x)
    return n.norm(y) + y


def read_by_a_concatenation(n: Network, x: Tensor) -> Tensor:
    y = n.conv(x)
    z = n.norm(y)
    return z * torch.cat([y[:, 6:], y[:, :6]], 1)


def read_by_a_resize(n: Network, x: Tensor) -> Tensor:
    y = n.conv(x)
    return n.norm(y) + F.interpolate(F.interpolate(y, scale_factor=0.5), scale_factor=2)


def read_through_a_view(n: Network, x: Tensor) -> Tensor:
    y = n.conv(x)
    view = y.transpose(2, 3)
    return n.norm(y) + view.mean()


def read_but_not_used(n: Network, x: Tensor) -> Tensor:
    y = n.conv(x)
    y.abs()  # the results would agree; who reads it may differ from image to image
    return n.norm(y)


def read_by_two_norms(n: Network, x: Tensor) -> Tensor:
    y = n.conv(x)
    return n.norm(y) - n.other(y)


def overwritten_by_a_function(n: Network, x: Tensor) -> Tensor:
    return n.norm(F.relu(n.conv(x), inplace=True))


def overwritten_by_a_module(n: Network, x: Tensor) -> Tensor:
    return n.norm(n.relu(n.conv(x)))


def overwritten_by_a_sum(n: Network, x: Tensor) -> Tensor:
    y = n.conv(x)
    y += x
    return n.norm(y)


def overwritten_through_a_view(n: Network, x: Tensor) -> Tensor:
    y = n.conv(x)
    y[:, :, 0].zero_()
    return n.norm(y)


def overwritten_without_a_result(n: Network, x: Tensor) -> Tensor:
    y = n.conv(x)
    torch._foreach_mul_([y], 2.0)
    return n.norm(y)


def overwritten_afterwards(n: Network, x: Tensor) -> Tensor:
    y = n.conv(x)
    z = n.norm(y)
    y.fill_(1)
    return z


def turned_before_it_is_read(n: Network, x: Tensor) -> Tensor:
    return n.norm(n.conv(x).transpose(2, 3)).transpose(2, 3)


def called_again_without_the_norm(n: Network, x: Tensor) -> Tensor:
    return n.conv(n.norm(n.conv(x)))


def norm_called_again(n: Network, x: Tensor) -> Tensor:
    return n.norm(n.norm(n.conv(x)))


def called_by_keyword(n: Network, x: Tensor) -> Tensor:
    return n.norm(input=n.conv(x))


NOT_FOLDED = [
    read_by_a_sum,
    read_by_a_concatenation,
    read_by_a_resize,
    read_through_a_view,
    read_but_not_used,
    read_by_two_norms,
    overwritten_by_a_function,
    overwritten_by_a_module,
    overwritten_by_a_sum,
    overwritten_through_a_view,
    overwritten_without_a_result,
    overwritten_afterwards,
    turned_before_it_is_read,
    called_again_without_the_norm,
    norm_called_again,
]


def plain(n: Network, x: Tensor) -> Tensor:
    return n.norm(n.conv(x))


def through_a_module_that_does_nothing(n: Network, x: Tensor) -> Tensor:
    return n.norm(n.same(n.conv(x)))


def both_called_twice(n: Network, x: Tensor) -> Tensor:
    return n.norm(n.conv(n.norm(n.conv(x)).relu()))


def overwritten_behind_the_norm(n: Network, x: Tensor) -> Tensor:
    z = n.norm(n.conv(x))
    z += x
    return F.relu_(z)


FOLDED = [plain, called_by_keyword, through_a_module_that_does_nothing, both_called_twice, overwritten_behind_the_norm]


def wrapped(middle: Callable[[Network, Tensor], Tensor]) -> SRNetwork:
    return Model.wrap(Network(middle).eval(), 2, alignment=2).network


def name(middle: Callable[[Network, Tensor], Tensor]) -> str:
    return middle.__name__


@pytest.mark.parametrize("middle", NOT_FOLDED, ids=name)
def test_what_anybody_else_reads_or_overwrites_is_not_folded(
    middle: Callable[[Network, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what was watched, not by comparing results."""
    monkeypatch.setattr(folding, "_agree", lambda expected, found: True)
    network = wrapped(middle)
    folded, _, folds, _ = prepare(network)
    assert not folds
    images = torch.rand(1, 3, 8, 10)
    assert torch.equal(folded(images), network(images))


@pytest.mark.parametrize("middle", FOLDED, ids=name)
def test_what_only_the_norm_reads_is_folded(middle: Callable[[Network, Tensor], Tensor]) -> None:
    network = wrapped(middle)
    folded, _, folds, _ = prepare(network)
    assert [(fold.convolution, fold.norm) for fold in folds] == [("network.conv", "network.norm")]
    assert type(folded.get_submodule("network.norm")) is nn.Identity
    images = torch.rand(1, 3, 8, 10)
    torch.testing.assert_close(folded(images), network(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["conv", "norm"])
def test_a_module_of_two_names_is_not_folded(part: str) -> None:
    module = Network(plain).eval()
    module.add_module("second_name", module.get_submodule(part))
    network = Model.wrap(module, 2).network
    folded, _, folds, survey = prepare(network)
    assert not folds
    assert [multiplication.name for multiplication in survey.multiplications] == [
        "network.head",
        "network.conv",
        "network.tail",
    ]
    images = torch.rand(1, 3, 8, 10)
    assert torch.equal(folded(images), network(images))


def test_folding_leaves_another_convolution_of_the_same_weight_alone() -> None:
    module = Network(lambda n, x: n.tail(n.norm(n.conv(x)))).eval()
    module.tail.weight = module.conv.weight
    network = Model.wrap(module, 2).network
    folded, _, folds, _ = prepare(network)
    assert len(folds) == 1
    images = torch.rand(1, 3, 8, 10)
    torch.testing.assert_close(folded(images), network(images), atol=1e-5, rtol=1e-5)


def test_what_does_not_agree_is_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Switching(Network):
        """Does something else when the norm is gone."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1 if isinstance(self.norm, nn.BatchNorm2d) else 2)

    network = Model.wrap(Switching(plain).eval(), 2).network
    folded, _, folds, survey = prepare(network)
    assert not folds
    assert isinstance(folded.get_submodule("network.norm"), nn.BatchNorm2d)
    assert len(survey.multiplications) == 3


PASSES = {"edsr": 5, "srresnet": 6, "swinir": 5, "wrapped": 5, "wrapped, folded": 7}
"""One to look for weights that are made anew, one for products that are functions, one to watch, two to compare with
quantized layers; one more to fold, and one more where products were found."""


@pytest.mark.parametrize("kind", PASSES)
def test_a_plan_runs_the_network_a_few_times(kind: str) -> None:
    networks = small_networks()
    networks["wrapped"] = Model.wrap(small_networks()["edsr"], 4, 255.0).network
    networks["wrapped, folded"] = Model.wrap(Custom().eval(), 2).network
    network = networks[kind]
    runs: list[int] = []
    network.register_forward_hook(lambda *_: runs.append(1))
    plan = make_plan(Model(network, "x"), MinMax(edges="8bit", norms="folded"))
    assert len(runs) == PASSES[kind]
    assert plan.targets[0].multiplication.role == "first"
    assert bool(plan.folds) == (kind in ("srresnet", "wrapped, folded"))


def test_a_module_called_with_more_than_operands_stays_float(calibration: Calibration) -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3, padding=1)
            self.named = nn.Conv2d(6, 6, 3, padding=1)
            self.up = nn.ConvTranspose2d(6, 3, 3, stride=2, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.named(input=self.conv(x))
            return self.up(y, [2 * y.shape[2], 2 * y.shape[3]])

    model = Model.wrap(Asking().eval(), 2)
    quantized = MinMax(bits=8, edges="none").quantize(model, calibration)
    assert [layer.name for layer in quantized.layers()] == ["network.conv", "network.named"]
    assert quantized.record is not None
    (kept,) = quantized.record.kept
    assert (kept.name, kept.reason) == ("network.up", "a ConvTranspose2d that is given more than its operands")
    assert quantized(torch.rand(1, 3, 5, 6)).shape == (1, 3, 10, 12)


def test_a_pass_is_written_down() -> None:
    module = Network(both_called_twice).eval()
    watched = watch(module, torch.rand(1, 3, 6, 8))
    assert [call.name for call in watched.calls] == ["head", "conv", "norm", "conv", "norm", "tail"]
    first, second = watched.by_name()["conv"]
    norm, again = watched.by_name()["norm"]
    assert first.output == norm.operands[0]
    assert second.output == again.operands[0] != first.output
    assert second.output is not None
    assert watched.readers[second.output.value] == ("norm",)
    assert watched.origins[second.output.value] == "convolution"
    assert watched.origins[second.operands[0].value] == "relu"
    assert watched.pixels == 48
    assert watched.multiply_adds == 48 * 9 * 12 * (3 + 12 + 12 + 12)
    assert watched.output.shape == (1, 3, 12, 16)
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())


@pytest.mark.parametrize("grid", ["free", "int8"])
def test_norms_that_stay_float(grid: Any, calibration: Calibration, tmp_path: Path) -> None:
    """The bare weights are quantized, the norms are in the file, and it opens to the bit."""
    network = small_networks()["srresnet"]
    model = Model(network, "srresnet")
    small = MinMax(grid=grid, edges="none").quantize(model, calibration)
    assert small.record is not None
    assert not small.record.folds
    norms = [module for module in small.network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 5
    for name, layer in quant_layers(small.network).items():
        largest = float(network.get_submodule(name).weight.abs().max())
        assert float(layer.weight.abs().max()) == pytest.approx(largest, rel=1e-4)
    opened = load(small.save(tmp_path / "small.safetensors"))
    images = calibration.batch(range(3))
    assert torch.equal(opened(images), small(images))
    folded = MinMax(norms="folded", grid=grid, edges="none").quantize(model, calibration)
    assert folded.record is not None
    assert len(folded.record.folds) == 5
    assert not torch.equal(folded(images), small(images))


def test_our_recipe_folds_and_the_papers_methods_do_not() -> None:
    assert {name: kind().norms for name, kind in all_methods().items() if kind.__module__.startswith("srquant.")} == {
        name: "folded" if name == "srquant" else "float"
        for name, kind in all_methods().items()
        if kind.__module__.startswith("srquant.")
    }
