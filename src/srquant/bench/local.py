"""Cells in processes of this machine, each in a process of its own.

So the memory that a cell took is its own, and a cell that the system kills, for lack of memory, stops no other.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias, cast

from srquant.bench.cells import Subject
from srquant.bench.measuring import Outcome, Wishes, failed
from srquant.bench.tasks import Task, compute, pack
from srquant.support.errors import ArgumentError

Pipe: TypeAlias = "Connection[Any, Any]"
"""Our end of one."""
_STARTED = "started"


class LocalProcesses:
    """Processes of this machine.

    Args:
        subjects: The grid's.
        wishes: How cells are computed.
        count: How many processes at a time.
    """

    def __init__(self, subjects: Sequence[Subject], wishes: Wishes, count: int) -> None:
        self._subjects = [pack(subject) for subject in subjects]
        self._wishes, self._count = wishes, count

    def compute(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
        """See :class:`~srquant.bench.tasks.Workers`."""
        context = _context()
        waiting, running = list(reversed(tasks)), dict[Pipe, tuple[Task, BaseProcess]]()
        try:
            while waiting or running:
                while waiting and len(running) < self._count:
                    task = waiting.pop()
                    connection, process = self._start(context, task)
                    running[connection] = task, process
                for connection in wait(list(running)):
                    assert isinstance(connection, Connection)
                    task, process = running[connection]
                    outcome = _received(connection, process, task)
                    if outcome is not None:
                        del running[connection]
                        yield task, outcome
        finally:
            for _, process in running.values():
                process.kill()
                process.join()

    def _start(self, context: BaseContext, task: Task) -> tuple[Pipe, BaseProcess]:
        connection, theirs = context.Pipe(duplex=False)
        words = (theirs, self._subjects[task.cell.subject], pickle.dumps(task), self._wishes)
        process = cast(BaseProcess, cast(Any, context).Process(target=_work, args=words))
        process.start()
        theirs.close()
        if not _has_started(connection):
            process.join()
            raise ArgumentError(
                "a process of the bench could not start; a script calls srquant.bench.run under "
                "if __name__ == '__main__':, as its own processes import it"
            )
        return connection, process


def _context() -> BaseContext:
    """Processes are forked from one that has imported everything and run nothing; where there is no fork, started."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([compute.__module__])
    return context


def _has_started(connection: Pipe) -> bool:
    try:
        return connection.recv() == _STARTED
    except EOFError:
        return False


def _received(connection: Pipe, process: BaseProcess, task: Task) -> Outcome | None:
    """What a process has computed; a failed record if it ended without."""
    try:
        outcome: Outcome = connection.recv()
    except EOFError:
        process.join()
        return Outcome(failed(task.cell, _why(process.exitcode)))
    finally:
        connection.close()
    process.join()
    return outcome


def _why(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, as the system does when memory runs out; fewer workers need less of it"
    if code is not None and code < 0:
        return f"its process was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"its process ended with exit code {code} before it was done"


def _work(connection: Pipe, subject: bytes, task: bytes, wishes: Wishes) -> None:
    """What a process does. It prints nothing, and ends when the one that started it is gone."""
    connection.send(_STARTED)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    connection.send(compute(subject, task, wishes))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
