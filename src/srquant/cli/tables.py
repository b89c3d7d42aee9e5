"""What commands print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srquant.analysis.speed import Speed
from srquant.cli.demonstration import Row
from srquant.fetching.catalogue import Entry
from srquant.fetching.fetching import place_of
from srquant.images.evaluation import Scores
from srquant.images.perceptual import SCORES
from srquant.methods import MethodDescription
from srquant.model import Model
from srquant.model.adapting import image_factor
from srquant.model.layer import CodedWeight
from srquant.model.record import Record
from srquant.model.survey import survey
from srquant.model.swapping import quant_layers
from srquant.quantizers import Quantizer
from srquant.support.settings import to_json


def print_scores(scores: list[Scores]) -> None:
    """A row for each data set."""
    further = [f"{SCORES[name].title} (lower is better)" for name in (scores[0].further if scores else ())]
    adaptive = any(row.fab is not None for row in scores)
    fab = ["FAB"] if adaptive else []
    table = _table("data", "images", "PSNR (dB)", "SSIM", "SSIM (AdaBM)", *further, *fab)
    for row in scores:
        means = f"{row.psnr:.2f}", *(f"{mean:.4f}" for mean in (row.ssim, row.ssim_adabm, *row.further.values()))
        bits = [] if row.fab is None else [f"{row.fab:.2f}"]
        table.add_row(row.name, str(len(row.images)), *means, *bits)
    _print(table)
    print_made([row.name for row in scores if row.low_is_made])


def print_made(names: Iterable[str]) -> None:
    """Say of which data sets there were no LR images."""
    for name in names:
        print(f"{name}: there are no LR images; they were made from the HR images by MATLAB's bicubic")


def print_network(model: Model) -> None:
    """Name, hyper-parameters and work of a network."""
    network = model.network
    print(f"network: {network.name} ×{model.scale}  {_flat(to_json(network.config))}")
    print(f"parameters: {model.sizes().parameters:,}   multiply-adds per LR pixel: {_work(model):,.0f}")


def print_record(record: Record) -> None:
    """How a model was made."""
    print(f"method: {record.method}  {_flat(record.settings)}")
    print(f"made from: {record.source}, calibrated on {record.calibration}")
    print(f"made with: {_flat(record.versions)}")


def print_layers(model: Model) -> None:
    """Bits and ranges of every quantized layer, and what bits follow."""
    table = _table("layer", "bits (weight/act.)", "activations", "weights or right operand")
    for layer in model.layers():
        bits = f"{_bits(layer.right)}/{_bits(layer.left)}"
        table.add_row(layer.name, bits, _range(layer.left), _range(layer.right))
    _print(table)
    looking = image_factor(model.network)
    if looking is not None:
        print(
            f"±1: a bit less for images with a mean slope below {float(looking.lower):.1f}, a bit more for those above "
            f"{float(looking.upper):.1f} (1000 times the mean magnitude of Sobel's derivatives of luma in [0, 1])"
        )


def _bits(quantizer: Quantizer) -> str:
    return f"{quantizer.bits}±1" if quantizer.follows_image else str(quantizer.bits)


def print_coverage(model: Model) -> None:
    """What is quantized, what stayed float, and why."""
    record = model.record
    assert record is not None
    print(f"quantized: {len(model.layers())} layers, {record.coverage:.1%} of the multiply-adds")
    reasons: dict[str, list[tuple[str, float]]] = {}
    for kept in record.kept:
        reasons.setdefault(kept.reason, []).append((kept.name, kept.coverage))
    for reason, items in reasons.items():
        names = ", ".join(name for name, _ in items[:4])
        names += f" and {len(items) - 4} more" if len(items) > 4 else ""
        print(f"float: {names} ({sum(part for _, part in items):.1%} of the multiply-adds): {reason}")
    if record.folds:
        print(f"folded: {len(record.folds)} batch normalisations into the convolutions before them")


def print_totals(model: Model) -> None:
    """What is quantized, by kind and bits: layers, weights and their bytes."""
    rows: dict[tuple[str, str], list[int]] = {}
    for layer in quant_layers(model.network).values():
        weight = layer.right
        bits = f"{layer.quantizers()['right'].bits}/{layer.left.bits}"
        count = weight.get_buffer("codes").numel() if isinstance(weight, CodedWeight) else 0
        row = rows.setdefault((layer.product.kind, bits), [0, 0, 0])
        for place, more in enumerate((1, count, -(-count * layer.quantizers()["right"].bits // 8))):
            row[place] += more
    table = _table("quantized", "bits (weight/act.)", "layers", "weights", "bytes of codes")
    for (kind, bits), numbers in sorted(rows.items()):
        table.add_row(kind, bits, *(f"{number:,}" for number in numbers))
    table.add_row("all", "", *(f"{sum(row[place] for row in rows.values()):,}" for place in range(3)))
    _print(table)


def print_speeds(speeds: Sequence[Speed], measured: str) -> None:
    """A row for each file; the first is what the others are compared with."""
    table = _table(measured, "ms", "LR megapixels/s", "times as fast", "slowest round (ms)")
    for row in speeds:
        slowest = f"{1000 * max(row.seconds):.1f}"
        table.add_row(
            row.name, f"{row.milliseconds:.1f}", f"{row.megapixels_per_second:.3f}", f"{row.times:.2f}", slowest
        )
    _print(table)


def print_losses(model: Model) -> None:
    """The layers that lose most, and what would help."""
    losses = model.record and model.record.losses
    if not losses:
        return
    print(
        f"layers that lose most (of {losses.layers}, each quantized alone; agreement with the float network's output "
        f"on {losses.patches} patches of {losses.size}x{losses.size}; all together: {losses.together:.1f} dB):"
    )
    bits = {layer.name: (layer.right.bits, layer.left.bits) for layer in model.layers()}
    for loss in losses.worst:
        help_ = f"--layer '{loss.name}=float' ({loss.coverage:.1%} of the multiply-adds) gives {loss.gain:+.1f} dB"
        more = "" if bits.get(loss.name) == (8, 8) else f"; --layer '{loss.name}=8' part of that"
        print(f"  {loss.name}: {loss.alone:.1f} dB alone; {help_}{more}")


def print_file(path: Path, model: Model) -> None:
    """Size of the file and compression."""
    sizes = model.sizes()
    size = path.stat().st_size
    if model.record is None:
        print(f"{path}: {size:,} bytes")
        return
    print(f"{path}: {size:,} bytes for {sizes.stored_bits / 8:,.0f} counted; float32 takes {4 * sizes.parameters:,}")
    print(
        f"compression: {sizes.ratio:.2f}× by weights, {sizes.ratio_with_biases:.2f}× with biases counted at the "
        f"weights' bits, {4 * sizes.parameters / size:.2f}× as a file"
    )


_GIVEN = {"patches": "LR images", "pairs": "photographs"}
"""What methods need, in few words."""


def print_methods(methods: Sequence[MethodDescription]) -> None:
    """A row for each method."""
    columns = "method", "is given", "bits of", "what it does", "source"
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for method in methods:
        table.add_row(method.name, _GIVEN[method.needs], method.bits_of, Text(method.summary), Text(method.source))
    _print(table)


def print_fields(method: MethodDescription) -> None:
    """A method, and a row for each of its fields."""
    print(f"{method.name}: {method.summary}\nSource: {method.source}\n")
    table = Table("field", "takes", "default", "meaning", box=None, pad_edge=False, header_style="bold")
    for field in method.fields:
        default = str(field.default).lower() if field.default in (None, True, False) else field.default
        table.add_row(field.name, Text(field.type), str(default), Text(field.documentation))
    _print(table)


def _work(model: Model) -> float:
    return survey(model.network).multiply_adds if model.record is None else model.record.multiply_adds


def _range(quantizer: Quantizer) -> str:
    return f"{quantizer.name} {quantizer.extra_repr().partition(', ')[2]}"


def _flat(content: object, prefix: str = "") -> str:
    if isinstance(content, dict):
        parts = (_flat(value, f"{prefix}{'.' if prefix else ''}{key}") for key, value in content.items())  # pyright: ignore
        return " ".join(part for part in parts if part)
    return f"{prefix}={content}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return table


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def print_demo(rows: list[Row]) -> None:
    """The demo's table."""
    table = _table("model", "PSNR (dB)", "SSIM", "file (bytes)", "smaller", "quantized in")
    for row in rows:
        seconds = f"{row.seconds:.1f} s" if row.seconds else ""
        smaller = f"{rows[0].size / row.size:.1f}×"
        table.add_row(row.name, f"{row.psnr:.2f}", f"{row.ssim:.4f}", f"{row.size:,}", smaller, seconds)
    _print(table)


def print_catalogue(known: Mapping[str, Entry]) -> None:
    """A row for each name."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "what", "size", "checksum", "licence", "cached"):
        table.add_column(title, no_wrap=title in ("name", "size"), justify="right" if title == "size" else "left")
    for name, entry in known.items():
        place = place_of(entry)
        if name != entry.name:
            table.add_row(name, f"the same as {entry.name}")
            continue
        receipt = place.receipt
        size = place.origin.bytes or (receipt.bytes if receipt is not None else None)
        checksum = place.origin.checksum_from or ("by hand" if place.origin.by_hand else "at first use")
        table.add_row(
            name,
            Text(entry.what),
            f"{size / 1e6:,.1f} MB" if size else "?",
            Text(checksum),
            Text(entry.license),
            receipt.describe() if receipt is not None else "no",
        )
    _print(table)
