"""``srquant methods``."""

from __future__ import annotations

from typing import Annotated

import typer


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of a method, to see its fields.")] = None,
) -> None:
    """Show all methods with their sources; with a name, the fields that --set takes.

    Examples:
    [bold]srquant methods[/bold]

    [bold]srquant methods oaptq[/bold]
    """
    from srquant.cli.tables import print_fields, print_methods
    from srquant.methods import describe_method, describe_methods, method_named

    if name is None:
        print_methods(describe_methods())
    else:
        print_fields(describe_method(method_named(name)))
