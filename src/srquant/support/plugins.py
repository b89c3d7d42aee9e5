"""What there is of a kind, by name: found in a folder, registered from Python, or brought by an installed package."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar, cast

from srquant.support.errors import ArgumentError, PluginWarning, UnknownNameError, first_line

T = TypeVar("T")
A = TypeVar("A")


class Registry(Mapping[str, T]):
    """All classes (or objects) of a kind, by their ``name``; the project's own come first.

    The project's own are found in the modules of a package, so that adding one means adding one file. Others are
    registered by :meth:`register`, or are entry points of installed packages. Those are imported when a name is asked
    for that nobody else has, or when all are listed; one that cannot be imported is left out, with a warning.

    Args:
        what: The kind, as a noun ("method").
        package: Whose modules define the project's own.
        base: The class they derive from, or are objects of.
        group: Of entry points.
        objects: Whether they are objects of ``base``, which have a ``name`` and a ``rank`` that orders them.
    """

    def __init__(self, what: str, package: str, base: type, group: str, *, objects: bool = False) -> None:
        self.what = what
        self.group = group
        self.registered: dict[str, T] = {}
        self._package, self._base, self._objects = package, base, objects
        self._installed: dict[str, T] | None = None

    def takes(self, thing: object) -> bool:
        """Whether something is of this kind."""
        if self._objects:
            return isinstance(thing, self._base)
        return isinstance(thing, type) and issubclass(thing, self._base) and thing is not self._base

    def register(self, thing: A) -> A:
        """Add one; a decorator.

        Defined once more, as in a notebook whose cell runs again, a class takes the place of the former.

        Raises:
            ArgumentError: It is not of this kind, has no name of its own, or another one has its name.
        """
        name = self._name(thing)
        known = self.own.get(name, self.registered.get(name))
        if known is not None and _origin(known) != _origin(thing):
            raise ArgumentError(f"the {self.what} {name!r} is there already, {_origin(known)}; give yours another name")
        self.registered[name] = cast(T, thing)
        return thing

    def named(self, name: str) -> T:
        """The one of that name.

        Raises:
            UnknownNameError: There is none; the nearest name is suggested.
        """
        if name not in self:
            raise UnknownNameError(self.what, name, self)
        return self[name]

    def __getitem__(self, name: str) -> T:
        for known in (self.own, self.registered):
            if name in known:
                return known[name]
        return self.installed()[name]

    def __iter__(self) -> Iterator[str]:
        others = self.installed() | self.registered
        yield from self.own
        yield from _sorted({name: thing for name, thing in others.items() if name not in self.own})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @cached_property
    def own(self) -> dict[str, T]:
        """The project's own.

        Raises:
            ArgumentError: Two have one name, or one has none and is no base of others.
        """
        found: dict[str, T] = {}
        nameless: list[type] = []
        for info in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
            module = importlib.import_module(f"{self._package}.{info.name}")
            for thing in list(vars(module).values()):
                if not self.takes(thing) or (not self._objects and thing.__module__ != module.__name__):
                    continue
                if not self._objects and "name" not in vars(thing):
                    nameless.append(thing)
                    continue
                name = self._name(thing)
                if found.setdefault(name, thing) is not thing:
                    raise ArgumentError(f"{_origin(found[name])} and {_origin(thing)} are both called {name!r}")
        for base in nameless:
            if not any(issubclass(cast(type, thing), base) for thing in found.values()):
                self._name(base)
        return _sorted(found)

    def installed(self) -> dict[str, T]:
        """Those that are entry points of installed packages and could be imported.

        Warns:
            PluginWarning: One could not, is not of this kind, or has a name that is taken.
        """
        from importlib.metadata import entry_points

        if self._installed is None:
            self._installed = {}
            for entry in entry_points(group=self.group):
                try:
                    thing: Any = entry.load()
                    name = self._name(thing)
                    known = self.own.get(name, self.registered.get(name, self._installed.get(name, thing)))
                    if _origin(known) != _origin(thing):
                        raise ArgumentError(f"there is one of that name already, {_origin(known)}")
                    self._installed[name] = thing
                except Exception as error:
                    brought = entry.dist.name if entry.dist else entry.value
                    warnings.warn(
                        f"the {self.what} {entry.name!r} of the package {brought} is left out: "
                        f"{type(error).__name__}: {first_line(error)}",
                        PluginWarning,
                        stacklevel=2,
                    )
        return self._installed

    def _name(self, thing: object) -> str:
        if not self.takes(thing):
            kind = "an object" if self._objects else "a subclass"
            raise ArgumentError(f"{thing!r} is no {self.what}: it is not {kind} of {_origin(self._base)}")
        name = getattr(thing, "name", None) if self._objects else vars(cast(type, thing)).get("name")
        if not isinstance(name, str) or not name:
            raise ArgumentError(f'{_origin(thing)} has no name of its own; give it one: name = "…"')
        return name


class NameIn:
    """Checks, as pydantic's ``AfterValidator``, that a text is a name in a registry.

    Args:
        registry: Of all names.
    """

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    def __call__(self, name: str) -> str:
        """The name.

        Raises:
            UnknownNameError: It is none.
        """
        self.registry.named(name)
        return name


def _origin(thing: object) -> str:
    """Where something was defined: of a class module and name, of an object what it prints as."""
    return f"{thing.__module__}.{thing.__qualname__}" if isinstance(thing, type) else repr(thing)


def _sorted(things: dict[str, T]) -> dict[str, T]:
    return dict(sorted(things.items(), key=lambda item: (getattr(item[1], "rank", 0), item[0])))
