"""Frozen dataclasses as the only configuration: overriding one field by name, and to and from JSON."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from srquant.errors import ArgumentError, UnknownNameError

C = TypeVar("C")


def override(config: C, assignments: Iterable[str]) -> C:
    """Set fields from texts such as ``finetune.epochs=3``; dots reach into nested dataclasses.

    Raises:
        UnknownNameError: There is no such field; the nearest is suggested.
        ArgumentError: The text has no ``=`` or the value is not of the field's type.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ArgumentError(f"{assignment!r} is not an assignment; write field=value")
        config = _override(config, path.strip().split("."), path.strip(), text.strip())
    return config


def _override(config: Any, path: list[str], full: str, text: str) -> Any:
    known = _fields(config)
    if path[0] not in known:
        prefix = full[: len(full) - len(".".join(path))]
        raise UnknownNameError("field", full, [prefix + name for name in known])
    if dataclasses.is_dataclass(getattr(config, path[0])):
        if len(path) == 1:
            inner = ", ".join(f"{full}.{name}" for name in _fields(getattr(config, path[0])))
            raise ArgumentError(f"{full} has fields of its own; set one of {inner}")
        new = _override(getattr(config, path[0]), path[1:], full, text)
    elif len(path) > 1:
        raise ArgumentError(f"{full!r}: {path[0]} has no fields of its own")
    else:
        new = _parse(text, get_type_hints(config.__class__)[path[0]], full)
    return dataclasses.replace(config, **{path[0]: new})


def _parse(text: str, kind: Any, name: str) -> Any:
    """The value of a text as the given type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if text not in arguments:
            raise ArgumentError(f"{name}={text} is not one of {', '.join(map(str, arguments))}")
        return text
    if origin in (types.UnionType, Union):
        if text.lower() == "none" and type(None) in arguments:
            return None
        return _parse(text, next(a for a in arguments if a is not type(None)), name)
    if origin is tuple:
        return tuple(_parse(part.strip(), arguments[0], name) for part in text.split(",") if part.strip())
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise ArgumentError(f"{name}={text} is not true or false")
        return words[text.lower()]
    if kind in (int, float, str):
        try:
            return kind(text)
        except ValueError as error:
            raise ArgumentError(f"{name}={text} is not {'a whole number' if kind is int else 'a number'}") from error
    raise ArgumentError(f"{name} cannot be set from a text; pass it in Python")


def to_json(config: Any) -> Any:
    """A dataclass as plain dictionaries, lists, numbers and texts."""
    if dataclasses.is_dataclass(config):
        return {name: to_json(getattr(config, name)) for name in _fields(config)}
    if isinstance(config, Mapping):
        return {str(key): to_json(value) for key, value in cast(Mapping[Any, Any], config).items()}
    if isinstance(config, tuple | list):
        return [to_json(item) for item in cast(list[Any], config)]
    return config


def from_json(kind: type[C], content: Mapping[str, Any]) -> C:
    """Undo :func:`to_json` for a dataclass.

    Raises:
        UnknownNameError: The content has a field that the dataclass lacks.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in hints:
            raise UnknownNameError("field", name, hints)
        if dataclasses.is_dataclass(hints[name]):
            values[name] = from_json(cast(type[Any], hints[name]), value)
        else:
            values[name] = tuple(cast(list[Any], value)) if isinstance(value, list) else value
    return kind(**values)


def _fields(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]
