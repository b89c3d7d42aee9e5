"""Integer codes of 1 to 8 bits to bytes and back.

The codes are laid out one after the other, the least significant bit first, with no gaps: code ``i`` occupies the
bits ``i*bits … i*bits + bits - 1`` of the stream, and bit ``j`` of the stream is bit ``j % 8`` of byte ``j // 8``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from srquant.support.errors import ArgumentError


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take."""
    return (count * bits + 7) // 8


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes into bytes.

    Args:
        codes: Integers in [0, 2^bits), any shape, any integer dtype.
        bits: 1 to 8.

    Returns:
        uint8, shape ``(packed_size(codes.numel(), bits),)``.

    Raises:
        ArgumentError: ``bits`` is outside 1…8 or a code is outside its range.
    """
    _check_bits(bits)
    flat = codes.reshape(-1)
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= 1 << bits):
        raise ArgumentError(
            f"codes reach from {int(flat.min())} to {int(flat.max())}; {bits} bits hold 0…{2**bits - 1}"
        )
    stream = flat.to("cpu", torch.uint8).numpy()[:, None] >> np.arange(bits, dtype=np.uint8) & 1
    return torch.from_numpy(np.packbits(stream, bitorder="little"))


def unpack(data: Tensor, bits: int, count: int) -> Tensor:
    """Undo :func:`pack`.

    Returns:
        uint8 codes, shape ``(count,)``.

    Raises:
        ArgumentError: ``data`` does not have the ``packed_size(count, bits)`` bytes that ``count`` codes take.
    """
    _check_bits(bits)
    if data.numel() != packed_size(count, bits):
        raise ArgumentError(f"{data.numel()} bytes given; {count} codes of {bits} bits take {packed_size(count, bits)}")
    stream = np.unpackbits(data.cpu().numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    return torch.from_numpy((stream << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8))


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ArgumentError(f"bits={bits} is outside 1…8")
