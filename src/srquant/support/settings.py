"""Frozen dataclasses as the only configuration, and the one file where their fields are checked.

The rules stand beside the fields, as pydantic writes them: ``rate: Annotated[float, Field(gt=0, le=1)]``. They hold
wherever a value comes from: Python (:class:`Checked`), a text such as ``finetuning.epochs=3``
(:func:`~srquant.support.overriding.override`), or JSON in the header of a file (:func:`from_json`). Whatever breaks one
is an :class:`~srquant.support.errors.ArgumentError` of one line: name, value, rule.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from srquant.support.errors import ArgumentError, UnknownNameError

C = TypeVar("C")

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
"""Of random numbers."""
Positive = Annotated[int, Field(ge=1, le=1 << 40)]
Threads = Annotated[int, Field(ge=1, le=1024)]
"""To compute with."""

_FINITE = ConfigDict(allow_inf_nan=False)


Former = Mapping[str, tuple[str, Mapping[str, str]]]


class Checked:
    """Base of a frozen dataclass: it cannot be made with a field that breaks its rule, nor read with an unknown one.

    No number is NaN or infinite. What types and :class:`pydantic.Field` cannot say, a class checks in a
    ``__post_init__`` of its own, after this one's.

    Raises:
        ArgumentError: A value breaks its rule.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    former: ClassVar[Former] = {}
    """Fields that had another name, or values of other names, in the release before: the field's name of now, and its
    values of now by those of then. :func:`~srquant.support.overriding.override` still takes them."""

    @classmethod
    def dependent_defaults(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Defaults of fields that depend on other fields.

        Args:
            values: Of all fields.
        """
        return {}

    def __post_init__(self) -> None:
        for name, kind in hints(type(self)).items():
            check(name, getattr(self, name), kind)


def stored_as(**names: str) -> ConfigDict:
    """The ``__pydantic_config__`` of a dataclass whose fields have other names in JSON: files stay readable."""
    return ConfigDict(alias_generator=lambda name: names.get(name, name))


def check(name: str, value: object, kind: Any) -> None:
    """Refuse a value that is not of a type, or breaks the type's rule.

    Args:
        name: Of the argument, for the message.
        value: Its value.
        kind: A type, for instance ``Annotated[int, Field(ge=1)]``.

    Raises:
        ArgumentError: It is not.
    """
    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        raise _explained(error, kind, name) from error


def parse(text: str, kind: Any, name: str) -> Any:
    """The value of a text as the given type: ``none`` where that is one, a tuple's items with commas between.

    Raises:
        ArgumentError: The text is no such value, or breaks the type's rule.
    """
    options = get_args(_bare(kind)) if get_origin(_bare(kind)) in (types.UnionType, Union) else (kind,)
    if type(None) in options and text.lower() == "none":
        return None
    listed = any(get_origin(_bare(option)) is tuple for option in options)
    given = [part.strip() for part in text.split(",") if part.strip()] if listed else text
    try:
        return _adapter(kind).validate_python(given, strict=False)
    except ValidationError as error:
        raise _explained(error, kind, name, repr_of=str) from error


def to_json(config: Any) -> Any:
    """A dataclass as plain dictionaries, lists, numbers and texts; infinity, which JSON lacks, as the text "inf"."""
    if dataclasses.is_dataclass(config):
        return {key: to_json(getattr(config, name)) for name, key in _keys(type(config)).items()}
    if isinstance(config, Mapping):
        return {str(key): to_json(value) for key, value in cast(Mapping[Any, Any], config).items()}
    if isinstance(config, tuple | list):
        return [to_json(item) for item in cast(list[Any], config)]
    return "inf" if config == math.inf and isinstance(config, float) else config


def from_json(kind: type[C], content: object, name: str = "") -> C:
    """Undo :func:`to_json` for a dataclass.

    Args:
        kind: The dataclass.
        content: JSON, as a text or read already.
        name: What the content is called, for messages.

    Raises:
        UnknownNameError: The content has a field that the dataclass lacks.
        ArgumentError: It is no JSON, lacks a field, or a value breaks its field's rule.
    """
    try:
        # JSON has no tuples: of a text pydantic takes lists for them, and nothing else.
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        return cast(C, _adapter(kind).validate_json(text, strict=True))
    except ValidationError as error:
        raise _explained(error, kind, name) from error
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{name or kind.__name__} is no JSON: {error}") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """What validates values of a type; dataclasses say themselves that numbers must be finite."""
    return TypeAdapter(kind, config=None if dataclasses.is_dataclass(kind) else _FINITE)


@cache
def hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with their rules, by name."""
    found = get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def _keys(kind: type) -> dict[str, str]:
    """What fields are called in JSON, by their names."""
    rename = getattr(kind, "__pydantic_config__", {}).get("alias_generator", str)
    return {field.name: rename(field.name) for field in dataclasses.fields(kind)}


_TYPES = {
    "int": "is not a whole number",
    "float": "is not a number",
    "finite": "is not a finite number",
    "bool": "is not true or false",
    "string": "is not a text",
    "tuple": "is not a list",
    "too": "is a list of another length",
    "dict": "has no fields",
    "dataclass": "has no fields",
}
"""The rule that was broken, by the first word of the kind of pydantic's error."""


def _explained(
    error: ValidationError, kind: Any, name: str, repr_of: Callable[[Any], str] = reprlib.repr
) -> ArgumentError:
    """The first thing that pydantic found, in a line of our own."""
    found = error.errors(include_url=False)[0]
    location: Sequence[str | int] = found["loc"]
    full = ".".join([*([name] if name else []), *map(str, location)])
    known, rule = _look_up(kind, location)
    cause = found.get("ctx", {}).get("error")
    if found["type"] == "unexpected_keyword_argument":
        prefix = full[: len(full) - len(str(location[-1]))]
        return UnknownNameError("field", full, [prefix + field for field in known])
    if isinstance(cause, ArgumentError):
        return cause
    if found["type"].startswith("missing"):
        return ArgumentError(f"{full} is missing")
    shown = f"{full}={repr_of(found['input'])}" if full else repr_of(found["input"])
    if found["type"] == "literal_error":
        return ArgumentError(f"{shown} is not one of {', '.join(map(str, get_args(_bare(rule))))}")
    if found["type"].startswith(("greater_than", "less_than")):
        return ArgumentError(f"{shown} is {_limits(rule)}")
    text = _TYPES.get(found["type"].partition("_")[0], f"does not do: {found['msg']}")
    return ArgumentError(f"{shown} {text}".replace("\n", " "))


def _look_up(kind: Any, location: Sequence[str | int]) -> tuple[Iterable[str], Any]:
    """The fields around a location in a type, and the type, with its rules, at that location."""
    known: Iterable[str] = ()
    for key in location:
        bare = _bare(_some(kind))
        if dataclasses.is_dataclass(bare):
            known = {_keys(cast(type, bare))[name]: hint for name, hint in hints(cast(type, bare)).items()}
            kind = known.get(str(key), object)
        else:  # a tuple's items, or a dictionary's values
            inner = [item for item in get_args(bare) if item is not ...] or [object]
            kind = inner[min(key, len(inner) - 1)] if isinstance(key, int) else inner[-1]
    return known, _some(kind)


def _some(kind: Any) -> Any:
    """The type itself of one that may also be None."""
    bare = _bare(kind)
    if get_origin(bare) in (types.UnionType, Union):
        return next(option for option in get_args(bare) if option is not type(None))
    return kind


def _bare(kind: Any) -> Any:
    """The type without its rules."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def limits(kind: Any) -> str:
    """What follows a number's type where its values are described: ``, 2…8``; empty where there are none."""
    words = _limits(kind)
    for start in ("outside ", "not "):
        words = words.removeprefix(start)
    return f", {words}" if words else ""


def _limits(kind: Any) -> str:
    """The range of a number's rule, in words that follow "is"."""
    limits: dict[str, float] = {}
    for rule in get_args(kind)[1:]:
        for part in getattr(rule, "metadata", (rule,)):
            limits |= {word: getattr(part, word) for word in ("gt", "ge", "lt", "le") if hasattr(part, word)}
    low, high = limits.get("gt", limits.get("ge")), limits.get("lt", limits.get("le"))
    if low is None or high is None:
        words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
        return "not " + " and ".join(f"{words[word]} {_shown(value)}" for word, value in limits.items())
    if _bare(kind) is int and limits.keys() == {"ge", "le"}:
        return f"outside {_shown(low)}…{_shown(high)}"
    return f"outside {'[' if 'ge' in limits else '('}{_shown(low)}, {_shown(high)}{']' if 'le' in limits else ')'}"


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) and math.fabs(number) < 1e12 else f"{number:g}"
