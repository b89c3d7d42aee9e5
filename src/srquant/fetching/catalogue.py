"""What has a name: the table in ``catalogue.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field

from srquant.support.errors import ArgumentError, first_line
from srquant.support.settings import Checked, from_json

_FILE = Path(__file__).with_name("catalogue.toml")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
Kind = Literal["network", "features", "pairs", "sets", "photographs", "low"]
KINDS: Mapping[Kind, str] = {
    "network": "a network",
    "features": "a part of a score",
    "pairs": "HR and LR images",
    "sets": "several sets of HR and LR images",
    "photographs": "HR images",
    "low": "LR images",
}


@dataclass(frozen=True)
class Entry(Checked):
    """One thing that has a name; what the fields mean stands at the head of ``catalogue.toml``."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    what: str
    kind: Kind
    license: str
    page: str
    address: str = ""
    bytes: Annotated[int, Field(ge=1)] | None = None
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{8,64})?$")] = ""
    checksum_from: str = ""
    part_of: str = ""
    folder: str = ""
    high: str = ""
    low: str = ""
    by_hand: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(map(bool, (self.address, self.part_of, self.by_hand))) != 1:
            raise ArgumentError(f"{self.name} needs one of address, part_of and by_hand")
        if bool(self.sha256) != bool(self.checksum_from):
            raise ArgumentError(f"{self.name} needs both of sha256 and checksum_from, or none")

    @property
    def file(self) -> str:
        """Name of the file at the address; empty where there is none."""
        return PurePosixPath(unquote(urlsplit(self.address).path)).name

    @property
    def is_weights(self) -> bool:
        """Whether the file is weights, which are read whole at each use."""
        return self.kind in ("network", "features")

    @property
    def is_archive(self) -> bool:
        """Whether the file is one of many."""
        return self.file.lower().endswith(_ARCHIVES)


@cache
def entries() -> Mapping[str, Entry]:
    """All, by name, in the order of the catalogue; an alias leads to what it stands for."""
    return read_entries(_FILE.read_text(encoding="utf-8"))


def read_entries(text: str) -> Mapping[str, Entry]:
    """The entries of a catalogue.

    Raises:
        ArgumentError: It is no TOML, an entry breaks a rule, or leads to a name that is not there.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ArgumentError(f"the catalogue is no TOML: {first_line(error)}") from error
    aliases = {name: table["alias_of"] for name, table in tables.items() if "alias_of" in table}
    own = {
        name: from_json(Entry, {"name": name, **table}, name) for name, table in tables.items() if name not in aliases
    }
    for entry in own.values():
        if entry.part_of and not (entry.part_of in own and own[entry.part_of].is_archive):
            raise ArgumentError(f"{entry.name} is part of {entry.part_of!r}, which is no archive of the catalogue")
    if missing := sorted(set(aliases.values()) - own.keys()):
        raise ArgumentError(f"the catalogue has no {', '.join(missing)}, which other names lead to")
    return {name: own[aliases.get(name, name)] for name in tables}
