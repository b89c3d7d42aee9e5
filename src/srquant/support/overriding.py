"""Setting fields of a configuration by texts and keywords: all are collected, then applied together, in any order."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from srquant.support.errors import ArgumentError, UnknownNameError
from srquant.support.settings import check, hints, parse

C = TypeVar("C")


@dataclass(frozen=True)
class _Given:
    """A field's new value, and how the user wrote it."""

    value: object
    said: str


_Tree = dict[str, "_Given | _Tree"]
"""New values of fields by name; of those that have fields of their own, a tree."""


def override(config: C, texts: Iterable[str] = (), values: Mapping[str, object] | None = None) -> C:
    """The configuration with other values in some fields; they are applied and checked together.

    Args:
        config: A frozen dataclass.
        texts: Such as ``finetuning.epochs=3``; dots reach into nested dataclasses.
        values: By name, with dots or nested: ``{"finetuning": {"epochs": 3}}``.

    Raises:
        UnknownNameError: There is no such field; the nearest is suggested.
        ArgumentError: A text has no ``=``, a value breaks its field's rule, or a field is given two values.
    """
    tree: _Tree = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals:
            raise ArgumentError(f"{text!r} is not an assignment; write field=value")
        _collect(config, path.strip().split("."), path.strip(), value.strip(), tree, parsed=False)
    for name, value in (values or {}).items():
        _collect(config, name.split("."), name, value, tree, parsed=True)
    return cast(C, _applied(config, tree))


def _collect(config: Any, path: list[str], full: str, value: object, tree: _Tree, *, parsed: bool) -> None:
    """Put a value where it belongs in the tree: under the field's name of now."""
    kinds = hints(cast(Any, type(config)))
    name, values = getattr(config, "former", {}).get(path[0], (path[0], {}))
    prefix = full[: len(full) - len(".".join(path))]
    if name not in kinds:
        raise UnknownNameError("field", full, [prefix + known for known in kinds])
    inner = getattr(config, name)
    if not dataclasses.is_dataclass(inner):
        if len(path) > 1:
            raise ArgumentError(f"{full!r}: {name} has no fields of its own")
        if (now := values.get(str(value).lower())) is not None:
            value, parsed = now, False
        _put(tree, name, full, value, kinds[name], parsed=parsed)
        return
    below = cast(_Tree, tree.setdefault(name, {}))
    if len(path) > 1:
        _collect(inner, path[1:], full, value, below, parsed=parsed)
        return
    for key, part in _parts(inner, full, value).items():
        _collect(inner, key.split("."), f"{full}.{key}", part, below, parsed=True)


def _parts(inner: Any, full: str, value: object) -> Mapping[str, object]:
    """The fields of a value for a field that has fields of its own."""
    if isinstance(value, type(inner)):
        return {name: getattr(value, name) for name in hints(cast(Any, type(inner)))}
    if isinstance(value, Mapping):
        return cast(Mapping[str, object], value)
    names = ", ".join(f"{full}.{name}" for name in hints(cast(Any, type(inner))))
    raise ArgumentError(f"{full} has fields of its own; set one of {names}")


def _put(tree: _Tree, name: str, full: str, value: object, kind: Any, *, parsed: bool) -> None:
    said = f"{full}={reprlib.repr(value) if parsed else value}"
    if parsed:
        value = tuple(cast(list[object], value)) if isinstance(value, list) else value
        check(full, value, kind)
    else:
        value = parse(str(value), kind, full)
    old = tree.get(name)
    if isinstance(old, _Given) and old.value != value:
        raise ArgumentError(f"{said} contradicts {old.said}; give one of them")
    tree[name] = _Given(value, said)


def _applied(config: Any, tree: _Tree) -> Any:
    """The configuration with the values of a tree, made at once."""
    new = {name: given.value for name, given in tree.items() if isinstance(given, _Given)}
    now = {name: getattr(config, name) for name in hints(cast(Any, type(config)))}
    dependent = getattr(config, "dependent_defaults", dict)
    before = dependent(now)
    for name, default in dependent(now | new).items():
        if name not in new and now[name] == before[name]:
            new[name] = default
    for name, below in tree.items():
        if not isinstance(below, _Given):
            new[name] = _applied(new.get(name, now[name]), below)
    return dataclasses.replace(config, **new)
