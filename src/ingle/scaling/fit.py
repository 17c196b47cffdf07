"""The law nearest to some runs: exponents by search, coefficients by least squares (variable projection).

What is made small is the sum of squares of *relative* residuals (weights 1/L²), after Huber: a run far off pulls no harder than one at
`HUBER` times the noise. Beliefs about exponents and about E (`form.Axis`, `FLOOR`) are added with the weight that the noise gives them,
so that they decide where runs say nothing, and vanish where runs have no noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingle.core.errors import ConfigError, counted
from ingle.scaling.form import Form, find_form
from ingle.scaling.law import Law
from ingle.scaling.points import Floats, Point, check_points, places_array
from ingle.scaling.solve import solve_positive

FEWEST_RUNS = 6
FLOOR, FLOOR_SPREAD = 0.6, 0.3
"""Belief about E: this part of the least loss seen, give or take."""
GAP, GAP_SPREAD = 0.08, 0.05
"""Belief about the part of their loss by which runs of the worse kind are worse, where there are two kinds."""
HUBER = 2.0
USUAL_NOISE = 0.007
"""Relative spread of runs that differ in their seed alone, before any is seen."""
_GRID = {1: 60, 2: 28, 3: 14}
"""Values of each exponent on the first grid, by their number."""
_ROUNDS = 9
_FINEST = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class LawProblem:
    """Runs as arrays, with the columns of a form scaled to about 1."""

    form: Form
    places: Floats
    """[n, 3] of `places_array`."""
    loss: Floats
    middle: Floats
    """[3]: geometric mean of the places. There every column is scaled to the least loss."""
    lowest: float
    """Least loss."""
    worse: Floats | None = None
    """[n]: 1 for runs of a worse kind, whose loss is a part higher; their part is one more coefficient, the last."""

    def design(self, exponents: Floats) -> Floats:
        """Return terms over loss [..., n, terms]: with the right coefficients each row sums to 1."""
        columns = self.form.columns(self.places, exponents)
        result: Floats = columns / self._middles(exponents)[..., None, :] * self.lowest / self.loss[:, None]
        if self.worse is None:
            return result
        return np.concatenate([result, np.broadcast_to(self.worse[:, None], (*result.shape[:-1], 1))], axis=-1)

    @property
    def beliefs(self) -> tuple[Floats, Floats]:
        """Middle of what is believed of each coefficient, and how firmly (1 / spread²; 0 = nothing is believed)."""
        middle, firmness = np.zeros(self.terms), np.zeros(self.terms)
        middle[0], firmness[0] = FLOOR, FLOOR_SPREAD**-2
        if self.worse is not None:
            middle[-1], firmness[-1] = GAP, GAP_SPREAD**-2
        return middle, firmness

    @property
    def terms(self) -> int:
        """Number of coefficients."""
        return len(self.form.terms) + (self.worse is not None)

    def natural(self, exponents: Floats, coefficients: Floats) -> Floats:
        """Return coefficients in the unit of the loss."""
        result: Floats = coefficients[..., : len(self.form.terms)] * self.lowest / self._middles(exponents)
        return result

    def _middles(self, exponents: Floats) -> Floats:
        result: Floats = self.form.columns(self.middle[None], exponents)[..., 0, :]
        return result


def problem_of(points: Sequence[Point], form: Form, worse: Sequence[bool] = ()) -> LawProblem:
    """Return runs as arrays for a form; `worse` marks those of a worse kind."""
    places, loss = places_array(points), np.array([one.loss for one in points], np.float64)
    return LawProblem(
        form, places, loss, np.exp(np.log(places).mean(axis=0)), float(loss.min()), np.array(worse, np.float64) if any(worse) else None
    )


def check_design(points: Sequence[Point]) -> None:
    """Refuse runs that no law can be told from. Raises ConfigError with what is missing."""
    check_points(points)
    kinds = sorted({one.kind for one in points})
    if len(kinds) > 1:
        counts = ", ".join(f"{kind or 'without a kind'} {sum(one.kind == kind for one in points)}" for kind in kinds)
        raise ConfigError("runs", f"must be of one kind for one law; these are of {len(kinds)}: {counts}", "", "Fit each kind by itself.")
    if len(points) < FEWEST_RUNS:
        cure = "Nine runs (three sizes, three amounts of data each) give a useful interval, twelve a narrow one."
        there = f"there {'is' if len(points) == 1 else 'are'} {len(points)}"
        raise ConfigError("runs", f"must be at least {FEWEST_RUNS} for a law; {there}", "", cure)
    if len({one.parameters for one in points}) < 2:
        raise ConfigError(
            "runs", f"must be of two sizes or more; all {counted(len(points), 'run')} have {points[0].parameters:,.0f} parameters"
        )
    if len({one.tokens for one in points}) < 2:
        raise ConfigError(
            "runs", f"must read two amounts of data or more; all {counted(len(points), 'run')} read {points[0].tokens:,.0f} tokens"
        )


def fit_law(points: Sequence[Point], form: str | Form = "chinchilla") -> Law:
    """Return the law of a form that is nearest to the runs. Raises ConfigError for runs that no law can be told from."""
    check_design(points)
    shape = find_form(form) if isinstance(form, str) else form
    problem = problem_of(points, shape)
    nearest = fit_problem(problem)
    coefficients = problem.natural(nearest.exponents, nearest.coefficients)
    return Law(shape, tuple(map(float, nearest.exponents)), tuple(map(float, coefficients)))


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The nearest law in scaled units."""

    exponents: Floats
    coefficients: Floats
    belief: float
    """Relative spread of the residuals, by which beliefs were weighed."""
    noise: float
    """Relative spread of a run: larger, because the law bends to the runs."""
    weights: Floats
    """Huber's weight of each run: 1 = as near as others."""
    residuals: Floats
    """Relative: (seen − law) / seen."""


