from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srquant.images.tiling import Tiling
from srquant.support.errors import ArgumentError


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(16, 70), st.integers(0, 30), st.sampled_from([1, 4, 8]))
def test_tiles_cover_the_image_once(height: int, width: int, tile: int, overlap: int, alignment: int) -> None:
    covered = torch.zeros(height, width, dtype=torch.int)
    tiling = Tiling(tile, overlap, alignment)
    rows = list(tiling.rows(height, width))
    assert sum(len(row) for row in rows) == tiling.count(height, width)
    for row in rows:
        for piece in row:
            covered[piece.kept_rows, piece.kept_columns] += 1
            sides = ((piece.rows, piece.kept_rows, height), (piece.columns, piece.kept_columns, width))
            for seen, kept, length in sides:
                assert seen.start % alignment == 0
                assert seen.start == 0 or kept.start - seen.start >= overlap
                assert seen.stop == length or seen.stop - kept.stop >= overlap
                assert kept.stop - kept.start <= tile + alignment
    assert bool((covered == 1).all())


def test_cutting_and_keeping() -> None:
    image = torch.rand(3, 50, 70)

    def double(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)

    rows = [[piece.keep(double(piece.cut(image)), 2) for piece in row] for row in Tiling(16, 5).rows(50, 70)]
    assert torch.equal(torch.cat([torch.cat(row, -1) for row in rows], -2), double(image))


@pytest.mark.parametrize(("tile", "overlap"), [(15, 0), (0, 0), (-3, 2), (32, -1)])
def test_tiles_that_make_no_sense(tile: int, overlap: int) -> None:
    with pytest.raises(ArgumentError, match=f"tile={tile}"):
        Tiling(tile, overlap)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(7, 12), st.integers(7, 12), st.integers(0, 20), st.booleans()
)
def test_tiles_of_one_size(height: int, width: int, rows: int, columns: int, overlap: int, windows: bool) -> None:
    """They cover the image once, are of that size wherever the image is, and see as far as they must."""
    alignment = 8 if windows else 1
    size = (8 * rows, 8 * columns)
    tiling = Tiling(min(size), overlap, alignment, size)
    covered = torch.zeros(height, width, dtype=torch.int)
    cut = list(tiling.rows(height, width))
    assert sum(len(row) for row in cut) == tiling.count(height, width)
    heights = [row[0].kept_rows.stop - row[0].kept_rows.start for row in cut]
    assert len(set(heights[:-1])) <= 1
    assert heights[-1] <= heights[0]
    for row in cut:
        for piece in row:
            covered[piece.kept_rows, piece.kept_columns] += 1
            sides = (piece.rows, piece.kept_rows, height, size[0]), (piece.columns, piece.kept_columns, width, size[1])
            for seen, kept, length, side in sides:
                assert seen.start % alignment == 0
                assert seen.start == 0 or kept.start - seen.start >= overlap
                assert seen.stop == length or seen.stop - kept.stop >= overlap
                missing = side - (seen.stop - seen.start)
                assert missing == 0 or (length < side and seen == slice(0, length)) or missing == -length % alignment
    assert bool((covered == 1).all())


def test_tiles_of_one_size_that_leave_nothing() -> None:
    with pytest.raises(ArgumentError, match="leave nothing inside an overlap of 24 pixels"):
        Tiling(48, 20, 8, (48, 64))
