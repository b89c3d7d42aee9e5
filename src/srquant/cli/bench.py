"""``srquant bench``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from srquant.cli.options import (
    CalibrationOptions,
    NetworkAndMethodOptions,
    NetworkOptions,
    QuantizationOptions,
    Scale,
    grouped,
    require_output,
)

if TYPE_CHECKING:
    from srquant.methods import Method

bench = typer.Typer(no_args_is_help=True, help="Compare methods on one network: tables as JSON and Markdown.")

Data = Annotated[
    list[Path], typer.Option(help="Pairs or HR images as evaluate takes them (see evaluate --help); several.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="The table, .json, written after every row; Markdown goes beside it.")
]


@bench.command("oaptq-ablation")
@grouped
def oaptq_ablation(
    network: NetworkAndMethodOptions,
    data: Data,
    output: Output,
    calibration: CalibrationOptions,
    common: QuantizationOptions,
) -> None:
    """Piecewise-linear quantizer off and on × no, vanilla and sensitivity-aware finetuning (OAPTQ, table 4).

    Interrupted, it goes on where it stopped when the same command is given again.

    Example:
    [bold]srquant bench oaptq-ablation edsr_x4.pth --calibration lr/ --data Set5/x4 --data Set14/x4 -o table.json[/bold]
    """
    from srquant.analysis.benchmark import ablation, ablation_of_the_paper
    from srquant.methods import OAPTQ

    method = cast(OAPTQ, common.configure("oaptq", network.method_settings))
    published = ablation_of_the_paper() if method.bits == 4 and method.weight_bits in (None, 4) else None
    _run(network, data, output, calibration, ablation(method), published)


@bench.command()
@grouped
def methods(
    network: NetworkOptions,
    data: Data,
    output: Output,
    method: Annotated[
        list[str],
        typer.Option(help="Name, and fields after a colon: plq:quantile=0.995,reallocate=false; several."),
    ],
    calibration: CalibrationOptions,
    common: QuantizationOptions,
    published: Annotated[
        str | None, typer.Option(help="A network of papers, whose scores follow the table: SwinIR-light …")
    ] = None,
) -> None:
    """Any methods, in any configuration, on one network.

    Examples:
    [bold]srquant bench methods edsr_x4.pth --calibration lr/ --data Set5/x4 --method mse --method plq -o t.json[/bold]

    [bold]srquant bench methods swinir_x4.pth --calibration lr/ --data Set5/x4 --method 2dquant
    --published SwinIR-light -o t.json[/bold]
    """
    rows: dict[str, Method] = {}
    for text in method:
        name, _, fields = text.partition(":")
        rows[text] = common.configure(name, [field for field in fields.split(",") if field])
    known = None if published is None else partial(_published_table, published, common.bits or 4)
    _run(network, data, output, calibration, rows, None, known)


@bench.command()
def published(
    network: Annotated[str, typer.Argument(help="EDSR-baseline, RDN, SRResNet or SwinIR-light.")],
    scale: Scale = 4,
    bits: Annotated[int | None, typer.Option(help="Of activations; all that are known if left out.")] = None,
) -> None:
    """What papers print for a network, by method and bits, with their sources.

    Example:
    [bold]srquant bench published SwinIR-light --scale 2 --bits 3[/bold]
    """
    print(_published_table(network, bits, scale))


def _published_table(network: str, bits: int | None, scale: int) -> str:
    from srquant.analysis.published import published, published_markdown

    return published_markdown(published(network, scale, bits))


def _run(
    network: NetworkOptions,
    data: list[Path],
    output: Path,
    calibration: CalibrationOptions,
    rows: Mapping[str, Method],
    published: Mapping[str, Mapping[str, Sequence[float | None]]] | None,
    beside: Callable[[int], str] | None = None,
) -> None:
    from srquant.analysis.benchmark import run_benchmark
    from srquant.cli.tables import print_made
    from srquant.images import find_pairs
    from srquant.support.files import replacing

    require_output(output, "tables", (".json", ".md"), network.network, *data, *calibration.folders, below=True)
    model = network.load()
    known = "" if beside is None else "\n" + beside(model.scale)
    folders = [folder for path in data for folder in find_pairs(path, model.scale)]
    table = run_benchmark(model, calibration.open(model.scale), folders, rows, output)
    text = table.markdown(published) + known
    with replacing(output.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    print(text)
    print_made(folder.name for folder in folders if folder.low_is_made)
