"""Calibration patches cut into pieces, and patches that nothing is learned from."""

from __future__ import annotations

import torch

from srquant.images import Calibration
from srquant.images.covering import Covering
from srquant.images.cutting import Pieces


def test_pieces_lie_side_by_side(calibration: Calibration) -> None:
    patches = Covering(calibration, drawings=2, saturated=1)  # of 24x24
    pieces = Pieces(patches, 8)
    assert (pieces.side, len(pieces)) == (8, 9 * len(patches))
    for number in (0, len(patches) - 1):
        rows = [pieces.batch(range(9 * number + 3 * row, 9 * number + 3 * row + 3)) for row in range(3)]
        whole = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
        assert torch.equal(whole, patches.patch(number))


def test_what_is_left_over_is_not_used(calibration: Calibration) -> None:
    pieces = Pieces(Covering(calibration, 0, 0), 10)
    assert len(pieces) == 4 * len(calibration)
    assert torch.equal(pieces.patch(3), calibration.patch(0)[:, 10:20, 10:20])


def test_patches_smaller_than_a_piece_are_taken_whole(calibration: Calibration) -> None:
    pieces = Pieces(Covering(calibration, 0, 0), 32)
    assert (pieces.side, len(pieces)) == (24, len(calibration))
    assert torch.equal(pieces.patch(1), calibration.patch(1))


def test_digests_tell_pieces_apart(calibration: Calibration) -> None:
    kinds = [Pieces(Covering(calibration, *extra), size) for extra in ((0, 0), (1, 0), (0, 1)) for size in (8, 12)]
    assert len({pieces.digest() for pieces in kinds}) == 6


def test_held_out_patches_are_others(calibration: Calibration) -> None:
    patches = Covering(calibration, drawings=4, saturated=0)
    held = patches.held_out(4)
    assert {kind: tuple(images.shape) for kind, images in held.items()} == dict.fromkeys(
        ("given", "drawings"), (4, 3, 24, 24)
    )
    seen = torch.cat(list(patches.batches(8)))
    for images in held.values():
        assert not any(bool((image == seen).flatten(1).all(1).any()) for image in images)
