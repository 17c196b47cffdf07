"""Two kinds of runs are named and kept apart; one kind is left alone."""

import itertools

import numpy as np
import pytest

from ingle.scaling.interval import fit_points
from ingle.scaling.law import FORMS, _project, evidence, likely_marks, problem_of
from ingle.scaling.points import Point
from tests.scaling.test_scaling_fit import FAR, runs, truth

FORM = FORMS["chinchilla"]


def worsened(some: list[Point], which: tuple[int, ...], part: float = 0.08) -> list[Point]:
    return [Point(one.parameters, one.tokens, one.loss * (1 + part * (i in which))) for i, one in enumerate(some)]


def test_the_worse_runs_are_named_and_the_law_is_of_the_better() -> None:
    some = worsened(runs(truth("chinchilla"), 0.003, 1), (1, 4, 6, 7, 11))
    fit = fit_points(some)
    assert fit.kinds is not None and set(fit.kinds.runs) == {some[i] for i in (1, 4, 6, 7, 11)}
    assert fit.kinds.low < 0.08 < fit.kinds.high
    assert "two kinds of runs: 5 of 12" in fit.notes[0] and "820k × 1.5M" in fit.notes[0]
    one = fit.predict(FAR)[0]
    assert one.low < truth("chinchilla").loss_at(FAR)[0] < one.high
    assert one.high - one.low < 0.08 * one.loss


def test_a_single_bad_run_is_named() -> None:
    some = worsened(runs(truth("chinchilla"), 0.003, 2), (5,), 0.15)
    fit = fit_points(some)
    assert fit.kinds is not None and fit.kinds.runs == (some[5],)
    assert fit.notes[0].startswith("One run, 820k × 3M, is worse by")


def test_one_kind_stays_one() -> None:
    named = [fit_points(runs(truth("chinchilla"), noise, seed)).kinds for seed in range(4) for noise in (0.002, 0.01)]
    assert sum(one is not None for one in named) <= 1


def test_loud_noise_is_not_two_kinds() -> None:
    assert [fit_points(runs(truth("chinchilla"), 0.06, seed)).kinds for seed in range(3)] == [None] * 3


@pytest.mark.parametrize("seed", range(3))
def test_the_search_finds_what_trying_all_ways_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    some = worsened(runs(truth("chinchilla"), 0.004, seed), tuple(np.flatnonzero(rng.random(12) < 0.4)))[:9]
    ways = [marks for marks in itertools.product((False, True), repeat=9) if sum(marks) <= 7]
    scores = evidence(_project(problem_of(some, FORM)), np.array(ways, np.float64))
    found = likely_marks(some, FORM)
    assert found[0][0] == ways[int(scores.argmax())]
    shares = dict(zip(ways, np.exp(scores - np.logaddexp.reduce(scores)), strict=True))
    assert found[0][1] == pytest.approx(shares[found[0][0]] / sum(shares[marks] for marks, _ in found), rel=1e-6)


def test_evidence_is_the_integral_over_gap_and_coefficients() -> None:
    """Two ways to mark differ by as much as the same integrals done by numbers, at one grid point and one noise."""
    some = worsened(runs(truth("chinchilla"), 0.004, 5), (2, 3))
    problem = problem_of(some, FORM)
    from ingle.scaling import law

    projected = _project(problem)
    one = law._Projected(*(getattr(projected, name)[24:25] for name in ("left", "target", "square", "prior")), projected.free)
    marks = np.zeros((2, 12))
    marks[1, [2, 3]] = 1
    ours = evidence(one, marks) - [law._belief(0, 12), law._belief(2, 12)]
    gaps = np.linspace(law.GAP - 8 * law.GAP_SPREAD, law.GAP + 8 * law.GAP_SPREAD, 20001)
    density = np.exp(-0.5 * ((gaps - law.GAP) / law.GAP_SPREAD) ** 2) / (law.GAP_SPREAD * np.sqrt(2 * np.pi))
    usual = (np.log(law._NOISES) - np.log(law.USUAL_NOISE)) / law.NOISE_SPREAD
    prior = (1 + usual**2 / 3) ** -2.0
    by_hand = []
    for row in marks:
        left = one.square[0] - 2 * gaps * (row @ one.target[0]) + gaps**2 * (row @ one.left[0] @ row)
        whole = prior * law._NOISES**-one.free * np.exp(-0.5 * left[:, None] / law._NOISES**2)
        by_hand.append(np.log((np.trapezoid(whole * density[:, None], gaps, axis=0)).sum()))
    assert ours[1] - ours[0] == pytest.approx(by_hand[1] - by_hand[0], rel=1e-6)
