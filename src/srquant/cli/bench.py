"""``srquant bench``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from srquant.cli.options import (
    Bits,
    Device,
    EdgeOption,
    Edges,
    HighFolder,
    LowFolder,
    Network,
    Patches,
    PatchSize,
    Seed,
    ValueRange,
    WeightBits,
    open_calibration,
)

if TYPE_CHECKING:
    from srquant.images import Calibration
    from srquant.methods import Method

bench = typer.Typer(no_args_is_help=True, help="Compare methods on one network: tables as JSON and Markdown.")

Data = Annotated[list[Path], typer.Option(help="Pair folder (HR, LR), or a parent of several; several.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="The table, .json, written after every row; Markdown goes beside it.")
]


@bench.command("oaptq-ablation")
def oaptq_ablation(
    network: Network,
    data: Data,
    output: Output,
    calibration: LowFolder = None,
    calibration_hr: HighFolder = None,
    bits: Bits = 4,
    weight_bits: WeightBits = None,
    edges: EdgeOption = Edges.eight_bit,
    patches: Patches = 100,
    patch_size: PatchSize = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Another field of oaptq, in all rows: finetuning.precision=bf16 …")
    ] = None,
    seed: Seed = 0,
    value_range: ValueRange = None,
    device: Device = "auto",
) -> None:
    """Piecewise-linear quantizer off and on × no, vanilla and sensitivity-aware finetuning (OAPTQ, table 4).

    Interrupted, it goes on where it stopped when the same command is given again.

    Example:
    [bold]srquant bench oaptq-ablation edsr_x4.pth --calibration lr/ --data Set5/x4 --data Set14/x4 -o table.json[/bold]
    """
    from srquant import configure
    from srquant.analysis.benchmark import ablation, ablation_of_the_paper
    from srquant.methods import OAPTQ

    method = configure("oaptq", bits, weight_bits=weight_bits, edges=edges.value, settings=set_ or ())
    rows = ablation(cast(OAPTQ, method))
    published = ablation_of_the_paper() if bits == 4 and weight_bits in (None, 4) else None
    images = partial(open_calibration, calibration, calibration_hr, count=patches, size=patch_size, seed=seed)
    _run(network, data, output, images, rows, value_range, device, published)


@bench.command()
def methods(
    network: Network,
    data: Data,
    output: Output,
    method: Annotated[
        list[str],
        typer.Option(help="Name, and fields after a colon: plq:share=0.995,reallocate=false; several."),
    ],
    calibration: LowFolder = None,
    calibration_hr: HighFolder = None,
    bits: Bits = 4,
    weight_bits: WeightBits = None,
    edges: EdgeOption = Edges.eight_bit,
    patches: Patches = 100,
    patch_size: PatchSize = None,
    seed: Seed = 0,
    value_range: ValueRange = None,
    device: Device = "auto",
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
    from srquant import configure

    rows: dict[str, Method] = {}
    for text in method:
        name, _, fields = text.partition(":")
        settings = [field for field in fields.split(",") if field]
        rows[text] = configure(name, bits, weight_bits=weight_bits, edges=edges.value, settings=settings)
    images = partial(open_calibration, calibration, calibration_hr, count=patches, size=patch_size, seed=seed)
    known = None if published is None else partial(_published_table, published, bits)
    _run(network, data, output, images, rows, value_range, device, None, known)


@bench.command()
def published(
    network: Annotated[str, typer.Argument(help="EDSR-baseline, RDN, SRResNet or SwinIR-light.")],
    scale: Annotated[int, typer.Option(help="How many times larger the output is.")] = 4,
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
    network: Path,
    data: list[Path],
    output: Path,
    images: Callable[[int], Calibration],
    rows: Mapping[str, Method],
    value_range: float | None,
    device: str,
    published: Mapping[str, Mapping[str, Sequence[float | None]]] | None,
    beside: Callable[[int], str] | None = None,
) -> None:
    from srquant import load
    from srquant.analysis.benchmark import run_benchmark
    from srquant.api import pick_device
    from srquant.images import find_pairs
    from srquant.support.errors import ArgumentError
    from srquant.support.files import replacing, require_apart, require_writable

    if output.suffix != ".json":
        raise ArgumentError(f"--output {output}: tables are written as .json files; give a name that ends so")
    for ending in (".json", ".md", ".state"):
        require_apart(output.with_suffix(ending), network, *data)
    require_writable(output)
    model = load(network, value_range=value_range).to(pick_device(device))
    known = "" if beside is None else "\n" + beside(model.scale)
    folders = [folder for path in data for folder in find_pairs(path, model.scale)]
    table = run_benchmark(model, images(model.scale), folders, rows, output)
    text = table.markdown(published) + known
    with replacing(output.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    print(text)
