"""Odds of being right: as often as they say, wide where little is known, and never from another kind of question."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.explain.cause import SureSignals
from ingle.explain.odds import FEATURES, LEAST_ITEMS, Calibration, auroc, calibration_error, features, fitted

HAZY = SureSignals(-1.0, -3.0, 1.2, -1.5, -3.0, 1.2, 0.1, 12)


def drawn(count: int, seed: int = 0) -> list[tuple[SureSignals, bool]]:
    """Answers that are right the more often, the likelier their telling words are."""
    draw, found = np.random.default_rng(seed), []
    for _ in range(count):
        telling = -float(draw.exponential(1.0))
        right = bool(draw.random() < 1 / (1 + math.exp(-(2.0 + 2.5 * telling))))
        found.append(
            (replace(HAZY, telling=telling, mean=telling / 2 + float(draw.normal(0, 0.2)), tokens=int(draw.integers(4, 24))), right)
        )
    return found


def test_odds_are_right_as_often_as_they_say() -> None:
    fit = fitted("text", drawn(600))
    assert fit is not None
    others = drawn(3000, seed=1)
    odds = [fit.odds(signals) for signals, _ in others]
    right = [was for _, was in others]
    assert calibration_error([one.p for one in odds], right) < 0.04
    assert auroc([one.p for one in odds], right) > 0.75
    bins = np.array_split(np.argsort([one.p for one in odds]), 10)
    inside = [odds[b[0]].low - 0.05 <= np.mean([right[i] for i in b]) <= odds[b[-1]].high + 0.05 for b in bins]
    assert sum(inside) >= 9


def test_fewer_questions_give_wider_intervals() -> None:
    widths = []
    for count in (60, 600):
        fit = fitted("text", drawn(count))
        assert fit is not None
        odds = fit.odds(HAZY)
        assert 0 <= odds.low <= odds.p <= odds.high <= 1
        assert odds.n == count
        widths.append(odds.high - odds.low)
    assert widths[0] > widths[1]


@pytest.mark.parametrize("right", [True, False])
def test_a_kind_that_was_always_right_is_not_certain(right: bool) -> None:
    fit = fitted("bare", [(signals, right) for signals, _ in drawn(100)])
    assert fit is not None
    odds = fit.odds(drawn(1)[0][0])
    assert 0 < odds.low < odds.high < 1
    assert (odds.low > 0.8) if right else (odds.high < 0.2)


def test_too_few_questions_are_not_measured() -> None:
    assert fitted("text", drawn(LEAST_ITEMS - 1)) is None
    fit = fitted("text", drawn(LEAST_ITEMS))
    assert fit is not None
    assert Calibration("m", "2026-01-01", (fit,)).odds("bare", HAZY) is None
    assert Calibration("m", "2026-01-01", (fit,)).odds("text", HAZY) == fit.odds(HAZY)


def test_what_lies_outside_counts_as_the_end() -> None:
    fit = fitted("text", drawn(200))
    assert fit is not None
    lowest = SureSignals(*(fit.low[FEATURES.index(name)] if name in FEATURES else 0.5 for name in _NAMES), tokens=4)
    far = SureSignals(*(value - 50 if name in FEATURES else value for name, value in zip(_NAMES, _values(lowest), strict=True)), tokens=4)
    assert fit.odds(far) == fit.odds(lowest)


_NAMES = ("mean", "least", "entropy", "telling", "telling_least", "telling_entropy", "explained")


def _values(signals: SureSignals) -> list[float]:
    return [getattr(signals, name) for name in _NAMES]


def test_the_fit_is_where_no_small_step_makes_the_outcomes_likelier() -> None:
    answers = drawn(150)
    fit = fitted("text", answers)
    assert fit is not None
    rows = np.array([[1, *((features(one) - np.array(fit.middle)) / np.array(fit.spread))] for one, _ in answers])
    right = np.array([was for _, was in answers], float)
    rows, right = np.concatenate([rows, np.eye(1, rows.shape[1]).repeat(2, axis=0)]), np.concatenate([right, [1.0, 0.0]])
    counts = np.concatenate([np.ones(150), [0.5, 0.5]])

    def loss(weights: np.ndarray) -> float:
        z = rows @ weights
        return float((counts * (np.logaddexp(0, z) - right * z)).sum() + (weights[1:] ** 2).sum() / 2)

    best = np.array(fit.weights)
    assert not best[-1], "a hundred and fifty answers don't allow all signals"
    for i in np.flatnonzero(best):
        for step in (1e-3, -1e-3):
            assert loss(best + step * np.eye(len(best))[i]) > loss(best)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool]]) -> None:
    scores, right = [float(score) for score, _ in pairs], [was for _, was in pairs]
    good, bad = ([score for score, was in pairs if was == which] for which in (True, False))
    got = auroc(scores, right)
    if not good or not bad:
        assert math.isnan(got)
    else:
        naive = sum((a > b) + (a == b) / 2 for a in good for b in bad) / (len(good) * len(bad))
        assert got == pytest.approx(naive)


def test_calibration_error_is_the_distance_between_said_and_seen() -> None:
    assert calibration_error([0.75] * 4, [True, True, True, False]) == pytest.approx(0.0)
    assert calibration_error([0.9, 0.9, 0.1, 0.1], [True, False, False, False]) == pytest.approx(0.25)
    assert calibration_error([1.0], [True]) == 0.0
