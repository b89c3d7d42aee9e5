"""Laws that hold for every network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import NETWORK_NAMES, small_networks

from srquant.model.survey import survey
from srquant.networks import all_networks, open_network
from srquant.networks.opening import load_network, save_network

each_network = pytest.mark.parametrize("name", NETWORK_NAMES)


def test_every_network_is_tested() -> None:
    tested = {network.name for network in small_networks().values()}
    missing = set(all_networks()) - tested - {"custom", "spandrel"}
    assert not missing, f"let small_networks() in tests/conftest.py make a small one of each of {missing}"


@each_network
def test_hyper_parameters_are_deduced_from_the_weights(name: str) -> None:
    network = small_networks()[name]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    again = open_network(state, network.value_range)
    assert type(again) is type(network), "another network's read() takes these weights for its own"
    assert again.config == network.config, "read() deduces other hyper-parameters than the weights were made with"
    images = torch.rand(1, 3, 9, 11) * network.value_range
    assert torch.equal(again(images), network(images))


@each_network
def test_a_saved_network_opens_with_its_own_hyper_parameters(name: str, tmp_path: Path) -> None:
    network = small_networks()[name]
    save_network(tmp_path / "n.safetensors", network, {"note": "x"})
    again = load_network(tmp_path / "n.safetensors")
    assert again.config == network.config
    images = torch.rand(1, 3, 9, 11) * network.value_range
    assert torch.equal(again(images), network(images))


@each_network
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (16, 8), (13, 21)])
def test_any_size_is_enlarged(name: str, size: tuple[int, int]) -> None:
    network = small_networks()[name]
    output = network(torch.rand(2, 3, *size) * network.value_range)
    assert output.shape == (2, 3, size[0] * network.scale, size[1] * network.scale)
    assert bool(output.isfinite().all()), "pad small images inside the network; it must take any size from 1 on"


@each_network
def test_every_multiplication_is_a_module_and_the_ends_are_named(name: str) -> None:
    network = small_networks()[name]
    found = survey(network)
    counted = sum(multiplication.multiply_adds for multiplication in found.multiplications)
    assert counted == pytest.approx(found.multiply_adds), (
        "make every product a Conv2d, ConvTranspose2d, Linear or MatMul module of its own"
    )
    names = {multiplication.name for multiplication in found.multiplications}
    edges = network.edges
    named = (*edges.first, *edges.after_body, *edges.upsampler, *edges.last)
    assert set(named) <= names, "edges name modules that are no multiplications, or never run"
    assert len(set(named)) == len(named), "edges name a module twice"
    assert edges.first, "name the first multiplication in edges"
    assert edges.last, "name the last multiplication in edges"
    modules = dict(network.named_modules())
    assert network.feature_layers, "name modules whose outputs finetuning may compare"
    assert set(network.feature_layers) <= modules.keys(), "feature_layers names modules that are not there"


@each_network
def test_images_of_a_batch_do_not_mix(name: str) -> None:
    network = small_networks()[name]
    images = torch.rand(3, 3, 12, 10) * network.value_range
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, atol=1e-4 * network.value_range, rtol=0)


@each_network
def test_the_receptive_field_is_what_is_said(name: str) -> None:
    """Moving a pixel just outside changes nothing; moving one at its rim does."""
    network = small_networks()[name].double()
    field = network.receptive_field
    if field is None:
        assert network.alignment > 1, "name receptive_field, or set alignment above 1"
        return
    size = 2 * field + 5
    images = torch.rand(1, 3, 1, size, dtype=torch.float64).expand(1, 3, size, size).contiguous() * network.value_range
    before = network(images)

    def change(column: int) -> float:
        moved = images.clone()
        moved[..., column] += network.value_range
        return float((network(moved) - before)[..., : network.scale].abs().max())

    assert change(field + 1) == 0, "receptive_field is too small: pixels farther away change the output"
    assert change(field) > 0, "receptive_field is larger than it need be, which costs time at every tile"


def test_the_grid_does_not_enter_the_networks() -> None:
    """A float network holds no quantizer and no quantized layer."""
    for network in small_networks().values():
        homes = {type(module).__module__ for module in network.modules()}
        assert not {home for home in homes if home.startswith(("srquant.quantizers", "srquant.model"))}
