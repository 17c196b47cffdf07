"""Products in bfloat16 are the float32 products of what was rounded, for any number of rows."""

import numpy as np
import pytest

from ingle.learn.pieces import BFloat16, Float32, kept_matrix, rounded


def again(values: np.ndarray) -> np.ndarray:
    """float32 of what is rounded to bfloat16."""
    whole: np.ndarray = (rounded(values).astype(np.uint32) << 16).view(np.float32).reshape(values.shape)
    return whole


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 12, 13, 30, 97, 200])
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 16), (48, 80), (1536, 576), (2064, 48)])
def test_products_are_those_of_the_rounded_numbers(rows: int, outputs: int, inputs: int) -> None:
    draw = np.random.default_rng(rows)
    weight, x, g = (draw.standard_normal(size).astype(np.float32) for size in ((outputs, inputs), (rows, inputs), (rows, outputs)))
    matrix = BFloat16.gathered([weight], *weight.shape)
    assert matrix.shape == (outputs, inputs)
    for mine, naive in ((matrix.times(x), again(x) @ again(weight).T), (matrix.back(g), again(g) @ again(weight))):
        assert np.abs(mine - naive).max() <= 1e-5 * np.abs(naive).max()
    assert matrix.times(x).tobytes() == matrix.times(x).tobytes()


def test_a_row_does_not_depend_on_the_others() -> None:
    draw = np.random.default_rng(0)
    weight, x = (draw.standard_normal(shape).astype(np.float32) for shape in ((32, 64), (40, 64)))
    matrix = BFloat16.gathered([weight[:7], weight[7:30], weight[30:]], 32, 64)
    whole = matrix.times(x)
    for number in (0, 11, 12, 37, 39):
        assert matrix.times(x[number : number + 1]).tobytes() == whole[number : number + 1].tobytes()


def test_rounding_is_to_the_nearest_and_ties_to_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -2.5, 0.0, 3.4e38, 1e-40], np.float32)
    assert again(values)[:5].tolist() == [1.0, 1.0, 1.015625, -2.5, 0.0]


def test_what_does_not_fit_stays_in_float32() -> None:
    values = np.ones((17, 32), np.float32)
    assert isinstance(kept_matrix(values, True), Float32)
    assert isinstance(kept_matrix(values[:16], False), Float32)
