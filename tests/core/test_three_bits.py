"""Blocks of three bits: there and back, and the same numbers as blocks of four."""

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st

from ingle.core import three_bits


def blocks(seed: int, rows: int, groups: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    words = three_bits.join(draw.integers(0, 8, (rows, groups, 32)))
    return np.concatenate([draw.normal(size=(rows, groups, 2)).astype("<f2").view(np.uint8), words], axis=-1).reshape(rows, -1)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4))
def test_every_bit_is_a_code_s(seed: int, rows: int, groups: int) -> None:
    words = np.random.default_rng(seed).integers(0, 256, (rows, groups, 12)).astype(np.uint8)
    codes = three_bits.split(words)
    assert codes.shape == (rows, groups, 32) and codes.max() <= 7
    np.testing.assert_array_equal(three_bits.join(codes), words)


def test_a_code_stands_at_its_column() -> None:
    for column in range(32):
        codes = np.zeros(32, np.uint8)
        codes[column] = 7
        np.testing.assert_array_equal(three_bits.split(three_bits.join(codes)), codes)


def test_as_q4_1_gguf_s_own_library_reads_the_same_numbers() -> None:
    raw = blocks(3, 7, 3)
    theirs = dequantize(three_bits.as_q4_1(raw), GGMLQuantizationType.Q4_1)
    np.testing.assert_array_equal(three_bits.decode(raw), theirs)
