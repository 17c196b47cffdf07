"""Lengths are the same on every machine: exact whole numbers, however large."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingle.federated.secure_sum import plain_sum
from ingle.federated.terms import Grid, exact_dot, from_grid, mean_square, shorter, to_grid, usual_square

SIZES = st.sampled_from([3, 1 << 12, 1 << 31])


@given(data=st.data(), size=SIZES, length=st.integers(0, 30))
def test_products_are_summed_exactly(data: st.DataObject, size: int, length: int) -> None:
    numbers = st.lists(st.integers(-size, size), min_size=length, max_size=length)
    left, right = data.draw(numbers), data.draw(numbers)
    expected = sum(a * b for a, b in zip(left, right, strict=True))
    assert exact_dot(np.array(left, np.int64), np.array(right, np.int64)) == expected


def test_a_length_is_that_of_the_mean() -> None:
    grid = Grid(1.0, 11, 5)
    updates = [to_grid(np.random.default_rng(seed).normal(0, 0.3, 50), grid)[0] for seed in range(5)]
    total = plain_sum(updates)
    length = float(mean_square(total, 5, grid)) ** 0.5 * grid.step
    assert np.isclose(length, np.linalg.norm(from_grid(total, 5, grid)), rtol=1e-5)


def test_the_usual_is_the_median_of_three_or_more() -> None:
    lengths = [Fraction(9), Fraction(1), Fraction(4)]
    assert usual_square(lengths[:2]) is None and usual_square(lengths) == 4 and usual_square([*lengths, Fraction(100)]) == 4
    assert shorter(16, 4) == 0.5 and shorter(4, 4) == 1.0 and shorter(1, 4) == 1.0 and shorter(16, None) == 1.0
    assert shorter(0, 0) == 1.0 and shorter(5, 0) == 0.0
