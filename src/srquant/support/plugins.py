"""Finding the classes that the modules of a package define, so that adding one means adding one file."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TypeVar

from srquant.support.errors import UnknownNameError

T = TypeVar("T")


@cache
def plugins(package: str, base: type[T]) -> dict[str, type[T]]:
    """All named subclasses of ``base`` that modules of ``package`` define, by their ``name``, in alphabetical order."""
    found: dict[str, type[T]] = {}
    parent = importlib.import_module(package)
    for info in pkgutil.iter_modules(parent.__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for thing in vars(module).values():
            if isinstance(thing, type) and issubclass(thing, base) and thing.__module__ == module.__name__:
                name = thing.__dict__.get("name")
                if isinstance(name, str):
                    found[name] = thing
    return dict(sorted(found.items()))


def plugin(package: str, base: type[T], what: str, name: str) -> type[T]:
    """The subclass of that name.

    Raises:
        UnknownNameError: There is none; the nearest name is suggested.
    """
    known = plugins(package, base)
    if name not in known:
        raise UnknownNameError(what, name, known)
    return known[name]
