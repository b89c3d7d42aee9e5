"""Reading and writing images, MATLAB's bicubic, benchmark pairs and calibration patches.

The way of a picture that is enlarged::

    file ── open_picture ──> PictureFile: pages, frames, or one ── read ──> Picture: pixels, layout, metadata
    Picture ── filled ──> no dark colour under alpha 0 ── Tiling ──> tiles ── network ──> Banded: bands of rows
    Banded ── checked, cut anew ──> writer of the format: strips, pages, frames ──> file

What a format can hold is a table (:mod:`srquant.images.formats.table`); what it cannot is said once.
"""

from __future__ import annotations

from srquant.images.bicubic import resize as resize
from srquant.images.bicubic import shrink_8bit as shrink_8bit
from srquant.images.calibration import Calibration as Calibration
from srquant.images.finding import find_pairs as find_pairs
from srquant.images.metadata import Metadata as Metadata
from srquant.images.pairs import Pair as Pair
from srquant.images.pairs import PairFolder as PairFolder
from srquant.images.picture import Layout as Layout
from srquant.images.picture import Picture as Picture
from srquant.images.reading import read_picture as read_picture
from srquant.images.writing import write_picture as write_picture
