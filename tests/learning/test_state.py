"""The state of an unfinished run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from srquant.learning.state import read_state, write_state
from srquant.support.errors import TrainingError

CPU = torch.device("cpu")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("marker",)


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    assert read_state(tmp_path / "s", "me", CPU, TrainingError) is None
    write_state(tmp_path / "s", "me", {"step": 3, "weights": {"a": torch.ones(2)}})
    state = read_state(tmp_path / "s", "me", CPU, TrainingError)
    assert state is not None
    assert (state["step"], state["weights"]["a"].tolist()) == (3, [1, 1])
    with pytest.raises(TrainingError, match="holds an unfinished run of another configuration"):
        read_state(tmp_path / "s", "you", CPU, TrainingError)


def test_other_files_are_refused_and_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_state(tmp_path / "s", "me", {"weights": torch.ones(50)})
    whole = (tmp_path / "s").read_bytes()
    for content in (b"", b"notes", whole[:-100], whole[:30], pickle.dumps(Evil()), pickle.dumps([1])):
        (tmp_path / "s").write_bytes(content)
        with pytest.raises(TrainingError, match="is no state of an unfinished run"):
            read_state(tmp_path / "s", "me", CPU, TrainingError)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