def fit_problem(problem: LawProblem) -> Nearest:
    """Return the nearest law, its residuals and the noise."""
    count = len(problem.loss)
    free = max(1, count - problem.terms - len(problem.form.axes))
    weights, noise = np.ones(count), USUAL_NOISE
    best = _first(problem, weights, noise)
    for number in range(_ROUNDS):
        best = _zoom(problem, best, weights, noise, wide=number < 2)
        coefficients, residuals = solve(problem, best, weights, noise)
        # Undivided by what is free: where hardly anything is, beliefs would make residuals larger, and these the beliefs heavier.
        spread = float(np.sqrt((weights * residuals**2).sum() / count))
        done = abs(spread - noise) < 1e-3 * noise and number > 2
        noise = max(spread, _FINEST)
        usual = max(1.48 * float(np.median(np.abs(residuals))) * math.sqrt(count / free), _FINEST)
        weights = np.minimum(1.0, HUBER * usual / np.maximum(np.abs(residuals), 1e-300))
        if done:
            break
    return Nearest(best, coefficients, noise, noise * math.sqrt(count / free), weights, residuals)


def solve(problem: LawProblem, exponents: Floats, weights: Floats, noise: float) -> tuple[Floats, Floats]:
    """Return the coefficients ≥ 0 [..., terms] and the relative residuals [..., n] for given exponents [..., axes]."""
    design = problem.design(exponents)
    gram, moment = normal_equations(problem, design, weights, noise)
    coefficients = solve_positive(gram, moment)
    return coefficients, 1.0 - np.einsum("...np,...p->...n", design, coefficients)


def normal_equations(problem: LawProblem, design: Floats, weights: Floats, noise: float | Floats) -> tuple[Floats, Floats]:
    """Return XᵀWX and XᵀW1, with the beliefs about coefficients (times the variance of the noise) in them."""
    weighted = design * weights[:, None]
    gram, moment = np.swapaxes(weighted, -1, -2) @ design, weighted.sum(axis=-2)
    middle, firmness = problem.beliefs
    share = np.asarray(noise)[..., None] ** 2 * firmness
    return gram + share[..., None] * np.eye(problem.terms), moment + share * middle


def misfit(problem: LawProblem, exponents: Floats, weights: Floats, noise: float) -> Floats:
    """Return the sum that the fit makes small, for each of many exponents [..., axes] → [...]."""
    coefficients, residuals = solve(problem, exponents, weights, noise)
    axes = problem.form.axes
    middle, spread = np.array([axis.middle for axis in axes]), np.array([axis.spread for axis in axes])
    expected, firmness = problem.beliefs
    beliefs = (((exponents - middle) / spread) ** 2).sum(axis=-1) + ((coefficients - expected) ** 2 * firmness).sum(axis=-1)
    result: Floats = (weights * residuals**2).sum(axis=-1) + noise**2 * beliefs
    return result


def _first(problem: LawProblem, weights: Floats, noise: float) -> Floats:
    """Return the best exponents of the first grid."""
    axes = problem.form.axes
    values = [np.linspace(axis.low, axis.high, _GRID[len(axes)]) for axis in axes]
    grid = np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, len(axes))
    best: Floats = grid[np.argmin(misfit(problem, grid, weights, noise))]
    return best


def _zoom(problem: LawProblem, centre: Floats, weights: Floats, noise: float, wide: bool) -> Floats:
    """Return better exponents: five values of each around the best, nearer whenever the middle one stays the best."""
    axes = problem.form.axes
    low, high = np.array([axis.low for axis in axes]), np.array([axis.high for axis in axes])
    steps = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * len(axes), indexing="ij"), axis=-1).reshape(-1, len(axes))
    span = (high - low) / _GRID[len(axes)] * (1.0 if wide else 0.05)
    smallest = span * min(1e-4, max(1e-9, 1e-2 * noise))  # no finer than noise lets anyone see
    for _ in range(200):
        around = np.clip(centre + steps * span, low, high)
        best = around[np.argmin(misfit(problem, around, weights, noise))]
        if np.array_equal(best, centre):
            span = span * 0.4
            if (span < smallest).all():
                break
        centre = best
    return centre
