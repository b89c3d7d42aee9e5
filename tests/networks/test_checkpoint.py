"""Files of weights: opening runs no code and says what is wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.conftest import small_networks

from srquant.networks.checkpoint import read_checkpoint
from srquant.networks.opening import HEADER, load_network
from srquant.support.errors import ArgumentError, NetworkError


def fresh_state() -> dict[str, torch.Tensor]:
    return dict(small_networks()["edsr"].state_dict())


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    struck = tmp_path / "struck"
    for writer in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))):
        writer({"params": fresh_state(), "trap": Bomb(struck)}, tmp_path / "n.pth")
        with pytest.raises(NetworkError, match="would run code when opened and is refused"):
            read_checkpoint(tmp_path / "n.pth")
    assert not struck.exists()


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 200, 0.5, 0.99])
def test_cut_files(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / f"n.{kind}"
    if kind == "pth":
        torch.save(fresh_state(), path)
    else:
        save_file(fresh_state(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(NetworkError, match=r"n\.(pth|safetensors)"):
        read_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state = fresh_state()
    state["tail.1.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "n.pth")
    with pytest.raises(NetworkError, match=r"NaN or infinite: tail\.1\.weight"):
        load_network(tmp_path / "n.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, "text", 7])
def test_files_without_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "n.pth")
    with pytest.raises(NetworkError, match=r"n\.pth holds no tensors"):
        read_checkpoint(tmp_path / "n.pth")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="is not there"):
        read_checkpoint(tmp_path / "n.pth")
    with pytest.raises(NetworkError, match="is a folder"):
        read_checkpoint(tmp_path)


def test_random_bytes(tmp_path: Path) -> None:
    (tmp_path / "n.pth").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(NetworkError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "n.pth")


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (1, "take images of 1 channel; .* run its nn.Module on luma with Model.wrap"),
        (4, "take images of 4 channels; .* weights for RGB"),
    ],
)
@pytest.mark.parametrize("name", sorted(small_networks()))
def test_own_networks_of_other_channels_are_refused_by_name(
    name: str, channels: int, message: str, tmp_path: Path
) -> None:
    network = small_networks()[name]
    state = dict(network.state_dict())
    first = f"{network.edges.first[0]}.weight"
    state[first] = state[first][:, :1].repeat(1, channels, 1, 1)
    torch.save(network.to_published(state), tmp_path / "n.pth")
    with pytest.raises(NetworkError, match=f"look like {network.name}, but {message}"):
        load_network(tmp_path / "n.pth")


def test_complex_weights_are_refused(tmp_path: Path) -> None:
    state = fresh_state()
    state["head.0.weight"] = state["head.0.weight"].to(torch.complex64)
    torch.save(state, tmp_path / "n.pth")
    with pytest.raises(NetworkError, match=r"n\.pth has weights that are complex numbers; .*: head\.0\.weight"):
        load_network(tmp_path / "n.pth")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_whole_numbers_are_no_weights(tmp_path: Path, dtype: torch.dtype, kind: str) -> None:
    state = fresh_state()
    state["body.0.body.0.weight"] = (100 * state["body.0.body.0.weight"]).to(dtype)
    path = tmp_path / f"n.{kind}"
    save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    with pytest.raises(NetworkError, match=r"are whole numbers: body\.0\.body\.0\.weight \(\w+\); give the float"):
        load_network(path)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_numbers_of_four_bits_are_refused(tmp_path: Path, kind: str) -> None:
    state = fresh_state()
    packed = torch.zeros(state["head.0.weight"].shape, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    state["head.0.weight"] = packed
    path = tmp_path / f"n.{kind}"
    save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    with pytest.raises(NetworkError, match=r"cannot be turned into float32: head\.0\.weight"):
        load_network(path)


def test_halves_are_weights(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in fresh_state().items()}
    torch.save(state, tmp_path / "n.pth")
    assert load_network(tmp_path / "n.pth").state_dict()["head.0.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.eye(8).to_sparse(), "not plain tensors"),
        (torch.zeros(8, 3, 3, 3, device="meta"), "not plain tensors"),
        (torch.ones(1).expand(1 << 40), "far more weights than a file of its size holds"),
        (torch.zeros(()), "incomplete"),
    ],
)
def test_strange_weights(tmp_path: Path, weight: torch.Tensor, message: str) -> None:
    torch.save(fresh_state() | {"head.0.weight": weight}, tmp_path / "n.pth")
    with pytest.raises(NetworkError, match=message) as caught:
        load_network(tmp_path / "n.pth")
    assert "\n" not in str(caught.value)


def test_keys_that_claim_endless_blocks(tmp_path: Path) -> None:
    for number in (5000, 10**12):
        torch.save(fresh_state() | {f"body.{number}.body.0.weight": torch.zeros(8)}, tmp_path / "n.pth")
        with pytest.raises(NetworkError, match=r"look like edsr, but blocks=\d+ is outside"):
            load_network(tmp_path / "n.pth")


@pytest.mark.parametrize("value_range", [0, -1.0, float("nan"), float("inf")])
def test_value_ranges_that_are_none(tmp_path: Path, value_range: float) -> None:
    torch.save(fresh_state(), tmp_path / "n.pth")
    with pytest.raises(ArgumentError, match=f"^value_range={value_range} is "):
        load_network(tmp_path / "n.pth", value_range)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "Invalid JSON"),
        ("[]", "has no fields"),
        ('{"name": "edsr"}', "config is missing"),
        ('{"name": ["edsr"], "config": {}}', "name=.* is not a text"),
        ('{"name": "edsrr", "config": {}}', "needs the network 'edsrr', which nothing here brings: install or"),
        ('{"name": "edsr", "config": {"blocks": 1000000000000}}', "config.blocks=1000000000000 is outside 1…4,096"),
        ('{"name": "edsr", "config": {"blocks": 4000, "channels": 8}}', "larger network than the weights do"),
        (
            '{"name": "edsr", "config": {"channels": 60000, "blocks": 2}}',
            "channels=60,000 is more than|shapes that dis",
        ),
        ('{"name": "edsr", "config": {"residual_scale": "1"}}', "config.residual_scale='1' is not a number"),
        ('{"name": "edsr", "config": {"blocs": 2}}', "did you mean 'config.blocks'"),
        ('{"name": "swinir", "config": {"depths": [2], "heads": [1000]}}', "heads"),
        ('{"name": "rdn", "config": {"layers": 4096, "blocks": 4096}}', "larger network|more than"),
        ('{"name": "msrresnet", "config": {"scale": 0}}', "config.scale=0 is outside"),
        ('{"name": "custom", "config": {"scale": 2}}', "passed from Python"),
    ],
)
def test_headers_of_float_networks(tmp_path: Path, header: str, message: str) -> None:
    save_file(fresh_state(), tmp_path / "n.safetensors", {HEADER: header})
    with pytest.raises(NetworkError, match=message) as caught:
        load_network(tmp_path / "n.safetensors")
    assert "\n" not in str(caught.value)
