"""Pictures side by side, labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_MARGIN = 6
_LINE = 17


@dataclass(frozen=True)
class Panel:
    """One picture, uint8 ``h w 3``, and the lines under it."""

    pixels: NDArray[np.uint8]
    lines: tuple[str, ...]


def side_by_side(panels: Sequence[Panel], zoom: int = 1) -> NDArray[np.uint8]:
    """Panels in a row, magnified without smoothing, their lines below.

    Args:
        panels: Pictures of one height.
        zoom: Screen pixels for each pixel.

    Returns:
        uint8, ``h w 3``.
    """
    font = ImageFont.load_default(size=13)
    height = zoom * max(panel.pixels.shape[0] for panel in panels)
    text = _LINE * max(len(panel.lines) for panel in panels)
    widths = [zoom * panel.pixels.shape[1] for panel in panels]
    sheet = Image.new("RGB", (sum(widths) + _MARGIN * (len(panels) + 1), height + text + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    left = _MARGIN
    for panel, width in zip(panels, widths, strict=True):
        picture = Image.fromarray(panel.pixels)
        sheet.paste(picture.resize((width, zoom * panel.pixels.shape[0]), Image.Resampling.NEAREST), (left, _MARGIN))
        for number, line in enumerate(panel.lines):
            draw.text((left, height + _MARGIN + number * _LINE), line, fill="black", font=font)
        left += width + _MARGIN
    return np.asarray(sheet)


def stack(sheets: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Sheets under each other, left aligned on white."""
    width = max(sheet.shape[1] for sheet in sheets)
    wide = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets]
    return np.concatenate(wide)
