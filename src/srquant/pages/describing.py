"""What a page says of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from srquant.model import Model
from srquant.pages.comparison import BICUBIC, HR, Comparison, Scored
from srquant.pages.contents import Axis, Cell, Column, Page, Point, Row, Series, Table, TradeOff
from srquant.pages.wording import change_cell, difference, finite, listed, number, ranks, score_cell, size
from srquant.support.versions import __version__
from srquant.support.wording import counted


def page_of(comparison: Comparison, title: str = "") -> Page:
    """What a page says of a comparison."""
    names = [each.title for each in comparison.contenders]
    source = next((each.model for each in comparison.contenders if isinstance(each.model, Model)), None)
    network = "" if source is None else f"{source.network.name} ×{source.scale}: "
    scenes = [each.scene for each in comparison.scored]
    unscored = [each.name for each in comparison.scored if not each.against]
    remarks = [*comparison.left_out]
    if unscored:
        remarks.append(
            f"Not scored: {listed(unscored)}. Scores need HR or the float network, and 11×11 pixels inside the border."
        )
    return Page(
        title=title or f"{network}{listed(names)}",
        result=_result(comparison),
        remarks=tuple(remarks),
        tables=tuple(_tables(comparison)),
        trade_offs=_trade_offs(comparison),
        scenes=tuple(scenes),
        layers=comparison.layers,
        curves=comparison.curves,
        provenance=tuple(each.provenance() for each in comparison.contenders),
        made_by=f"srquant {__version__}",
    )


def _result(comparison: Comparison) -> str:
    """The sentence that a reader takes home."""
    reference = comparison.reference
    quantized = [each for each in comparison.contenders if not each.is_float]
    pictures = counted(len(comparison.scored), "picture")
    scored, *_ = comparison.scored
    known = [(comparison.mean(each.title), each) for each in quantized or comparison.contenders]
    means = sorted(((mean, each) for mean, each in known if mean is not None), key=lambda pair: -pair[0])
    if not means:
        return f"{listed([each.title for each in comparison.contenders])}, side by side on {pictures}."
    (best, winner), *others = means
    before = None if reference is None else comparison.mean(reference.title)
    lost = difference(before, best)
    if reference is not None and winner.file_bytes:
        smaller = f", in a file {reference.file_bytes / winner.file_bytes:.1f} times smaller"
    else:
        smaller = ""
    where = f" on {pictures}" if len(comparison.scored) > 1 else f" on {scored.name}"
    if before is None and reference is not None:
        sentence = f"{winner.title} agrees with the float network to {number(best)} dB{where}{smaller}"
    elif lost is None:
        sentence = f"{winner.title} reaches {number(best)} dB{where}"
    else:
        sentence = f"{winner.title} {_against(lost, number(before))}{where}{smaller}"
    if not others:
        return f"{sentence}."
    second, rival = others[0]
    gap = difference(best, second)
    last = "" if gap is None else f"; the next, {rival.title}, is {number(gap)} dB behind"
    return f"{sentence}{last}."


def _against(lost: float, before: str) -> str:
    """What is lost of the float network's score, in words."""
    if not round(lost, 2):
        return f"loses nothing of the float network’s {before} dB"
    if lost < 0:
        return f"gains {number(-lost)} dB on the float network’s {before} dB"
    return f"loses {number(lost)} dB of the float network’s {before} dB"


def _tables(comparison: Comparison) -> Iterable[Table]:
    held = {HR: [each for each in comparison.scored if each.against == HR]}
    reference = comparison.reference
    if reference is not None:
        held[reference.title] = [each for each in comparison.scored if each.against == reference.title]
    for against, pictures in held.items():
        if pictures:
            yield _table(comparison, pictures, against, _over(pictures, against))
    single = [each for pictures in held.values() if len(pictures) > 1 for each in pictures]
    for each in single:
        yield _table(comparison, [each], each.against, each.name, folded=True)


def _over(pictures: Sequence[Scored], against: str) -> str:
    where = pictures[0].name if len(pictures) == 1 else f"Mean over {counted(len(pictures), 'picture')}"
    return where if against == HR else f"{where}, against the result of {against}"


def _table(
    comparison: Comparison, pictures: Sequence[Scored], against: str, caption: str, *, folded: bool = False
) -> Table:
    reference = comparison.reference if against == HR else None
    columns = [Column("PSNR (dB)")]
    columns += [Column("against float")] if reference else []
    columns += [Column("SSIM")]
    columns += [Column("against float")] if reference else []
    columns += [Column("file", smaller_first=True)]
    columns += [Column("smaller")] if comparison.reference else []
    titles = [BICUBIC, *(each.title for each in comparison.contenders if each.title != against)]
    known = {each.title: each for each in comparison.contenders}
    ranked = [title for title in titles if title in comparison.numbers]
    best = {
        score: dict(zip(ranked, ranks([comparison.mean(t, score, pictures) for t in ranked], digits), strict=True))
        for score, digits in (("psnr", 2), ("ssim", 4))
    }
    rows: list[Row] = []
    for title in titles:
        cells: list[Cell] = []
        for score, digits in (("psnr", 2), ("ssim", 4)):
            value = comparison.mean(title, score, pictures)
            cells.append(score_cell(value, digits, best[score].get(title, 0)))
            if reference:
                lost = difference(value, comparison.mean(reference.title, score, pictures))
                cells.append(change_cell(lost, digits) if title in comparison.numbers else Cell(""))
        count = known[title].file_bytes if title in known else 0
        cells.append(Cell(size(count) if count else "", float(count) or None))
        if comparison.reference:
            ratio = comparison.reference.file_bytes / count if count else None
            cells.append(Cell(f"{number(ratio, 1)}×" if ratio and title in comparison.numbers else "", ratio))
        detail = known[title].bits if title in known else ""
        rows.append(Row(title, detail, tuple(cells), comparison.numbers.get(title)))
    note = (
        "PSNR and SSIM on luma, a border of scale pixels cropped."
        if against == HR
        else ("There is no HR: models are held against what the float network gives.")
    )
    return Table(caption, tuple(columns), tuple(rows), note, folded)


def _trade_offs(comparison: Comparison) -> tuple[TradeOff, ...]:
    against_hr = [each for each in comparison.scored if each.against == HR]
    pictures = against_hr or [each for each in comparison.scored if each.against]
    quantized = [each for each in comparison.contenders if each.title in comparison.numbers]
    if len(quantized) < 2 or not pictures:
        return ()
    costs = (
        Axis("bytes", "size of the file (kB)", logarithmic=True, digits=1),
        Axis("weight_bits", "bits of the weights", digits=0),
        Axis("activation_bits", "bits of the activations", digits=0),
    )
    qualities = (Axis("psnr", "PSNR (dB)"), Axis("ssim", "SSIM", digits=4))
    series: list[Series] = []
    for each in quantized:
        weight, activation = each.widths or (None, None)
        numbers: dict[str, float | None] = {
            "bytes": each.file_bytes / 1000 or None,
            "weight_bits": weight,
            "activation_bits": activation,
            **{axis.key: finite(comparison.mean(each.title, axis.key, pictures)) for axis in qualities},
        }
        series.append(Series(each.title, comparison.numbers[each.title], (Point(each.bits, numbers),)))
    reference = comparison.reference
    levels = {axis.key: finite(comparison.mean(reference.title, axis.key, pictures)) for axis in qualities if reference}
    return (TradeOff("", costs, qualities, tuple(series), levels),)
