"""Cells on a cluster: Ray gives them to whichever machine has room, and again to another if that one is lost."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from srquant.bench.cells import Cell, Subject
from srquant.bench.luggage import Luggage
from srquant.bench.measuring import Outcome, Wishes, failed, measure
from srquant.bench.tasks import Task
from srquant.methods.pipeline.estimate import estimate
from srquant.support.errors import ArgumentError, first_line
from srquant.support.extras import import_extra
from srquant.support.versions import versions

LOCAL = "local"
"""Address of a cluster that is started here, of processes of this machine alone."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Nothing is reported to anybody; a cell without a GPU sees none."""
_TRIES = 3
"""How often a cell whose machine was lost is given to another."""
_LISTENS = 10.0
"""Seconds in which something must answer at an address."""
_SHARE = 0.8
"""Of the memory of the largest machine, that a cell asks for at most: estimates are rough."""


class RayCluster:
    """A Ray cluster; a context, at whose end the connection is closed.

    Networks, patches and data are put into the object store once. A cell asks for CPUs (its threads), for a GPU if it
    computes on one, and for the memory that is estimated for its method.

    Args:
        subjects: The grid's.
        wishes: How cells are computed; the device is one kind for all.
        address: Of a running cluster (``auto``, ``host:6379``, ``ray://host:10001``), or ``local``.
        count: Of a local cluster, how many cells at the same time.

    Raises:
        MissingExtraError: Ray is not installed.
        ArgumentError: There is no cluster at the address.
    """

    def __init__(self, subjects: Sequence[Subject], wishes: Wishes, address: str, count: int = 1) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
        self._ray: Any = import_extra("ray", "a bench on a cluster", "cluster")
        self._own = connect(self._ray, address, count * wishes.threads)
        self._subjects, self._wishes = subjects, replace(wishes, device=kind(self._ray, wishes.device))
        self._stored = [self._ray.put(Luggage.of(subject)) for subject in subjects]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._own:
            self._ray.shutdown()

    @property
    def device(self) -> str:
        """Kind of device that cells compute on: ``cpu`` or ``cuda``."""
        return self._wishes.device

    def compute(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
        """See :class:`~srquant.bench.tasks.Workers`."""
        ray = self._ray
        remote = ray.remote(max_calls=1, max_retries=_TRIES)(compute_remotely)
        running: dict[Any, Task] = {}
        for task in tasks:
            asked = remote.options(
                num_cpus=self._wishes.threads,
                num_gpus=1 if self._wishes.device == "cuda" else 0,
                memory=self._memory(task.cell),
            )
            running[asked.remote(self._stored[task.cell.subject], task, self._wishes)] = task
        while running:
            (done,), _ = ray.wait(list(running))
            task = running.pop(done)
            try:
                outcome: Outcome = ray.get(done)
            except ray.exceptions.RayError as error:
                reason = first_line(getattr(error, "cause", None) or error)
                outcome = Outcome(failed(task.cell, f"lost on the cluster: {reason}"))
            yield task, outcome

    def _memory(self, cell: Cell) -> int:
        """Bytes to ask for."""
        if cell.method is None:
            return 0
        subject = self._subjects[cell.subject]
        given = cell.given or subject.given_to(cell.method)
        largest = max(
            (node["Resources"].get("memory", 0.0) for node in self._ray.nodes() if node["Alive"]), default=0.0
        )
        return int(min(estimate(subject.model, cell.method, given).memory, _SHARE * largest))


def connect(ray: Any, address: str, cpus: int) -> bool:
    """Connect to a cluster, unless this process is connected to one.

    Returns:
        Whether the connection is new, and to be closed.

    Raises:
        ArgumentError: There is no cluster at the address.
    """
    if ray.is_initialized():
        return False
    told: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == LOCAL:
        told |= {"num_cpus": cpus, "include_dashboard": False}
    else:
        told["address"] = address
    try:
        _require_listener(address)
        ray.init(**told)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        raise ArgumentError(
            f"ray={address!r}: there is no cluster ({first_line(error)}); start one with: ray start --head, "
            f"or give local"
        ) from error
    return True


def _require_listener(address: str) -> None:
    """Try what listens at an address: Ray would for minutes.

    Raises:
        OSError: Nothing does.
    """
    host, colon, port = address.rpartition("://")[-1].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), _LISTENS).close()


def kind(ray: Any, device: str) -> str:
    """The kind of device that all cells compute on: ``cuda`` if it is asked for, or if the cluster has GPUs."""
    if device == "auto":
        return "cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu"
    return device.partition(":")[0]


def compute_remotely(luggage: Luggage, task: Task, wishes: Wishes) -> Outcome:
    """Compute a cell on the machine that it was given to, which must have the versions that decide the cell."""
    cell = task.cell
    for package in ("srquant", "torch"):
        if versions()[package] != cell.identity[package]:
            return Outcome(
                failed(
                    cell,
                    f"a machine has {package} {versions()[package]}, the bench {cell.identity[package]}; "
                    "install the same everywhere",
                )
            )
    # The folder of runs is that of the first machine; only on a disk that all share is it here too.
    shared = task.state is not None and task.state.parent.parent.is_dir()
    return measure(cell, luggage.unpack(), wishes, task.float_data, task.state if shared else None)
