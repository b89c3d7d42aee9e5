"""``srquant fetch``."""

from __future__ import annotations

from typing import Annotated

import typer


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Of networks and data; without one, all are listed.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Fetch once more what is there; it must be the same file as before.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read all that is there, to see that nothing was changed since.")
    ] = False,
) -> None:
    """Fetch published networks and data by name, from their original places; without a name, list all.

    Names do wherever a command takes a path: [bold]srquant evaluate edsr-baseline-x4 set5[/bold] fetches what is not
    there. A file or folder of that name here comes first. Everything is kept in a cache folder, which SRQUANT_CACHE
    names. An interrupted download goes on where it stopped. Files whose checksum nobody publishes are called
    unverified; their checksum is written down, and they must stay what they were.

    Examples:
    [bold]srquant fetch[/bold]

    [bold]srquant fetch set5 edsr-baseline-x4 swinir-light-x4[/bold]

    [bold]srquant fetch --check[/bold]

    [bold]SRQUANT_CACHE=/data/srquant srquant fetch div2k-hr[/bold]
    """
    from srquant.cli.tables import print_catalogue
    from srquant.fetching.cache import cache_folder
    from srquant.fetching.catalogue import entries
    from srquant.fetching.fetching import fetch as run
    from srquant.fetching.fetching import place_of
    from srquant.support.errors import ArgumentError

    known = entries()
    if not names and not check:
        if again:
            raise ArgumentError("--again needs names: srquant fetch set5 --again")
        print_catalogue(known)
        print(f"the cache is {cache_folder()} (SRQUANT_CACHE); NAME in the place of a path fetches what is missing")
        return
    there = [name for name, entry in known.items() if entry.name == name and place_of(entry).receipt is not None]
    for name in names or there:
        print(f"{name}: {run(name, again=again, check=check)}")
