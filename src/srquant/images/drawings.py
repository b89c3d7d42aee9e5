"""Drawings made by rule: flat saturated colours, screen tones, lettering and line art, as on printed pages and screens.

Networks meet them as often as photographs, and their activations reach farther there: ranges that were measured on
photographs alone cut them off. No two seeds give the same drawing; a seed always gives the same.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from srquant.images.bicubic import shrink_8bit
from srquant.support.tensors import planes

_FINER = 4
"""How many times larger drawings are made than they are given, for edges as of a picture that was made smaller."""
Colour = tuple[int, int, int]
Painter = Callable[[ImageDraw.ImageDraw, random.Random, int], None]


def drawing(seed: int, size: int) -> NDArray[np.uint8]:
    """A drawing, ``size size 3``; four seeds in a row are of four kinds.

    Args:
        seed: Decides everything.
        size: Height and width.
    """
    draw = random.Random(seed)
    large = _FINER * size
    papers = [(255, 255, 255)] * 3 + [_pure(draw), (250, 240, 220)]
    canvas = Image.new("RGB", (large, large), draw.choice(papers))
    _PAINTERS[seed % len(_PAINTERS)](ImageDraw.Draw(canvas), draw, large)
    return shrink_8bit(planes(np.array(canvas)), _FINER).permute(1, 2, 0).contiguous().numpy()


def _pure(draw: random.Random) -> Colour:
    """A colour at a corner of the cube."""
    return (draw.choice((0, 255)), draw.choice((0, 255)), draw.choice((0, 255)))


def _ink(draw: random.Random) -> Colour:
    """Black half of the time."""
    any_colour = (draw.randrange(256), draw.randrange(256), draw.randrange(256))
    return draw.choice([(0, 0, 0), (0, 0, 0), _pure(draw), any_colour])


def _flat_colours(canvas: ImageDraw.ImageDraw, draw: random.Random, size: int) -> None:
    for _ in range(14):
        x, y = draw.randrange(size), draw.randrange(size)
        wide, high = (draw.randrange(size // 12, size // 2) // 2 for _ in range(2))
        shape = draw.choice([canvas.rectangle, canvas.ellipse])
        outline = draw.choice([None, (0, 0, 0)])
        shape((x - wide, y - high, x + wide, y + high), _pure(draw), outline, draw.randrange(1, 6))


def _screen_tones(canvas: ImageDraw.ImageDraw, draw: random.Random, size: int) -> None:
    for _ in range(4):
        left, top = (draw.randrange(-size // 4, size * 3 // 4) for _ in range(2))
        pitch = draw.choice((5, 6, 8, 10, 12))
        dot = draw.uniform(0.2, 0.5) * pitch
        for y in range(top, top + size * 2 // 3, pitch):
            for x in range(left, left + size * 2 // 3, pitch):
                canvas.ellipse((x, y, x + dot, y + dot), (0, 0, 0))
    for _ in range(12):
        points = [(draw.randrange(size), draw.randrange(size)) for _ in range(3)]
        canvas.line(points, (0, 0, 0), draw.randrange(1, 7))


def _lettering(canvas: ImageDraw.ImageDraw, draw: random.Random, size: int) -> None:
    letters = string.ascii_letters + string.digits + "!?&#%@"
    for _ in range(16):
        font = ImageFont.load_default(draw.choice((14, 20, 28, 40, 64)))
        words = "".join(draw.choice(letters) for _ in range(12))
        place = (draw.randrange(-size // 12, size), draw.randrange(size))
        canvas.text(place, words, _ink(draw), font, stroke_width=draw.choice((0, 0, 0, 1, 2)))
    _line_art(canvas, draw, size)


def _line_art(canvas: ImageDraw.ImageDraw, draw: random.Random, size: int) -> None:
    for _ in range(22):
        x, y = draw.randrange(size), draw.randrange(size)
        width = draw.randrange(1, 8)
        if draw.random() < 0.5:
            canvas.line([(x, y), (draw.randrange(size), draw.randrange(size))], _ink(draw), width)
        else:
            reach = draw.randrange(size // 24, size // 2)
            start = draw.randrange(360)
            box = (x - reach, y - reach, x + reach, y + reach)
            canvas.arc(box, start, start + draw.randrange(1, 360), _ink(draw), width)


_PAINTERS: tuple[Painter, ...] = (_flat_colours, _screen_tones, _lettering, _line_art)
