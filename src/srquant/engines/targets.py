"""What can run an exported file.

Nothing heavy is imported, so that the command line can list the names. To add an engine, write a file in ``runtimes``.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from srquant.support.extras import import_extra
from srquant.support.plugins import Registry

if TYPE_CHECKING:
    from srquant.engines.saturation import Compile


@dataclass(frozen=True)
class Target:
    """An engine.

    Args:
        name: As users type it.
        title: As messages write it.
        package: As Python imports it.
        extra: The extra of this project that brings the package.
        runtime: The module with the function ``compiled``, which takes the content of an ONNX file (``images`` in,
            enlarged images out), what messages call it and a number of threads (all cores if None), and gives what
            runs it. It raises a ModelFileError where the engine refuses the file.
        rank: Where no engine is named, the installed one of the lowest rank is taken: the fastest.
    """

    name: str
    title: str
    package: str
    extra: str
    runtime: str
    rank: int = 100

    @property
    def installed(self) -> bool:
        """Whether its package can be imported; it is not imported for that."""
        return importlib.util.find_spec(self.package) is not None

    def imported(self, file: str) -> Any:
        """Its package.

        Args:
            file: What it is to run, for the message.

        Raises:
            MissingExtraError: It is not installed.
        """
        return import_extra(self.package, f"running {file} in {self.title}", self.extra)

    @property
    def compiled(self) -> Compile:
        """What makes a runnable function of an ONNX file; see ``runtime``."""
        return import_module(self.runtime).compiled


TARGETS: Registry[Target] = Registry(
    "engine", "srquant.engines.runtimes", Target, group="srquant.engines", objects=True
)
"""By name, the faster first: where no engine is named, the first that is installed is taken."""


def target_named(name: str | None) -> Target:
    """The engine of that name; of None the first that is installed, or the first of all if none is.

    Raises:
        UnknownNameError: There is no such engine; the nearest name is suggested.
    """
    if name is None:
        return next((target for target in TARGETS.values() if target.installed), next(iter(TARGETS.values())))
    return TARGETS.named(name)
