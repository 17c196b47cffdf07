"""Blocks of keys and values: what was put there comes back, in int8 to within half a step, and what is cleared is gone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.state import BLOCK_TOKENS, CACHES, block_elements, clear, largest, parts, to_int8, write

WIDTH, DIM = 32, 24


@given(seed=st.integers(0, 10**6), power=st.integers(-3, 6))
def test_int8_is_within_half_a_step(seed: int, power: int) -> None:
    x = (np.random.default_rng(seed).standard_normal((5, 7, DIM)) * 10.0**power).astype(np.float32)
    q, scale = to_int8(x)
    assert (q.dtype, scale.dtype, scale.shape) == (np.int8, np.float16, (5, 7))
    assert np.abs(q.astype(int)).max(axis=-1).min() >= 126, "all of the 8 bits are used"
    step = scale.astype(np.float64)[..., None]
    assert (np.abs(q * step - x) <= step * 0.56).all()  # half, and what rounding the scale to float16 cuts off at the far end


def test_what_is_no_number_is_told_and_nothing_stays_nothing() -> None:
    rows = np.zeros((5, DIM), np.float32)
    rows[1, 3], rows[2, 0], rows[3, 1], rows[4] = np.nan, np.inf, 1e-9, 1e30
    q, scale = to_int8(rows)
    assert np.isnan(scale).tolist() == [False, True, True, False, False]
    assert (scale[0], scale[3]) == (0, 0) and not q[[0, 3]].any()
    assert (q[4] == 127).all() and scale[4].astype(np.float64) * 127 == largest("int8")


@pytest.mark.parametrize("dtype", CACHES)
def test_what_is_put_into_a_block_comes_back(dtype: str) -> None:
    draw = np.random.default_rng(0)
    block = np.zeros(block_elements(WIDTH, dtype), dtype)
    written = [draw.standard_normal((2, n, DIM)).astype(np.float32) for n in (3, 4)]
    write(block, WIDTH, slice(0, 3), *written[0])
    write(block, WIDTH, slice(3, 7), *written[1])
    keys, values, scales = parts(block, WIDTH)
    assert (scales is None) == (dtype != "int8")
    expected = [np.concatenate(pair) for pair in zip(*written, strict=True)]
    for got, want, part in ((keys.T, expected[0], 0), (values, expected[1], 1)):
        numbers = got.astype(np.float64) * (1 if scales is None else scales[part].astype(np.float64)[:, None])
        np.testing.assert_allclose(numbers[:7, :DIM], want, atol={"float32": 0, "float16": 2e-3, "int8": 2e-2}[dtype])
        assert not numbers[7:].any() and not numbers[:, DIM:].any()
    clear(block[None], WIDTH, 2)
    assert keys[:, :2].any() and values[:2].any() and not keys[:, 2:].any() and not values[2:].any()
    assert scales is None or (scales[:, :2].all() and not scales[:, 2:].any())


def test_int8_is_half_of_float16_and_four_bytes_for_the_scales() -> None:
    half, bytes_ = (block_elements(64, dtype) * np.dtype(dtype).itemsize for dtype in ("float16", "int8"))
    assert bytes_ == half // 2 + 4 * BLOCK_TOKENS
    assert bytes_ / half < 0.516
