"""The law nearest to some runs: exact where there is no noise, and nowhere worse than what scipy finds."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import least_squares, minimize, nnls

from ingle.core.errors import ConfigError
from ingle.scaling.law import FORMS, Law, check_design, fit_problem, misfit, nearest_law, problem_of, solve_positive
from ingle.scaling.points import Place, Point, places_array
from tests.examples import examples

SIZES, DATA = (0.24e6, 0.82e6, 1.19e6, 2.76e6), (0.75e6, 1.5e6, 3e6)
FAR = [Place(6.43e6, 5.25e6)]
TRUTHS = {
    "chinchilla": ((0.4, 0.35), (1.0, 150.0, 110.0)),
    "repeated": ((0.4, 0.35, 9.0), (1.0, 150.0, 110.0)),
    "farseer_lite": ((0.4, 0.35, 0.05), (1.0, 150.0, 60.0)),
}


def truth(name: str) -> Law:
    exponents, coefficients = TRUTHS[name]
    return Law(FORMS[name], exponents, coefficients)


def runs(law: Law, noise: float = 0.0, seed: int = 0) -> list[Point]:
    rng = np.random.default_rng(seed)
    unique = (0.5e6, 1e6) if law.form.knows_repeats else (0.0,)
    places = [Place(size, data, some) for size, data, some in itertools.product(SIZES, DATA, unique)]
    losses = law.loss_at(places) * np.exp(noise * rng.standard_normal(len(places)))
    return [Point(at.parameters, at.tokens, float(loss), at.unique) for at, loss in zip(places, losses, strict=True)]


def fit_law(points: Sequence[Point], form: str = "chinchilla") -> Law:
    """The law of a form that is nearest to the runs."""
    check_design(points)
    problem = problem_of(points, FORMS[form])
    return nearest_law(problem, fit_problem(problem))


def test_every_form_has_a_truth_here() -> None:
    assert TRUTHS.keys() == FORMS.keys()


@pytest.mark.parametrize("name", TRUTHS)
def test_without_noise_the_law_is_found(name: str) -> None:
    law = truth(name)
    found = fit_law(runs(law), name)
    assert found.exponents == pytest.approx(law.exponents, rel=1e-6)
    assert found.coefficients == pytest.approx(law.coefficients, rel=1e-6)
    assert found.loss_at(FAR) == pytest.approx(law.loss_at(FAR), rel=1e-6)


def test_scipy_finds_no_better_law() -> None:
    for seed in range(5):
        problem = problem_of(runs(truth("chinchilla"), 0.005, seed), FORMS["chinchilla"])
        ours = fit_problem(problem)

        def height(at: np.ndarray, problem=problem, ours=ours) -> float:
            clipped = np.clip(at, 0.02, 1.5)
            return float(misfit(problem, clipped, ours.weights, ours.belief) + ((at - clipped) ** 2).sum())

        starts = itertools.product((0.2, 0.5, 0.8), repeat=2)
        theirs = min(minimize(height, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-16}).fun for start in starts)
        assert float(misfit(problem, ours.exponents, ours.weights, ours.belief)) <= theirs * (1 + 1e-6)


def test_scipy_finds_the_law_with_all_five_numbers_at_once() -> None:
    """Nothing of ours but the runs, their weights and the noise: least squares over E, A, B, α, β, with the beliefs written out."""
    for seed in range(3):
        some = runs(truth("chinchilla"), 0.003, seed)
        ours = fit_problem(problem_of(some, FORMS["chinchilla"]))
        n, d, loss = (np.array([getattr(one, name) for one in some]) for name in ("parameters", "tokens", "loss"))
        middle_n, middle_d, lowest = np.exp(np.log(n).mean()), np.exp(np.log(d).mean()), loss.min()

        def law(at: np.ndarray, n: np.ndarray, d: np.ndarray, middle_n=middle_n, middle_d=middle_d, lowest=lowest) -> np.ndarray:
            return lowest * (at[0] + at[1] * (n / middle_n) ** -at[3] + at[2] * (d / middle_d) ** -at[4])

        def apart(at: np.ndarray, law=law, ours=ours, n=n, d=d, loss=loss) -> np.ndarray:
            beliefs = [(at[0] - 0.6) / 0.3, (at[3] - 0.38) / 0.16, (at[4] - 0.38) / 0.16]
            return np.append(np.sqrt(ours.weights) * (1 - law(at, n, d) / loss) / ours.belief, beliefs)

        starts = itertools.product((0.3, 0.8), (0.2, 0.6), (0.2, 0.6))
        bounds = ([0, 0, 0, 0.02, 0.02], [5, 5, 5, 1.5, 1.5])
        theirs = min((least_squares(apart, [e, 0.3, 0.3, x, y], bounds=bounds, xtol=1e-12) for e, x, y in starts), key=lambda one: one.cost)
        assert ours.exponents == pytest.approx(theirs.x[3:], abs=2e-3)
        found = fit_law(some).loss_at(FAR)
        assert found == pytest.approx(law(theirs.x, np.array([FAR[0].parameters]), np.array([FAR[0].tokens])), rel=1e-4)


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 5])
def test_positive_coefficients_are_those_of_scipy(terms: int) -> None:
    rng = np.random.default_rng(terms)
    design = rng.standard_normal((200, 9, terms)) + rng.uniform(-1, 1, (200, 1, 1))
    target = rng.standard_normal((200, 9)) + 0.5
    ours = solve_positive(np.swapaxes(design, 1, 2) @ design, np.einsum("bnp,bn->bp", design, target))
    theirs = np.array([nnls(one, right)[0] for one, right in zip(design, target, strict=True)])
    assert np.allclose(ours, theirs, atol=1e-8)
    assert terms == 1 or (theirs == 0).any()


@examples(25)
@given(st.integers(0, 10**6), st.floats(1.2, 5.0))
def test_the_unit_of_the_loss_does_not_matter(seed: int, unit: float) -> None:
    some = runs(truth("chinchilla"), 0.004, seed)
    other = [Point(one.parameters, one.tokens, one.loss * unit) for one in some]
    assert fit_law(other).loss_at(FAR) == pytest.approx(unit * fit_law(some).loss_at(FAR), rel=1e-4)


def test_one_run_far_off_pulls_little() -> None:
    law, some = truth("chinchilla"), runs(truth("chinchilla"), 0.002)
    some[5] = Point(some[5].parameters, some[5].tokens, some[5].loss * 1.15)
    problem = problem_of(some, law.form)
    assert np.argmin(fit_problem(problem).weights) == 5
    assert fit_law(some).loss_at(FAR) == pytest.approx(law.loss_at(FAR), rel=0.04)


@pytest.mark.parametrize(
    ("some", "said"),
    [
        ([Point(n, d, 2.0) for n in (1e6, 2e6) for d in (1e6, 2e6)], "must be at least 6 for a law; there are 4"),
        ([Point(1e6, d * 1e6, 2.0) for d in range(1, 8)], "two sizes or more; all 7 runs have 1,000,000 parameters"),
        ([Point(n * 1e6, 1e6, 2.0) for n in range(1, 8)], "two amounts of data or more"),
        ([Point(n * 1e6, n * 1e6, 2.0, kind="ab"[n % 2]) for n in range(1, 8)], "of one kind for one law; these are of 2: a 3, b 4"),
    ],
)
def test_runs_without_a_law_are_refused(some: list[Point], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fit_law(some)
    assert said in str(caught.value)


def test_columns_take_many_exponents_at_once() -> None:
    places = places_array(runs(truth("repeated")))
    for form in FORMS.values():
        rng = np.random.default_rng(0)
        exponents = rng.uniform([axis.low for axis in form.axes], [axis.high for axis in form.axes], (5, len(form.axes)))
        many = form.columns(places, exponents)
        assert many.shape == (5, len(places), len(form.terms))
        assert (many[..., 0] == 1).all() and (many > 0).all()
        for one, row in zip(many, exponents, strict=True):
            assert np.allclose(one, form.columns(places, row), rtol=1e-12)
