"""``srquant inspect``."""

from __future__ import annotations

from srquant.cli.options import ModelPath, NetworkSettings, ValueRange, network_settings


def inspect(model: ModelPath, value_range: ValueRange = None, set_: NetworkSettings = None) -> None:
    """Show what a file holds: network, method, bits and ranges of each layer, where it came from, sizes.

    Examples:
    [bold]srquant inspect edsr_x4_w4a4.safetensors[/bold]

    [bold]srquant inspect edsr-baseline-x4[/bold]
    """
    from srquant import load
    from srquant.cli.tables import (
        print_coverage,
        print_file,
        print_layers,
        print_losses,
        print_network,
        print_record,
        print_totals,
    )
    from srquant.fetching import resolve

    path = resolve(model, "network")
    opened = load(path, value_range=value_range, settings=network_settings(set_))
    print_network(opened)
    if opened.record is not None:
        print_record(opened.record)
        print_layers(opened)
        print_totals(opened)
        print_coverage(opened)
        print_losses(opened)
    print_file(path, opened)
