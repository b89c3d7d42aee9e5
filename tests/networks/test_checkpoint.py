"""Files of weights: opening runs no code and says what is wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.conftest import small_networks

from srquant.errors import NetworkError
from srquant.networks.checkpoint import read_checkpoint
from srquant.networks.opening import load_network


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
    with pytest.raises(NetworkError, match="holds no tensors"):
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


def test_gray_networks_are_refused(tmp_path: Path) -> None:
    state = fresh_state()
    state["head.0.weight"] = state["head.0.weight"][:, :1].clone()
    torch.save(state, tmp_path / "n.pth")
    with pytest.raises(NetworkError, match=r"head\.0\.weight is \[8, 1, 3, 3\], expected \[8, 3, 3, 3\]"):
        load_network(tmp_path / "n.pth")
