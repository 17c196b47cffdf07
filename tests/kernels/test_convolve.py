"""The convolutions of kernels/conv.py against NumPy, through the layout that media/painter.py gives them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ShapeError
from ingle.media.painter import Convolution, Network
from tests.examples import examples
from tests.kernels import naive


def expected(convolutions: list[Convolution], picture: np.ndarray) -> np.ndarray:
    """What the network gives, by NumPy."""
    pictures = [picture.astype(np.float64)]
    for one in convolutions:
        y = naive.convolve(pictures[-1], one.weight, one.bias, one.step, one.depthwise)
        y = y + pictures[-one.skip] if one.skip else y
        pictures.append(naive.relu6(y) if one.clipped else y)
    return pictures[-1]


def drawn(
    draw: np.random.Generator, out: int, into: int, size: int, step: int = 1, depthwise: bool = False, **rest: bool | int
) -> Convolution:
    weight = draw.standard_normal((out, 1 if depthwise else into, size, size)) / size
    return Convolution(weight.astype(np.float32), draw.standard_normal(out).astype(np.float32), step, depthwise=depthwise, **rest)  # type: ignore[arg-type]


@given(
    side=st.integers(1, 40), colours=st.integers(1, 5), wide=st.integers(1, 70), size=st.sampled_from([1, 2, 3, 5]), step=st.integers(1, 3),
    threads=st.integers(1, 3), seed=st.integers(0, 10**6), clipped=st.booleans(),
)  # fmt: skip
@examples(60)
def test_kernels_are_their_naive_reference(
    side: int, colours: int, wide: int, size: int, step: int, threads: int, seed: int, clipped: bool
) -> None:
    draw = np.random.default_rng(seed)
    convolutions = [
        drawn(draw, 20, colours, size, step),
        drawn(draw, wide, 20, 1, clipped=clipped),
        drawn(draw, wide, wide, size, depthwise=True, clipped=clipped),
        drawn(draw, 20, wide, 1, clipped=False, skip=3),
        drawn(draw, 20, 20, size, step, depthwise=True),
    ]
    picture = draw.standard_normal((side, side, colours)).astype(np.float32)
    wanted = expected(convolutions, picture)
    got = Network(convolutions, side, colours, threads)(picture)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5 * max(1, np.abs(wanted).max()))


def test_the_number_of_threads_changes_no_bit_and_a_second_picture_forgets_the_first() -> None:
    draw = np.random.default_rng(0)
    convolutions = [drawn(draw, 33, 3, 3, 2), drawn(draw, 33, 33, 5, depthwise=True), drawn(draw, 50, 33, 1)]
    first, second = draw.standard_normal((2, 37, 37, 3)).astype(np.float32)
    one, three = Network(convolutions, 37, 3, 1), Network(convolutions, 37, 3, 3)
    alone = one(second)
    three(first)
    np.testing.assert_array_equal(three(second), alone)
    assert not np.array_equal(one(first), alone)


def test_what_the_kernel_can_not_read_is_refused() -> None:
    draw = np.random.default_rng(0)
    with pytest.raises(ShapeError, match="convolution 1 must be depthwise, or one pixel wide"):
        Network([drawn(draw, 4, 3, 3), drawn(draw, 4, 4, 3)], 8, 3)
    with pytest.raises(ShapeError, match="must have shape"):
        Network([drawn(draw, 4, 3, 3)], 8, 3)(np.zeros((9, 8, 3), np.float32))
