"""Products of two activations that are functions in a network, made modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.architectures import architecture
from torch import Tensor, nn

from srquant.api import configure
from srquant.images import Calibration
from srquant.methods import MinMax
from srquant.model import Model, load
from srquant.model.preparing import prepare
from srquant.model.products import name_products, route_products
from srquant.networks.modules import MatMul

Products = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of queries, keys and values, ``n heads tokens channels``."""


def _with_operators(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).softmax(-1) @ v


def _with_methods(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.matmul(k.transpose(-2, -1)).softmax(-1).matmul(v)


def _with_names(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.bmm(q.flatten(0, 1), mat2=k.flatten(0, 1).mT).softmax(-1)
    return torch.matmul(input=scores, other=v.flatten(0, 1)).unflatten(0, v.shape[:2])


def _with_letters(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("nhic, nhjc -> hnij", q, k).softmax(-1)
    return torch.einsum("hnij,nhjc->nhic", [scores, v])


def _in_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.zeros(()).expand(q.shape[-2], k.shape[-2]))


def _masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    count = q.shape[-2]
    return F.scaled_dot_product_attention(q, k, v, torch.ones(count, count, dtype=torch.bool).tril(), scale=0.3)


WAYS: tuple[Products, ...] = (_with_operators, _with_methods, _with_names, _with_letters, _in_one, _masked)


class Attention(nn.Module):
    """Over a whole image, with another module that has products inside it."""

    def __init__(self, products: Products, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.inner = inner or nn.Identity()
        self.products = products

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(x.flatten(2).mT).reshape(n, h * w, 3, 2, 4).permute(2, 0, 3, 1, 4)
        v = self.inner(v.transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)).flatten(2).reshape(v.mT.shape).mT
        return x + self.products(q, k, v).mT.reshape(n, c, h, w)


class Network(nn.Module):
    """Convolution, attention, convolution, pixel shuffle: ×2."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.attention = attention

    def forward(self, images: Tensor) -> Tensor:
        return F.pixel_shuffle(self.last(self.attention(self.first(images))), 2)


def _model(attention: nn.Module) -> Model:
    torch.manual_seed(0)
    return Model.wrap(Network(attention).eval(), 2)


@pytest.mark.parametrize("products", WAYS)
def test_products_are_modules_and_the_network_is_the_same(products: Products) -> None:
    model, images = _model(Attention(products)), torch.rand(2, 3, 9, 7)
    prepared = prepare(model.network)
    names = [each.name for each in prepared.survey.multiplications if each.kind.name == "matmul"]
    assert names == ["network.attention.product_0", "network.attention.product_1"]
    assert sum(each.multiply_adds for each in prepared.survey.multiplications) == prepared.survey.multiply_adds
    torch.testing.assert_close(prepared.network(images), model.network(images))
    assert isinstance(prepared.network.get_submodule("network.attention"), Attention)
    assert not any(isinstance(module, MatMul) for module in model.network.modules()), "the float network is as it was"
    assert prepared.network.state_dict().keys() == model.network.state_dict().keys()


def test_each_product_goes_to_the_module_around_it() -> None:
    """Nested, in a module that runs twice, and beside a product that is a module already."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.inner = MatMul(), Attention(_with_letters, Attention(_in_one))

        def forward(self, x: Tensor) -> Tensor:
            x = self.own(x, x.mT @ x) if x.shape[-1] == x.shape[-2] else x
            return self.inner(self.inner(x))

    model, images = _model(Twice()), torch.rand(1, 3, 8, 8)
    prepared = prepare(model.network)
    found = {each.name for each in prepared.survey.multiplications if each.kind.name == "matmul"}
    inner = "network.attention.inner"
    products = {f"{inner}{deeper}.product_{number}" for deeper in ("", ".inner") for number in (0, 1)}
    assert found == {"network.attention.own", "network.attention.product_0", *products}
    seen: list[tuple[str, tuple[int, ...]]] = []
    for name in found:

        def look(_module: nn.Module, operands: tuple[Tensor, ...], name: str = name) -> None:
            seen.append((name.removeprefix("network.attention."), tuple(operands[0].shape[-2:])))

        prepared.network.get_submodule(name).register_forward_pre_hook(look)
    torch.testing.assert_close(prepared.network(images), model.network(images))
    once = [("inner.inner.product_0", (64, 4)), ("inner.inner.product_1", (64, 64))]
    once += [("inner.product_0", (64, 4)), ("inner.product_1", (64, 64))]
    assert seen == [("product_0", (8, 8)), ("own", (8, 8)), *once, *once]


@pytest.mark.parametrize("products", WAYS)
def test_quantized_saved_and_opened_again(products: Products, calibration: Calibration, tmp_path: Path) -> None:
    model, images = _model(Attention(products)), torch.rand(2, 3, 9, 7)
    quantized = MinMax(bits=4, edges="none").quantize(model, calibration)
    assert quantized.record is not None
    assert quantized.record.coverage == 1
    float_module = Network(Attention(products))
    again = load(quantized.save(tmp_path / "q.safetensors"), network=float_module)
    assert torch.equal(again(images), quantized(images))
    assert torch.equal(copy.deepcopy(again.network)(images), again.network(images))
    assert torch.equal(again.to("cpu")(images), quantized(images))
    left_float = MinMax(bits=4, edges="none", layers=("*.product_*=float",)).quantize(model, calibration)
    assert [kept.name for kept in left_float.record.kept if "product" in kept.name]  # pyright: ignore
    assert not torch.equal(left_float(images), quantized(images))
    torch.testing.assert_close(model(images), Model.wrap(model.network.get_submodule("network"), 2)(images))


def test_products_of_a_method_that_learns(calibration: Calibration) -> None:
    """Gradients pass through them, and nothing is lost to their being modules."""
    model = _model(Attention(_in_one))
    method = configure("srquant", 4, finetuning={"steps": 3}, drawings=1, saturated=1)
    quantized = method.quantize(model, calibration)
    assert {"network.attention.product_0", "network.attention.product_1"} <= {each.name for each in quantized.layers()}


def test_what_is_no_product_of_two_activations_stays() -> None:
    class Others(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            row = x.flatten(2)
            y = (
                torch.einsum("ncp,ncq->n", row, row)[:, None, None, None]
                + torch.einsum("ncp->nc", row)[..., None, None]
            )
            return x + y * (row @ row[0, 0]).mean() + torch.einsum("nc...,nd...->n", x, x)[:, None, None, None]

    model, images = _model(Others()), torch.rand(2, 3, 6, 6)
    prepared = prepare(model.network)
    assert not [each for each in prepared.survey.multiplications if each.kind.name == "matmul"]
    torch.testing.assert_close(prepared.network(images), model.network(images))


@pytest.mark.parametrize("refuses", [False, True])
def test_a_network_that_would_compute_something_else_is_left_as_it_was(refuses: bool) -> None:
    class Counting(nn.Module):
        """Looks at its own modules."""

        def forward(self, x: Tensor) -> Tensor:
            if refuses and list(self.children()):
                raise ValueError("there is a module that was not there")
            return x + x.mT.mT @ x.new_ones(x.shape[-1], x.shape[-1]) * (1 + len(list(self.children())))

    model = _model(Counting())
    kind = type(model.network.get_submodule("network.attention"))
    name_products(model.network)
    assert type(model.network.get_submodule("network.attention")) is kind
    assert not list(model.network.get_submodule("network.attention").children())


def test_names_of_other_modules_route_nothing() -> None:
    model = _model(Attention(_with_operators))
    route_products(model.network, ["network.first", "network.nowhere.product_0", "network.attention.product_x"])
    assert not any(isinstance(module, MatMul) for module in model.network.modules())


@pytest.mark.parametrize("name", ["ATD", "CRAFT", "DAT", "GRL", "OmniSR", "SwinIR"])
@pytest.mark.filterwarnings("ignore:torch.meshgrid", "ignore:Initializing zero-element tensors")
def test_attention_of_other_people_is_covered(name: str) -> None:
    """Layers alone are 30 to 90 % of their multiply-adds."""
    if find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    network = architecture(name)
    images = torch.rand(1, 3, 32, 48)
    prepared = prepare(network)
    survey = prepared.survey
    assert sum(each.multiply_adds for each in survey.multiplications) >= 0.95 * survey.multiply_adds
    with torch.no_grad():
        torch.testing.assert_close(prepared.network(images), network(images), rtol=0, atol=1e-4)
