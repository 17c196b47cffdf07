"""Rows of Q4_16: what was joined comes apart again, and a weight is what the formula says, number by number."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingle.core import sixteens


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_rows_come_apart_as_they_were_joined_and_mean_the_formula(rows: int, blocks: int, seed: int) -> None:
    draw, columns = np.random.default_rng(seed), 32 * blocks
    unit = draw.random(rows).astype(np.float32)
    scale, minimum = (draw.integers(0, 256, (rows, columns // 16)) for _ in range(2))
    codes = draw.integers(0, 16, (rows, columns))
    raw = sixteens.join(unit, scale, minimum, codes)
    assert (raw.dtype, raw.shape) == (np.uint8, (rows, 4 + 20 * blocks))
    for part, given_ in zip(sixteens.split(raw), (unit, scale, minimum, codes), strict=True):
        np.testing.assert_array_equal(part, given_)
    values = sixteens.decode(raw)
    for n in range(rows):
        for k in range(0, columns, 7):
            exact = float(unit[n]) * (int(scale[n, k // 16]) * int(codes[n, k]) - 16 * int(minimum[n, k // 16]))
            assert abs(values[n, k] - exact) <= 1e-3 * float(unit[n])
    one = np.flatnonzero(codes[0] != 0)
    if len(one):  # the first code lies in the lower half of the fifth byte behind the unit
        assert raw[0, 8] == codes[0, 0] | codes[0, 16] << 4
