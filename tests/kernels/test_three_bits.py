"""Codes of three bits: there and back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingle.kernels import formats


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4))
def test_every_bit_is_a_code_s(seed: int, rows: int, groups: int) -> None:
    words = np.random.default_rng(seed).integers(0, 256, (rows, groups, 12)).astype(np.uint8)
    codes = formats.split_3(words)
    assert codes.shape == (rows, groups, 32) and codes.max() <= 7
    np.testing.assert_array_equal(formats.join_3(codes), words)


def test_a_code_stands_at_its_column() -> None:
    for column in range(32):
        codes = np.zeros(32, np.uint8)
        codes[column] = 7
        np.testing.assert_array_equal(formats.split_3(formats.join_3(codes)), codes)
