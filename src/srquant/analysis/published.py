"""Scores that papers print, to stand beside one's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from srquant.support.errors import ArgumentError, UnknownNameError
from srquant.support.settings import from_json


@dataclass(frozen=True)
class PublishedRow:
    """One method on one network, as printed.

    Args:
        network: As the papers call it: EDSR-baseline, RDN, SRResNet, SwinIR-light.
        scale: How many times larger the output is.
        method: Its name; ``float`` is the network itself.
        weight_bits: Of weights; 32 is float.
        activation_bits: Of activations.
        source: Paper and table that print it.
        note: What else must be known for a fair comparison: which layers have more bits, what was read uncertainly.
        scores: PSNR in dB and SSIM (None where not printed), on Y, a border of ``scale`` pixels cropped, for each data
            set.
    """

    network: str
    scale: int
    method: str
    weight_bits: int
    activation_bits: int
    source: str
    note: str
    scores: dict[str, tuple[float, float | None]]

    @property
    def bits(self) -> str:
        """As W4A4."""
        return "float" if self.activation_bits == 32 else f"W{self.weight_bits}A{self.activation_bits}"


@dataclass(frozen=True)
class PublishedCost:
    """What a method costs on EDSR at W4A4, as OAPTQ's table 5 prints it, on an RTX 2080 Ti.

    Args:
        method: Its name.
        process_seconds: To quantize.
        latency: In ms, simulated.
    """

    method: str
    process_seconds: float
    latency: float


COSTS = (PublishedCost("PTQ4SR", 126, 133), PublishedCost("AdaBM", 72, 143), PublishedCost("OAPTQ", 73, 135))
"""OAPTQ's table 5. Its storage of EDSR at 4 bits, 229.517K, is AdaBM's count, without breakpoints."""


@cache
def all_published() -> tuple[PublishedRow, ...]:
    """Every row, in the order of its table."""
    rows = json.loads(Path(__file__).with_name("published.json").read_text())
    return tuple(from_json(PublishedRow, row) for row in rows)


def published(network: str, scale: int, bits: int | None = None) -> tuple[PublishedRow, ...]:
    """The rows of a network; float and bicubic rows belong to all bits.

    Args:
        network: Its published name, in any case.
        scale: 2, 3 or 4.
        bits: Of activations; None for all.

    Raises:
        UnknownNameError: Nothing is known of such a network.
        ArgumentError: Nothing is known of it at this scale or these bits.
    """
    own = [row for row in all_published() if row.network.lower() == network.lower()]
    if not own:
        raise UnknownNameError("published network", network, sorted({row.network for row in all_published()}))
    rows = tuple(row for row in own if row.scale == scale and bits in (None, row.activation_bits))
    if not rows:
        known = sorted({(row.scale, row.activation_bits) for row in own if row.activation_bits < 32})
        listed = ", ".join(f"×{scale} at {count} bits" for scale, count in known)
        raise ArgumentError(
            f"nothing is known of {own[0].network} ×{scale}{f' at {bits} bits' if bits else ''}; known are {listed}"
        )
    return tuple(row for row in own if row in rows or (row.scale == scale and row.activation_bits == 32))


def published_markdown(rows: Sequence[PublishedRow]) -> str:
    """A table; data sets that no row has are left out."""
    sets = list(dict.fromkeys(name for row in rows for name in row.scores))
    header = ["", "bits", *(text for name in sets for text in (f"{name} PSNR", "SSIM")), "source"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        cells = [row.method, row.bits]
        for name in sets:
            score = row.scores.get(name)
            cells += ["", ""] if score is None else [f"{score[0]:.2f}", "" if score[1] is None else f"{score[1]:.4g}"]
        lines.append([*cells, f"{row.source} ({row.note})" if row.note else row.source])
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"Published on {rows[0].network} ×{rows[0].scale}, of another training\n\n{table}\n"
