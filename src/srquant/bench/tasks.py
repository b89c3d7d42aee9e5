"""What is sent to whoever computes a cell, and what comes back."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from srquant.bench.cells import Cell, Subject
from srquant.bench.measuring import Outcome, Wishes, measure
from srquant.bench.records import DataScores
from srquant.support.errors import ArgumentError, first_line


@dataclass(frozen=True)
class Task:
    """A cell to compute.

    Args:
        cell: What.
        float_data: Scores of the float network; of a float cell, none.
        state: Where a method that learns keeps its run; None if nowhere.
    """

    cell: Cell
    float_data: tuple[DataScores, ...] = ()
    state: Path | None = None


class Workers(Protocol):
    """Who computes cells. They write nothing but the states of methods that are learning."""

    def compute(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Compute all, in any order; every task comes back once."""
        ...


def pack(subject: Subject) -> bytes:
    """A network with its patches and data, for another process.

    Raises:
        ArgumentError: The network is of a kind that other processes cannot be given.
    """
    try:
        return pickle.dumps(subject)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ArgumentError(
            f"{subject.model.source} cannot be given to another process ({first_line(error)}); define its classes in "
            f"a module that can be imported"
        ) from error


def unpack(subject: bytes) -> Subject:
    """Undo :func:`pack`."""
    return pickle.loads(subject)


def compute(subject: bytes, task: bytes, wishes: Wishes) -> Outcome:
    """Compute a packed task, in the process that it was given to."""
    own: Task = pickle.loads(task)
    return measure(own.cell, unpack(subject), wishes, own.float_data, own.state)
