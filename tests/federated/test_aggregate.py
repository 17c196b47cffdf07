"""The sum of several homes is the mean of their dense products: exactly by turns and frozen, as near as the rank allows stacked."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ConfigError, ShapeError
from ingle.federated.aggregate import AGGREGATIONS, A, B, Tensors, added_gain, aggregation, first_factors, flat_gain, stacked, trained_names
from tests.examples import examples

SHAPES = {"model.layers.0.self_attn.q_proj": (12, 10), "model.layers.1.mlp.down_proj": (9, 20)}
Factors = dict[str, npt.NDArray[np.float32]]


def dense(factors: Tensors) -> dict[str, npt.NDArray[np.float64]]:
    return {linear: factors[linear + B].astype(np.float64) @ factors[linear + A] for linear in SHAPES}


def mean_of(homes: list[Factors]) -> dict[str, npt.NDArray[np.float64]]:
    products = [dense(home) for home in homes]
    return {linear: np.mean([product[linear] for product in products], axis=0) for linear in SHAPES}


def error(factors: Tensors, wanted: dict[str, npt.NDArray[np.float64]]) -> float:
    got = dense(factors)
    lost = sum(float(np.square(got[linear] - wanted[linear]).sum()) for linear in SHAPES)
    return (lost / sum(float(np.square(wanted[linear]).sum()) for linear in SHAPES)) ** 0.5


def naive(homes: list[Factors]) -> Factors:
    """Federated averaging of both factors, as it is usually done: the thing beaten."""
    return {name: np.mean([home[name] for home in homes], axis=0) for name in homes[0]}


def trained(factors: Tensors, names: tuple[str, ...], rng: np.random.Generator) -> Factors:
    return {name: values + (rng.normal(size=values.shape).astype(np.float32) if name in names else 0) for name, values in factors.items()}


def rounds(method: str, homes: int, count: int, seed: int, check: Callable[[Factors, list[Factors]], None]) -> Factors:
    rng = np.random.default_rng(seed)
    factors = first_factors(SHAPES, 4, seed)
    for number in range(1, count + 1):
        names = trained_names(factors, method, number)
        after = [trained(factors, names, rng) for _ in range(homes)]
        gain = np.mean([flat_gain(factors, one, names) for one in after], axis=0)
        factors = added_gain(factors, gain, names)
        check(factors, after)
    return factors


@pytest.mark.parametrize("method", ["alternate", "frozen"])
@given(homes=st.integers(3, 7), seed=st.integers(0, 10**6))
@examples(15)
def test_a_sum_is_the_mean_of_the_dense_products(method: str, homes: int, seed: int) -> None:
    def check(factors: Factors, after: list[Factors]) -> None:
        assert error(factors, mean_of(after)) < 1e-6

    final = rounds(method, homes, 4, seed, check)
    start = first_factors(SHAPES, 4, seed)
    assert all((final[name] == start[name]).all() for name in final if name.endswith(A)) == (method == "frozen")


def test_naive_averaging_is_not_the_mean() -> None:
    rng = np.random.default_rng(3)
    start = first_factors(SHAPES, 4, 3)
    homes = [trained(start, tuple(start), rng) for _ in range(5)]
    assert error(naive(homes), mean_of(homes)) > 0.5
    assert stacked(homes, 4)[1] < error(naive(homes), mean_of(homes)), "even cut to the same rank"


@given(homes=st.integers(1, 6), rank=st.integers(1, 9), seed=st.integers(0, 10**6))
@examples(20)
def test_stacked_is_the_nearest_pair_and_tells_its_loss(homes: int, rank: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = first_factors(SHAPES, 2, seed)
    after = [trained(start, tuple(start), rng) for _ in range(homes)]
    factors, lost = stacked(after, rank)
    wanted = mean_of(after)
    assert factors.keys() == start.keys() and all(values.dtype == np.float32 for values in factors.values())
    assert error(factors, wanted) == pytest.approx(lost, abs=2e-6)
    best = sum(float(np.square(np.linalg.svd(product, compute_uv=False)[rank:]).sum()) for product in wanted.values())
    assert lost == pytest.approx((best / sum(float(np.square(product).sum()) for product in wanted.values())) ** 0.5, abs=1e-6)
    if rank >= 2 * homes:
        assert lost < 1e-7


def test_stacked_nothing_is_nothing() -> None:
    factors, lost = stacked([first_factors(SHAPES, 4, 0)] * 3, 4)
    assert lost == 0 and not any(values.any() for values in dense(factors).values())


def test_the_start_is_the_same_bits_everywhere() -> None:
    """A digest of another run: the homes' common start must not depend on the version of NumPy."""
    from ingle.core.digest import digest_bytes

    factors = first_factors(SHAPES, 4, 7)
    assert digest_bytes(b"".join(factors[name].tobytes() for name in sorted(factors)))[:16] == "af66166bd846c005"
    assert factors.keys() == {linear + end for linear in SHAPES for end in (A, B)}
    one = factors["model.layers.0.self_attn.q_proj" + A]
    assert one.shape == (4, 10) and 0.15 < one.std() * 10**0.5 / (1 / 3) ** 0.5 < 1.5 and np.abs(one).max() <= 10**-0.5
    assert not (first_factors(SHAPES, 4, 8)["model.layers.0.self_attn.q_proj" + A] == one).any()


def test_who_is_trained_when() -> None:
    start = first_factors(SHAPES, 2, 0)
    ends = {
        method: [sorted({name[-14:] for name in trained_names(start, method, number)}) for number in (1, 2, 3)] for method in AGGREGATIONS
    }
    assert ends == {"alternate": [[B], [A], [B]], "frozen": [[B]] * 3, "stack": [[A, B]] * 3}
    assert [method for method in AGGREGATIONS if aggregation(method).open] == ["stack"]


def test_what_does_not_fit_is_said() -> None:
    start = first_factors(SHAPES, 2, 0)
    names = trained_names(start, "alternate", 1)
    with pytest.raises(ConfigError, match="must be one of alternate, frozen, stack, not fedavg"):
        aggregation("fedavg")
    with pytest.raises(ConfigError, match="from 1 to 10"):
        first_factors(SHAPES, 11, 0)
    with pytest.raises(ShapeError, match="must have the shape"):
        flat_gain(start, first_factors(SHAPES, 3, 0), names)
    with pytest.raises(ShapeError, match="no such tensor"):
        flat_gain(start, {}, names)
    with pytest.raises(ShapeError, match="must have 42 numbers"):
        added_gain(start, np.zeros(41), names)
