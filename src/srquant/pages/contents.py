"""What a page says, before anything is drawn: tables, charts, pictures, layers, curves, and where all is from.

A page leaves out what it has nothing for. Numbers that are not finite are shown as a dash or ∞ and drawn nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        title: Its heading.
        group: Heading above it, shared by neighbours; empty for none.
        smaller_first: Whether small numbers are the good ones, which sorting shows first.
    """

    title: str
    group: str = ""
    smaller_first: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text: What is read.
        value: What is sorted by; None where there is nothing, which sorts last.
        rank: 1 for the best of its kind, 2 for the second best, 0 for all others.
    """

    text: str
    value: float | None = None
    rank: int = 0


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        title: Of the model.
        detail: Bits, or what else tells it from others of its title.
        cells: One a column.
        series: Which colour and mark it has all over the page; None for the float network and its like.
    """

    title: str
    detail: str
    cells: tuple[Cell, ...]
    series: int | None = None


@dataclass(frozen=True)
class Table:
    """Scores of models.

    Args:
        caption: On what.
        columns: Without the first, which names the model.
        rows: In the order in which they are shown first.
        note: What must be known to read it.
        folded: Whether it is opened by a click.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    folded: bool = False

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Headings above columns, and over how many each goes; empty if there are none."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return tuple(found) if any(column.group for column in self.columns) else ()


@dataclass(frozen=True)
class Axis:
    """Something that points have a number of.

    Args:
        key: In the numbers of points.
        title: With its unit.
        logarithmic: Whether factors count, not differences.
        digits: After the point.
        less_is_better: Whether the axis is turned, so that what is better is farther up.
    """

    key: str
    title: str
    logarithmic: bool = False
    digits: int = 2
    less_is_better: bool = False


@dataclass(frozen=True)
class Point:
    """A model, in a chart."""

    label: str
    numbers: dict[str, float | None]
    """By the keys of the axes."""


@dataclass(frozen=True)
class Series:
    """Points of one method, joined by a line."""

    title: str
    number: int
    """Which colour and mark."""
    points: tuple[Point, ...]


@dataclass(frozen=True)
class TradeOff:
    """Quality against what it costs, for one network.

    Args:
        title: Of the network.
        costs: Choices of the horizontal axis.
        qualities: Choices of the vertical one.
        series: What is drawn.
        levels: Of the float network, by the keys of qualities: a dashed line.
    """

    title: str
    costs: tuple[Axis, ...]
    qualities: tuple[Axis, ...]
    series: tuple[Series, ...]
    levels: dict[str, float | None] = field(default_factory=dict[str, float | None])


@dataclass(frozen=True)
class Shown:
    """One of the pictures of a scene.

    Args:
        title: HR, bicubic, or that of a model.
        note: Its score.
        webp: The file.
    """

    title: str
    note: str
    webp: bytes


@dataclass(frozen=True)
class Scene:
    """Pictures of one thing, of one size.

    Args:
        name: Of the file.
        width: Pixels.
        height: Pixels.
        region: Left, top and size of the square that is shown first.
        pictures: The first is what others are compared with.
        storage: How pixels were stored, in words.
        left: Number of the picture that stands on the left first.
        right: On the right.
    """

    name: str
    width: int
    height: int
    region: tuple[int, int, int]
    pictures: tuple[Shown, ...]
    storage: str
    left: int = 0
    right: int = 0


@dataclass(frozen=True)
class LayerRow:
    """A layer of a quantized model.

    Args:
        name: Of the multiplication.
        bits: As W4A4; A4 for a product of two activations.
        lower: Lowest level of its input; of channels with bounds of their own the lowest of all.
        upper: Highest level.
        loss: PSNR in dB that is lost with this layer alone quantized; None if it was not measured.
        seen: Smallest and largest value of its input in the float network; None if that was not measured.
        counts: Values of that input in equal bins between the two.
    """

    name: str
    bits: str
    lower: float
    upper: float
    loss: float | None = None
    seen: tuple[float, float] | None = None
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Layers:
    """The layers of one model, in the order in which they run.

    Args:
        title: Of the model.
        rows: Of all layers; empty where only ``note`` is known.
        note: What they lose most by, in words.
    """

    title: str
    rows: tuple[LayerRow, ...]
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """How parts of a loss fell while a model learned.

    Args:
        title: Of the model.
        number: Which colour.
        parts: By name, an epoch after the other; None where an epoch's stage has no such part.
    """

    title: str
    number: int
    parts: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Provenance:
    """Where a model is from.

    Args:
        title: Of the model.
        facts: What and its value.
        settings: The method's resolved configuration, a field a line; empty for a float network.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Page:
    """A page, whole.

    Args:
        title: Of the window and in small above the result.
        result: The sentence that a reader takes home.
        remarks: What else must be said at once: what failed, what is missing and how to get it.
        tables: Of scores.
        trade_offs: One a network.
        scenes: Pictures.
        layers: One a model.
        curves: One a model that learned.
        provenance: One a model.
        made_by: The version that made the page.
    """

    title: str
    result: str
    remarks: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    trade_offs: tuple[TradeOff, ...] = ()
    scenes: tuple[Scene, ...] = ()
    layers: tuple[Layers, ...] = ()
    curves: tuple[Curve, ...] = ()
    provenance: tuple[Provenance, ...] = ()
    made_by: str = ""
