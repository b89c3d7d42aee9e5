"""What a configuration's fields are, in words: for people who look for one."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import types
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from srquant.support.plugins import NameIn
from srquant.support.settings import hints, limits

_WORDS = {int: "whole number", float: "number", str: "text", bool: "true | false"}


@dataclass(frozen=True)
class FieldDescription:
    """A field of a configuration.

    Args:
        name: As in ``--set``; dots reach into fields that have fields of their own.
        type: What it takes, in words.
        default: What it is if nothing is said.
        documentation: What it means; empty where nothing is written.
    """

    name: str
    type: str
    default: Any
    documentation: str


def describe_fields(config: Any, prefix: str = "") -> tuple[FieldDescription, ...]:
    """All fields of a configuration, whose values are taken as the defaults.

    Args:
        config: A dataclass.
        prefix: Of the names.
    """
    kind = cast(Any, type(config))
    documented = _documentation(kind)
    found: list[FieldDescription] = []
    for name, hint in hints(kind).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            found += describe_fields(value, f"{prefix}{name}.")
        else:
            found.append(FieldDescription(prefix + name, _words(hint), value, documented.get(name, "")))
    return tuple(found)


def summary(kind: type) -> str:
    """The first paragraph of a class's documentation, in one line."""
    return plain((vars(kind).get("__doc__") or "").strip().split("\n\n")[0])


def source(kind: type) -> str:
    """What a class's documentation, or its module's, says after ``Source:``; empty where nothing is said."""
    for text in (vars(kind).get("__doc__"), getattr(inspect.getmodule(kind), "__doc__", None)):
        found = re.search(r"Source: (.*?)(?:\n\s*\n|\s*Differs:|\Z)", text or "", re.DOTALL)
        if found:
            return plain(found[1]).rstrip(".")
    return ""


def plain(text: str) -> str:
    """Documentation in one line, without marks."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return " ".join(text.replace("``", "").split())


def _documentation(kind: type) -> dict[str, str]:
    """The texts below the fields of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):  # typed at a prompt, or built in
            continue
        body = cast(ast.ClassDef, tree.body[0]).body
        for field, below in pairwise(body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = plain(text)
                case _:
                    pass
    return found


def _words(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "none"
    if origin is Annotated:
        names = [rule.func for rule in inner[1:] if isinstance(getattr(rule, "func", None), NameIn)]
        if names:
            return " | ".join(names[0].registry)
        return f"{_words(inner[0])}{limits(kind)}"
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (types.UnionType, Union):
        return " | ".join(map(_words, inner))
    if origin is tuple:
        return f"list of: {_words(inner[0])}"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
