"""The state of an unfinished run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from srquant.learning import state as states
from srquant.learning.state import Owner, StateFile
from srquant.support.errors import OutputError, TrainingError

CPU = torch.device("cpu")
OWNER = Owner("finetuning", "oaptq", "edsr.pth", {"configuration": "1", "float network": "2", "start": "3"})


class Evil:
    def __reduce__(self):
        return os.mkdir, ("marker",)


def state(path: Path, owner: Owner = OWNER) -> StateFile:
    return StateFile(path, owner, TrainingError)


def read(path: Path, owner: Owner = OWNER) -> dict[str, Any] | None:
    found: list[dict[str, Any]] = []
    state(path, owner).resume(CPU, found.append)
    return found[0] if found else None


def with_header(path: Path, **fields: object) -> None:
    """Write other fields into the line that the file begins with."""
    line, body = path.read_bytes().split(b"\n", 1)
    path.write_bytes(json.dumps({**json.loads(line), **fields}).encode() + b"\n" + body)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    state(tmp_path / "s").save(300, 500, {"step": 300, "weights": {"a": torch.ones(50)}})
    return tmp_path / "s"


def test_what_is_kept_is_read(kept: Path, tmp_path: Path) -> None:
    assert read(tmp_path / "other") is None
    found = read(kept)
    assert found is not None
    assert (found["step"], found["weights"]["a"].tolist()) == (300, [1] * 50)


def test_the_file_says_whose_it_is(kept: Path) -> None:
    header = json.loads(kept.read_bytes().split(b"\n")[0])
    names = ("work", "method", "network", "step", "steps", "torch", "identity")
    assert [header[name] for name in names] == [
        *("finetuning", "oaptq", "edsr.pth", 300, 500, torch.__version__),
        OWNER.identity,
    ]
    assert header["program"].startswith("srquant")
    assert header["saved"].endswith("+00:00")


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"method": "srquant"}, "not of srquant on edsr.pth"),
        ({"network": "rdn.pth"}, "not of oaptq on rdn.pth"),
        ({"work": "training", "method": "", "network": "edsr"}, "not of training on edsr"),
        ({"identity": {**OWNER.identity, "configuration": "0"}}, "with another configuration"),
        ({"identity": {**OWNER.identity, "float network": "0", "start": "0"}}, "with another float network"),
        ({"identity": {**OWNER.identity, "loss": "0"}}, "with another loss"),
        ({"identity": {"configuration": "1", "float network": "2"}}, "with another start"),
    ],
)
def test_a_state_of_another_run_is_refused(kept: Path, other: dict[str, Any], difference: str) -> None:
    with pytest.raises(TrainingError) as caught:
        read(kept, replace(OWNER, **other))
    sentence = f"{kept} holds an unfinished run of oaptq on edsr.pth (step 300 of 500), {difference}; give the command"
    assert str(caught.value).startswith(sentence)


def test_a_state_of_another_torch_is_refused(kept: Path) -> None:
    with_header(kept, torch="1.0")
    with pytest.raises(TrainingError, match=r"written with torch 1\.0, while this is torch .* install that version"):
        read(kept)


def test_a_state_of_a_newer_version_is_refused(kept: Path) -> None:
    with_header(kept, srquant_state=states.FORMAT + 1, more=1)
    with pytest.raises(TrainingError, match=r"written by a newer version of srquant .* update srquant"):
        read(kept)


def test_other_files_are_refused_and_run_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kept.parent)
    archive = io.BytesIO()
    torch.save({"identity": "me", "weights": torch.ones(5)}, archive)  # as the first format was
    for content in (b"", b"notes", pickle.dumps(Evil()), pickle.dumps([1]), archive.getvalue(), b"{}\n", b"\n"):
        kept.write_bytes(content)
        with pytest.raises(TrainingError, match="is no state of an unfinished run"):
            read(kept)
    assert [path.name for path in kept.parent.iterdir()] == ["s"]


def test_damaged_states_are_refused_and_run_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kept.parent)
    whole = kept.read_bytes()
    start = whole.index(b"\n") + 1
    flipped = bytearray(whole)
    flipped[start + (len(whole) - start) // 2] ^= 1
    evil = pickle.dumps(Evil())
    damaged = [whole[:-100], whole + b"0", whole[:start], whole[: start - 1], whole[:30], bytes(flipped)]
    for content in damaged:
        kept.write_bytes(content)
        with pytest.raises(TrainingError, match="is a damaged state"):
            read(kept)
    kept.write_bytes(whole[:start] + evil)
    with_header(kept, bytes=len(evil), sha256=hashlib.sha256(evil).hexdigest())
    with pytest.raises(TrainingError, match="is a damaged state"):
        read(kept)
    for fields in ({"step": -1}, {"step": "3"}, {"identity": 3}, {"identity": {"a": 1}}, {"more": 1}):
        kept.write_bytes(whole)
        with_header(kept, **fields)
        with pytest.raises(TrainingError, match="is a damaged state"):
            read(kept)
    assert [path.name for path in kept.parent.iterdir()] == ["s"]


def test_a_state_that_lacks_something_is_damaged(kept: Path) -> None:
    def load(content: dict[str, Any]) -> None:
        content["adam"]

    with pytest.raises(TrainingError, match="is a damaged state"):
        state(kept).resume(CPU, load)


def test_a_folder_is_no_state(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read: Is a directory"):
        read(tmp_path)
    with pytest.raises(OutputError, match="it is a folder"):
        state(tmp_path).save(1, 2, {})


def test_a_state_is_due_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(states.time, "monotonic", lambda: now[0])
    assert states.SAVE_EVERY == 60, "so much work is lost at most"
    file = state(tmp_path / "s")
    now[0] += states.SAVE_EVERY - 1
    assert not file.due
    now[0] += 1
    assert file.due
    file.save(1, 2, {})
    assert not file.due


@pytest.mark.parametrize("named", [OWNER.identity, {}, {"start": "3"}])
def test_ones_own_state_is_removed(kept: Path, named: dict[str, str]) -> None:
    state(kept, replace(OWNER, identity=named)).remove()
    assert not kept.exists()
    state(kept).remove()


@pytest.mark.parametrize(
    "other",
    [
        {"method": "srquant"},
        {"network": "rdn.pth"},
        {"work": "training", "method": "", "network": "edsr"},
        {"identity": {**OWNER.identity, "start": "0"}},
        {"identity": {"loss": "1"}},
    ],
)
def test_a_state_of_another_run_is_never_removed(kept: Path, other: dict[str, Any]) -> None:
    state(kept, replace(OWNER, **other)).remove()
    assert read(kept) is not None


@pytest.mark.parametrize("content", [b"", b"notes of a user", pickle.dumps([1])])
def test_a_file_of_somebody_elses_is_never_removed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    state(tmp_path / "s").remove()
    assert (tmp_path / "s").read_bytes() == content


def test_names_of_states_tell_outputs_apart(tmp_path: Path) -> None:
    names = [states.state_of(tmp_path / name).name for name in ("long.safetensors", "long.json")]
    assert names == ["long.safetensors.state", "long.json.state"]
