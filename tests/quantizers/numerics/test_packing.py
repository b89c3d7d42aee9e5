from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srquant.quantizers.numerics.packing import pack, packed_size, unpack
from srquant.support.errors import ArgumentError


def pack_slowly(codes: list[int], bits: int) -> bytes:
    """One long binary number, the first code in its lowest bits."""
    number = sum(code << (bits * place) for place, code in enumerate(codes))
    return number.to_bytes(packed_size(len(codes), bits), "little")


@given(st.integers(1, 8).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1), max_size=70))))
def test_packing_is_dense_and_reversible(case: tuple[int, list[int]]) -> None:
    bits, codes = case
    packed = pack(torch.tensor(codes, dtype=torch.int16), bits)
    assert bytes(packed.tolist()) == pack_slowly(codes, bits)
    assert unpack(packed, bits, len(codes)).tolist() == codes


def test_a_code_outside_its_bits_is_refused() -> None:
    with pytest.raises(ArgumentError, match="3 bits hold 0…7"):
        pack(torch.tensor([8]), 3)


def test_a_wrong_number_of_bytes_is_refused() -> None:
    with pytest.raises(ArgumentError, match="10 codes of 4 bits take 5"):
        unpack(torch.zeros(6, dtype=torch.uint8), 4, 10)
