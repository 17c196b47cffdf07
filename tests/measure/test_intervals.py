"""Intervals and tests: the same as SciPy's, and true to their promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ingle.core.report import NO_INTERVAL, shown_interval
from ingle.measure.intervals import (
    Floats,
    bootstrap,
    change,
    mcnemar,
    paired_bootstrap,
    percent_change,
    ratio,
    resample,
    sign_test,
    wilson,
)  # fmt: skip
from tests.examples import examples


def mean_columns(values: Floats) -> Floats:
    return np.stack([values, np.ones_like(values)], axis=1)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("seed", [0, 1])
def test_of_a_mean_it_is_scipys(method: str, seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(size=80)
    oracle = stats.bootstrap((values,), np.mean, n_resamples=3000, method=method, rng=np.random.default_rng(seed), vectorized=True)
    mine = bootstrap(mean_columns(values), seed=seed, method=method, draws=3000)  # type: ignore[arg-type]
    assert (mine.low, mine.high) == pytest.approx(tuple(oracle.confidence_interval), rel=1e-9)
    assert mine.method == f"95 % bootstrap ({'BCa' if method == 'bca' else 'percentile'})"


def test_of_a_ratio_it_is_scipys() -> None:
    draw = np.random.default_rng(5)
    nbytes = draw.integers(50, 4000, 60).astype(float)
    bits = nbytes * draw.normal(1.0, 0.2, 60)

    def micro(a: Floats, b: Floats, axis: int = -1) -> Floats:
        return np.asarray(a.sum(axis=axis) / b.sum(axis=axis))

    oracle = stats.bootstrap((bits, nbytes), micro, paired=True, n_resamples=2000, method="BCa", rng=np.random.default_rng(3))
    mine = bootstrap(np.stack([bits, nbytes], axis=1), seed=3, draws=2000)
    assert (mine.low, mine.high) == pytest.approx(tuple(oracle.confidence_interval), rel=1e-9)


def test_drawing_in_blocks_is_drawing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = mean_columns(np.random.default_rng(0).normal(size=37))
    whole = resample(columns, ratio, 4, 1000)
    monkeypatch.setattr("ingle.measure.intervals._BLOCK_NUMBERS", 1500)
    np.testing.assert_array_equal(resample(columns, ratio, 4, 1000), whole)


def test_bca_falls_back_where_nothing_varies() -> None:
    same = bootstrap(mean_columns(np.full(20, 0.3)))
    assert (same.low, same.high) == pytest.approx((0.3, 0.3))
    one = bootstrap(mean_columns(np.array([2.0])))
    assert (one.low, one.high) == (2.0, 2.0)
    with pytest.raises(ValueError, match="items"):
        bootstrap(np.zeros((0, 2)))


def test_one_item_has_no_interval() -> None:
    one, after = np.array([[2.0, 1.0]]), np.array([[1.5, 1.0]])
    interval = bootstrap(one)
    assert (interval.low, interval.high, interval.method) == (2.0, 2.0, NO_INTERVAL)
    found = paired_bootstrap(one, after)
    assert (found.value, found.interval.method, found.p) == (-0.5, NO_INTERVAL, 1.0)
    figure = {"interval": NO_INTERVAL, "low": 2.0, "high": 2.0, "n": 1}
    assert shown_interval(figure) == "n = 1"
    assert shown_interval({**figure, "interval": "95 % bootstrap", "high": 3.0, "n": 9}, ".1f") == "2.0 … 3.0, n = 9"


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draw, hits = np.random.default_rng(0), 0
    for seed in range(300):
        found = bootstrap(mean_columns(draw.exponential(size=60)), seed=seed, draws=600)
        hits += found.low <= 1 <= found.high
    assert 0.89 <= hits / 300 <= 0.985


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    draw = np.random.default_rng(1)
    nbytes = draw.integers(200, 3000, 100).astype(float)
    before = np.stack([nbytes * draw.normal(1.0, 0.3, 100), nbytes], axis=1)
    after = before * np.array([1.01, 1.0])
    found = paired_bootstrap(before, after)
    assert found.value == pytest.approx(0.01 * before[:, 0].sum() / nbytes.sum())
    assert 0 < found.interval.low <= found.value <= found.interval.high
    assert found.p == pytest.approx(2 / 10001)
    own = bootstrap(before)
    assert found.interval.high - found.interval.low < 0.1 * (own.high - own.low)
    relative = paired_bootstrap(before, after, percent_change)
    assert (relative.value, relative.interval.low, relative.interval.high) == pytest.approx((1, 1, 1))
    back = paired_bootstrap(after, before)
    assert (back.value, back.interval.low) == pytest.approx((-found.value, -found.interval.high))


def test_a_paired_difference_is_scipys() -> None:
    draw = np.random.default_rng(2)
    x, y = draw.normal(size=50), draw.normal(0.2, size=50)

    def apart(a: Floats, b: Floats, axis: int = -1) -> Floats:
        return np.asarray(b.mean(axis=axis) - a.mean(axis=axis))

    oracle = stats.bootstrap((x, y), apart, paired=True, n_resamples=2000, method="percentile", rng=np.random.default_rng(9))
    found = paired_bootstrap(mean_columns(x), mean_columns(y), change, seed=9, draws=2000)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(oracle.confidence_interval), rel=1e-9)


def test_no_difference_is_no_finding() -> None:
    columns = mean_columns(np.random.default_rng(0).normal(size=30))
    found = paired_bootstrap(columns, columns)
    assert (found.value, found.interval.low, found.interval.high, found.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="same shape"):
        paired_bootstrap(columns, columns[:-1])


@given(n=st.integers(1, 400), share=st.floats(0, 1))
@examples(60)
def test_wilson_is_scipys(n: int, share: float) -> None:
    successes = round(n * share)
    oracle = stats.binomtest(successes, n).proportion_ci(method="wilson")
    mine = wilson(successes, n)
    assert (mine.low, mine.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert 0 <= mine.low <= successes / n <= mine.high <= 1


def test_wilson_refuses_nonsense() -> None:
    for counts in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="of"):
            wilson(*counts)


@given(ups=st.integers(0, 60), downs=st.integers(0, 60), same=st.integers(0, 5))
@examples(60)
def test_sign_test_and_mcnemar_are_the_exact_binomial(ups: int, downs: int, same: int) -> None:
    differences = np.array([1.5] * ups + [-0.1] * downs + [0.0] * same)
    oracle = stats.binomtest(ups, ups + downs).pvalue if ups + downs else 1.0
    assert sign_test(differences) == pytest.approx(oracle, rel=1e-9)
    before = np.array([False] * ups + [True] * downs + [True] * same, bool)
    after = np.array([True] * ups + [False] * downs + [True] * same, bool)
    assert mcnemar(before, after) == pytest.approx(oracle, rel=1e-9)
    assert sign_test(np.array([1.0] * 5000 + [-1.0] * 5000)) == 1.0
