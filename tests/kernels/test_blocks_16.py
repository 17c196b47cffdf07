"""Rows of Q4_16 and Q3_16: what was joined comes apart again, and a weight is what the formula says, number by number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.kernels import formats


@pytest.mark.parametrize(("kind", "most"), [("Q4_16", 16), ("Q3_16", 8)])
@given(rows=st.integers(1, 5), blocks=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_rows_come_apart_and_mean_the_formula(kind: str, most: int, rows: int, blocks: int, seed: int) -> None:
    draw, columns = np.random.default_rng(seed), 32 * blocks
    unit = draw.random(rows).astype(np.float32)
    scale, minimum = (draw.integers(0, 256, (rows, columns // 16)) for _ in range(2))
    codes = draw.integers(0, most, (rows, columns))
    raw = formats.join_16(kind, unit, scale, minimum, codes)
    assert (raw.dtype, raw.shape) == (np.uint8, (rows, 4 + formats.BYTES_16[kind] * blocks))
    for part, given_ in zip(formats.split_16(kind, raw), (unit, scale, minimum, codes), strict=True):
        np.testing.assert_array_equal(part, given_)
    values = formats.decode(kind, raw)
    for n in range(rows):
        for k in range(0, columns, 7):
            exact = float(unit[n]) * (int(scale[n, k // 16]) * int(codes[n, k]) - 16 * int(minimum[n, k // 16]))
            assert abs(values[n, k] - exact) <= 1e-3 * float(unit[n])
