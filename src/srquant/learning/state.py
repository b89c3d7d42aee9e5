"""The state of a run that takes long, kept on disk so that the run goes on after an interruption.

A state is one line of JSON, which says whose it is (``head -1 FILE``), and an archive of PyTorch's. It is taken up by
the run it belongs to and by no other: everything that decides the result (:class:`Owner`) must be the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from pydantic import Field

from srquant.support.errors import SrquantError
from srquant.support.files import replacing
from srquant.support.settings import Checked, from_json, to_json
from srquant.support.versions import versions

FORMAT = 2
"""Of the files written here. The first had no line that says whose they are."""
SAVE_EVERY = 60.0
"""Seconds between two savings of a state."""
_FIRST = b'{"srquant_state": '
"""What a state begins with."""
_LONGEST_LINE = 1 << 20

_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Owner:
    """Whose a state is.

    Args:
        work: What is done: "finetuning" or "training".
        method: The quantization method; empty where a float network is trained.
        network: Name of the network, or of the file of its float weights.
        identity: Digests of all that decides the result, by what it is ("settings", "calibration patches", …). Where
            two runs differ, the first that does is named: causes come before what follows from them.
    """

    work: str
    method: str
    network: str
    identity: Mapping[str, str]

    @property
    def title(self) -> str:
        """As "oaptq on edsr.pth"."""
        return f"{self.method or self.work} on {self.network}"


@dataclass(frozen=True)
class _Header(Checked):
    """The line that a state begins with."""

    srquant_state: _Count
    program: str
    work: str
    method: str
    network: str
    step: _Count
    steps: _Count
    saved: str
    torch: str
    identity: dict[str, str]
    bytes: _Count
    sha256: str

    @property
    def owner(self) -> Owner:
        return Owner(self.work, self.method, self.network, self.identity)


def state_of(output: Path) -> Path:
    """Where the unfinished run of an output is kept: ``net.safetensors.state`` for ``net.safetensors``."""
    return output.with_name(f"{output.name}.state")


class StateFile:
    """Where a run keeps its state.

    Args:
        path: Of the file.
        owner: Whose it is.
        error: Raised where the file is another's or cannot be read.
    """

    def __init__(self, path: Path, owner: Owner, error: type[SrquantError]) -> None:
        self.path, self._owner, self._error = path, owner, error
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether so much time has passed since the last saving, or the start, that it is time for one."""
        return time.monotonic() - self._saved >= SAVE_EVERY

    def save(self, step: int, steps: int, content: dict[str, Any]) -> None:
        """Keep a state, all or nothing.

        Args:
            step: How many steps are taken.
            steps: How many there are to take.
            content: Tensors, numbers, texts, and lists and dictionaries of them.

        Raises:
            OutputError: The file cannot be written.
        """
        archive = io.BytesIO()
        torch.save(content, archive)
        body = archive.getbuffer()
        header = _Header(
            srquant_state=FORMAT,
            program=f"srquant {versions()['srquant']}",
            work=self._owner.work,
            method=self._owner.method,
            network=self._owner.network,
            step=step,
            steps=steps,
            saved=datetime.now(UTC).isoformat(timespec="seconds"),
            torch=torch.__version__,
            identity=dict(self._owner.identity),
            bytes=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
        )
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            file.write(json.dumps(to_json(header)).encode() + b"\n")
            file.write(body)
        self._saved = time.monotonic()

    def resume(self, device: torch.device, load: Callable[[dict[str, Any]], None]) -> None:
        """Go on from what :meth:`save` kept, if anything is there. Reading never runs code.

        Args:
            device: Where the tensors shall be.
            load: Takes up what was kept.

        Raises:
            SrquantError: Of the kind asked for: the file is damaged, no state, of a newer format, written with another
                PyTorch, or that of another run.
        """
        if not self.path.exists():
            return
        try:
            with self.path.open("rb") as file:
                header = self._read_header(file.readline(_LONGEST_LINE))
                self._require_own(header)
                body = file.read()
        except OSError as reason:
            raise self._error(f"{self.path} cannot be read: {reason.strerror or reason}") from reason
        if len(body) != header.bytes or hashlib.sha256(body).hexdigest() != header.sha256:
            raise self._damaged()
        try:
            content: Any = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
            load(cast(dict[str, Any], content))
        except Exception as reason:
            # The reader raises whatever Python raises on what it does not know.
            raise self._damaged() from reason

    def remove(self) -> None:
        """Remove the state of a run that ended, its result being safe.

        Anything else of that name is left alone: it is removed if it is the owner's by title, and by as much of the
        identity as the owner names.
        """
        with suppress(self._error, OSError):  # not there, or no state
            with self.path.open("rb") as file:
                found = self._read_header(file.readline(_LONGEST_LINE)).owner
            own = self._owner
            titles = (found.work, found.title), (own.work, own.title)
            if titles[0] == titles[1] and found.identity.items() >= own.identity.items():
                self.path.unlink()

    def _read_header(self, line: bytes) -> _Header:
        if not line.startswith(_FIRST):
            raise self._error(
                f"{self.path} is no state of an unfinished run that this version of srquant can read; remove it to "
                f"start anew, or choose another name for the output"
            )
        number = line[len(_FIRST) :].split(b",")[0]
        if number.isdigit() and int(number) > FORMAT:
            raise self._error(
                f"{self.path} was written by a newer version of srquant (states of format {int(number)}, this one "
                f"reads {FORMAT}); update srquant, or remove the file to start anew"
            )
        try:
            return from_json(_Header, line)
        except SrquantError as reason:
            raise self._damaged() from reason

    def _require_own(self, header: _Header) -> None:
        found, own = header.owner, self._owner
        way = "give the command it was started with to go on"
        if (found.work, found.title) != (own.work, own.title):
            difference = f"not of {own.title}"
        elif header.torch != torch.__version__:
            difference = f"written with torch {header.torch}, while this is torch {torch.__version__}"
            way = "install that version to go on"
        elif found.identity != own.identity:
            parts = [*own.identity, *found.identity]
            first = next(part for part in parts if found.identity.get(part) != own.identity.get(part))
            difference = f"with another {first}"
        else:
            return
        raise self._error(
            f"{self.path} holds an unfinished run of {found.title} (step {header.step} of {header.steps}), "
            f"{difference}; {way}, or remove the file to start anew"
        )

    def _damaged(self) -> SrquantError:
        return self._error(f"{self.path} is a damaged state of an unfinished run; remove it to start anew")
