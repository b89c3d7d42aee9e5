"""Progress on the terminal: a bar on standard error where somebody looks, plain lines where nobody does."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from srquant.support.processes import Processes

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")


class Bar:
    """One line of progress; does nothing where standard error is no terminal."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        self._progress = progress
        self._task = task

    def advance(self, steps: int = 1, text: str = "") -> None:
        """Move on; ``text`` stands beside the bar."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=steps, text=text)

    def note(self, line: str) -> None:
        """Print a line that stays."""
        if self._progress is not None:
            self._progress.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


@contextmanager
def bar(title: str, total: int | None, done: int = 0, *, in_bytes: bool = False) -> Generator[Bar]:
    """Show a bar while the body runs.

    Args:
        title: What is done.
        total: How many steps there are; None where nobody knows.
        done: How many are behind.
        in_bytes: Whether they are bytes, shown as MB and MB a second.
    """
    if not (sys.stderr.isatty() and Processes.here().first):
        yield Bar(None, None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *counts,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bar(progress, progress.add_task(title, total=total, completed=done, text=""))


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Iterate with a bar."""
    with bar(title, total) as shown:
        for item in items:
            yield item
            shown.advance()
