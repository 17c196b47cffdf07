"""Laws of loss: the forms that they have, the law nearest to some runs, and which runs are of a worse kind.

A form is a sum of terms, each with a coefficient ≥ 0. The terms depend on a few exponents in a way that the form says, and on the
coefficients only as a factor. So the exponents alone are searched, and the coefficients are solved for (variable projection,
arXiv 2603.22339). To add a form, add a line to `FORMS`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import lgamma, log
from typing import Any

import numpy as np

from ingle.core.errors import ConfigError, counted
from ingle.scaling.points import Floats, Place, Point, check_points, places_array, shown


@dataclass(frozen=True, slots=True)
class Axis:
    """One exponent, and where it is believed to lie before any run is seen."""

    name: str
    low: float  # least value that is searched
    high: float
    middle: float  # believed value
    spread: float  # standard deviation of that belief


@dataclass(frozen=True, slots=True)
class Form:
    """A family of laws."""

    name: str
    words: str  # its equation
    # Names of the coefficients. The first term is the loss that no model goes below, and its column is 1.
    terms: tuple[str, ...]
    axes: tuple[Axis, ...]
    # (places [n, 3] of `places_array`, exponents [..., axes]) → terms without their coefficients [..., n, terms].
    columns: Callable[[Floats, Floats], Floats]
    knows_repeats: bool = False  # whether the runs themselves say what a second reading is worth

    @property
    def believed(self) -> Floats:
        """Least value, greatest value, middle and spread of each exponent, [4, axes]."""
        return np.array([(axis.low, axis.high, axis.middle, axis.spread) for axis in self.axes]).T


PUBLISHED_REPEATS = 15.0  # readings after which a repeated token is worth 1/e of a new one (arXiv 2305.16264)
ALPHA = Axis("alpha", 0.02, 1.5, 0.38, 0.16)
BETA = Axis("beta", 0.02, 1.5, 0.38, 0.16)


def worth(places: Floats, repeats: Floats | float = PUBLISHED_REPEATS) -> Floats:
    """Return tokens in units of new ones [..., n]: U + U·R·(1 − e^(−r/R)) for r repetitions of U different tokens."""
    tokens, unique = places[:, 1], places[:, 2]
    rate = np.asarray(repeats, np.float64)[..., None]
    result: Floats = unique + unique * rate * -np.expm1(-(tokens / unique - 1) / rate)
    return result


def power(base: Floats, exponents: Floats) -> Floats:
    """Return base^−exponent: [..., n] and [...] → [..., n]."""
    result: Floats = np.exp(-exponents[..., None] * np.log(base))
    return result


def _form(
    name: str, words: str, third: Axis | None, data: Callable[[Floats, Floats], Floats], knows_repeats: bool = False
) -> Form:  # fmt: skip
    """Return a form of a floor, a term of size and a term of data. `third`: its exponent beside α and β."""

    def columns(places: Floats, exponents: Floats) -> Floats:
        size = power(places[:, 0], exponents[..., 0])
        return np.stack([np.ones_like(size), size, data(places, exponents)], axis=-1)

    return Form(name, words, ("E", "A", "B"), (ALPHA, BETA, *([third] if third else [])), columns, knows_repeats)


# Every form by name.
FORMS = {
    form.name: form
    for form in (
        # Size and data each take their part off (Hoffmann, arXiv 2203.15556).
        _form("chinchilla", "E + A·N^−α + B·D^−β", None, lambda places, exponents: power(worth(places), exponents[..., 1])),
        # Data are worth another amount to larger models (after Farseer, arXiv 2506.10972, with one term less).
        _form(
            "farseer_lite", "E + A·N^−α + B·N^γ·D^−β", Axis("gamma", -0.3, 0.3, 0.0, 0.08),
            lambda places, exponents: power(worth(places), exponents[..., 1]) * power(places[:, 0], -exponents[..., 2]),
        ),
        # Where texts repeat, a token read again counts for less (arXiv 2305.16264).
        _form(
            "repeated", "E + A·N^−α + B·D'^−β, D' = U + U·R·(1 − e^(−r/R))", Axis("repeats", 0.5, 60.0, PUBLISHED_REPEATS, 12.0),
            lambda places, exponents: power(worth(places, exponents[..., 2]), exponents[..., 1]), knows_repeats=True,
        ),
    )
}  # fmt: skip


# Least squares with coefficients ≥ 0, for many small systems at once.


_RIDGE = 1e-13  # part of the diagonal that keeps equal columns solvable


def solve_positive(gram: Floats, moment: Floats) -> Floats:
    """Return the c ≥ 0 that minimises c·gram·c − 2·moment·c, for each of many systems: [..., p, p] and [..., p] → [..., p].

    A solution without a negative coefficient stands. Else all smaller sets of terms are solved for, and the best one without a negative
    coefficient is taken: by the conditions of Kuhn and Tucker the optimum is among them.
    """
    terms = moment.shape[-1]
    flat_gram, flat_moment = gram.reshape(-1, terms, terms), moment.reshape(-1, terms)
    result = _solved(flat_gram, flat_moment)
    left = np.flatnonzero((result < 0).any(axis=-1))
    if left.size:
        result[left] = _best_set(flat_gram[left], flat_moment[left])
    return result.reshape(moment.shape)


def _best_set(gram: Floats, moment: Floats) -> Floats:
    best = np.zeros_like(moment)
    most = np.zeros(len(moment))
    terms = moment.shape[-1]
    for size in range(1, terms):
        for chosen in combinations(range(terms), size):
            index = np.array(chosen)
            some = _solved(gram[:, index[:, None], index], moment[:, index])
            explained = np.where((some >= 0).all(axis=-1), (some * moment[:, index]).sum(axis=-1), 0.0)
            better = explained > most
            most[better] = explained[better]
            best[better] = 0.0
            best[np.ix_(better, index)] = some[better]
    return best


def _solved(gram: Floats, moment: Floats) -> Floats:
    diagonal = np.sqrt(np.maximum(np.einsum("...ii->...i", gram), 1e-300))
    scaled = gram / (diagonal[..., :, None] * diagonal[..., None, :]) + _RIDGE * np.eye(gram.shape[-1])
    result: Floats = np.linalg.solve(scaled, (moment / diagonal)[..., None])[..., 0] / diagonal
    return result


# A law: a form with its exponents and coefficients.


@dataclass(frozen=True, slots=True)
class Law:
    """A form with its numbers, in the unit of the runs' loss."""

    form: Form
    exponents: tuple[float, ...]
    coefficients: tuple[float, ...]

    def loss_at(self, places: Iterable[Point | Place]) -> Floats:
        """Return the loss at each place, float64 [n]."""
        columns = self.form.columns(places_array(places), np.array(self.exponents, np.float64))
        result: Floats = columns @ np.array(self.coefficients, np.float64)
        return result

    def table(self) -> dict[str, Any]:
        """Return the law as plain values: form, equation, and each number by its name."""
        exponents = dict(zip((axis.name for axis in self.form.axes), self.exponents, strict=True))
        return (
            {"form": self.form.name, "equation": self.form.words} | exponents | dict(zip(self.form.terms, self.coefficients, strict=True))
        )


# The law nearest to some runs: exponents by search, coefficients by least squares (variable projection).
# What is made small is the sum of squares of *relative* residuals (weights 1/L²), after Huber: a run far off pulls no harder than one at
# `HUBER` times the noise. Beliefs about exponents and about E (`form.Axis`, `FLOOR`) are added with the weight that the noise gives them,
# so that they decide where runs say nothing, and vanish where runs have no noise.


FEWEST_RUNS = 6
FLOOR, FLOOR_SPREAD = 0.6, 0.3  # belief about E: this part of the least loss seen, give or take
GAP, GAP_SPREAD = 0.08, 0.05  # belief about the part of their loss by which runs of the worse kind are worse, where there are two kinds
HUBER = 2.0
USUAL_NOISE = 0.007  # relative spread of runs that differ in their seed alone, before any is seen
NOISE_SPREAD, _NOISE_TAIL = 0.8, 3.0  # belief about it: within a factor of e^±0.8, with long tails (Student's t, three degrees)
_GRID = {2: 28, 3: 14}  # values of each exponent on the first grid, by their number
_ROUNDS = 9
_FINEST = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class LawProblem:
    """Runs as arrays, with the columns of a form scaled to about 1."""

    form: Form
    places: Floats  # [n, 3] of `places_array`
    loss: Floats
    # [3]: geometric mean of the places. There every column is scaled to the least loss.
    middle: Floats
    lowest: float  # least loss
    # [n]: 1 for runs of a worse kind, whose loss is a part higher; their part is one more coefficient, the last.
    worse: Floats | None = None

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


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The nearest law in scaled units."""

    exponents: Floats
    coefficients: Floats
    belief: float  # relative spread of the residuals, by which beliefs were weighed
    noise: float  # relative spread of a run: larger, because the law bends to the runs
    weights: Floats  # huber's weight of each run: 1 = as near as others
    residuals: Floats  # relative: (seen − law) / seen


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


def nearest_law(problem: LawProblem, nearest: Nearest) -> Law:
    """Return the nearest law in the unit of the loss."""
    coefficients = problem.natural(nearest.exponents, nearest.coefficients)
    return Law(problem.form, tuple(map(float, nearest.exponents)), tuple(map(float, coefficients)))


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
    _, _, middle, spread = problem.form.believed
    expected, firmness = problem.beliefs
    beliefs = (((exponents - middle) / spread) ** 2).sum(axis=-1) + ((coefficients - expected) ** 2 * firmness).sum(axis=-1)
    result: Floats = (weights * residuals**2).sum(axis=-1) + noise**2 * beliefs
    return result


def believed_noise(log_noise: Floats) -> Floats:
    """Return the log of what is believed of the noise before any run is seen, but for a constant."""
    usual = (log_noise - np.log(USUAL_NOISE)) / NOISE_SPREAD
    result: Floats = -0.5 * (_NOISE_TAIL + 1) * np.log1p(usual**2 / _NOISE_TAIL)
    return result


def _grid(values: Sequence[Floats]) -> Floats:
    """Return every choice of one value for each axis, [choices, axes]."""
    return np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, len(values))


def _first(problem: LawProblem, weights: Floats, noise: float) -> Floats:
    """Return the best exponents of the first grid."""
    axes = problem.form.axes
    grid = _grid([np.linspace(axis.low, axis.high, _GRID[len(axes)]) for axis in axes])
    best: Floats = grid[np.argmin(misfit(problem, grid, weights, noise))]
    return best


def _zoom(problem: LawProblem, centre: Floats, weights: Floats, noise: float, wide: bool) -> Floats:
    """Return better exponents: five values of each around the best, nearer whenever the middle one stays the best."""
    low, high, _, _ = problem.form.believed
    steps = _grid([np.linspace(-1, 1, 5)] * len(low))
    span = (high - low) / _GRID[len(low)] * (1.0 if wide else 0.05)
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


# Two kinds of runs: some ended a good part worse than the law of the others, and noise can't be why.
# Small models trained alike, but for the seed, can fall into two kinds. An average of both is a law of neither. So every likely way to mark
# runs as worse is compared, by how probable it makes the losses: exponents and noise on a grid, coefficients and the gap in closed form.
# Marks are found by flipping one run at a time, and the best few at each step go on.


TWO_KINDS = 0.1  # belief that there are two kinds, before any run is seen
FEWEST_BETTER = 2  # runs of the better kind that there must be
SEPARATE = 3.0  # times the noise that the gap between two kinds must be: nearer ones can't be told apart
MOST_MARKS = 4  # ways to mark the runs that go on into the law
_LEAST = 0.02  # ways that are less probable are left out
_BEAM = 24
_NOISES = np.geomspace(0.0006, 0.24, 18)
# Values of each exponent on the grid, in spreads of what is believed: of the first two, and of others and where there are many runs.
_STEPS, _FEW_STEPS = (-1.8, -1.2, -0.6, 0.0, 0.6, 1.2, 1.8), (-1.2, 0.0, 1.2)
_MANY_RUNS = 100
MOST_RUNS = 1000  # more are not searched for two kinds

Marks = tuple[bool, ...]  # which runs are of the worse kind


@dataclass(frozen=True, slots=True)
class TwoKinds:
    """Which runs are worse, and by how much."""

    runs: tuple[Point, ...]  # runs that are probably of the worse kind
    of: int  # number of all runs
    gap: float  # how much higher the loss of the worse kind is: 0.07 = 7 %
    low: float
    high: float
    chance: float  # probability that there are two kinds at all

    @property
    def sentence(self) -> str:
        """The finding, for people."""
        who = ", ".join(shown(one) for one in self.runs)
        by = f"{self.gap:.1%} ({self.low:.1%} to {self.high:.1%})"
        if len(self.runs) == 1:
            return f"One run, {who}, is worse by {by} than the law of the others, and is kept out of it"
        return (
            f"There are two kinds of runs: {len(self.runs)} of {self.of} are worse by {by} ({who}). "
            "The law and its intervals are those of the better kind"
        )

    def table(self) -> dict[str, Any]:
        """Return it as plain values."""
        worse = [{"parameters": one.parameters, "tokens": one.tokens, "unique": one.unique, "seed": one.seed} for one in self.runs]
        return {"worse": worse, "gap": self.gap, "low": self.low, "high": self.high, "chance": self.chance}


def kinds_of(points: Sequence[Point], ways: Sequence[tuple[Marks, float]], gaps: Floats) -> TwoKinds | None:
    """Return the two kinds that likely marks show; None where one kind is likelier. `gaps`: drawn with the laws, 0 = one kind."""
    chance = sum(share for marks, share in ways if any(marks))
    worse = tuple(one for number, one in enumerate(points) if sum(share for marks, share in ways if marks[number]) >= 0.5)
    if chance < 0.5 or not worse:
        return None
    higher = gaps[gaps > 0] / (1 - np.minimum(gaps[gaps > 0], 0.9))
    low, gap, high = np.quantile(higher, [0.05, 0.5, 0.95])
    return TwoKinds(worse, len(points), float(gap), float(low), float(high), float(chance))


@dataclass(frozen=True, slots=True, eq=False)
class _Projected:
    """Residuals of rows from the law of each grid point."""

    left: Floats  # [grid, n, n]: projectors, with the belief about E as one more run that is dropped
    target: Floats  # [grid, n]: projected ones
    square: Floats  # [grid]: square of what is left of all
    prior: Floats  # [grid]: log belief
    free: int


def likely_marks(points: Sequence[Point], form: Form) -> list[tuple[Marks, float]]:
    """Return the likely ways to mark runs as worse, with their probability; one kind is `(False, …)`. They sum to 1."""
    count = len(points)
    if count > MOST_RUNS:
        return [((False,) * count, 1.0)]
    problem = problem_of(points, form)
    projected = _project(problem)
    starts = _starts(problem)
    known = dict(zip(starts, evidence(projected, np.array(starts, np.float64)).tolist(), strict=True))
    beam, tried = max(2, min(_BEAM, 300 // count)), set[Marks]()
    while waiting := [marks for marks in sorted(known, key=lambda marks: -known[marks])[:beam] if marks not in tried]:
        tried |= set(waiting)
        for marks in waiting:
            scores = _flipped(projected, np.array(marks, np.float64)).tolist()
            ways = [tuple(mark ^ (i == number) for i, mark in enumerate(marks)) for number in range(count)]
            known |= {way: score for way, score in zip(ways, scores, strict=True) if sum(way) <= count - FEWEST_BETTER}
    total = np.logaddexp.reduce(list(known.values()))
    likely = sorted(((marks, float(np.exp(score - total))) for marks, score in known.items()), key=lambda one: -one[1])[:MOST_MARKS]
    likely = [one for one in likely if one[1] >= _LEAST] or likely[:1]
    whole = sum(share for _, share in likely)
    return [(marks, share / whole) for marks, share in likely]


def _starts(problem: LawProblem) -> list[Marks]:
    """Return marks to begin with: none, and the runs farthest above a law that bears outliers."""
    residuals = fit_problem(problem).residuals
    order = np.argsort(-residuals)
    count = len(residuals)
    return [tuple(bool(mark) for mark in np.isin(np.arange(count), order[:many])) for many in range(count - FEWEST_BETTER + 1)]


def _project(problem: LawProblem) -> _Projected:
    low, high, middle, spread = problem.form.believed
    many = len(problem.loss) > _MANY_RUNS
    steps = _grid([np.array(_FEW_STEPS if many or number > 1 else _STEPS) for number in range(len(low))])
    exponents = np.clip(middle + steps * spread, low, high)
    design = problem.design(exponents)
    belief = np.zeros((len(design), 1, design.shape[-1]))
    belief[:, 0, 0] = USUAL_NOISE / FLOOR_SPREAD
    basis, root = np.linalg.qr(np.concatenate([design, belief], axis=1))
    ones = np.append(np.ones(len(problem.loss)), FLOOR * USUAL_NOISE / FLOOR_SPREAD)
    left = np.eye(len(ones)) - basis @ np.swapaxes(basis, 1, 2)
    target = left @ ones
    prior = -0.5 * (steps**2).sum(axis=-1) - np.log(np.abs(np.einsum("gii->gi", root)) + 1e-300).sum(axis=-1)
    free = len(problem.loss) - design.shape[-1] + 1
    return _Projected(left[:, :-1, :-1], target[:, :-1], target @ ones, prior, free)


def evidence(projected: _Projected, marks: Floats) -> Floats:
    """Return the log probability of each of many ways to mark runs [ways, n], up to one constant."""
    sizes = np.stack([((marks @ left) * marks).sum(axis=1) for left in projected.left], axis=1)
    return _integrated(projected, sizes, marks @ projected.target.T, marks.sum(axis=1))


def _flipped(projected: _Projected, marks: Floats) -> Floats:
    """Return `evidence` of the marks [n] with each one flipped, by what the flip adds."""
    sign = 1 - 2 * marks
    row = projected.left @ marks
    sizes = (row @ marks)[:, None] + 2 * sign * row + np.einsum("gii->gi", projected.left)
    pulls = (projected.target @ marks)[:, None] + sign * projected.target
    return _integrated(projected, sizes.T, pulls.T, marks.sum() + sign)


def _integrated(projected: _Projected, sizes: Floats, pulls: Floats, worse: Floats) -> Floats:
    """Return the log probability of marks m from m·left·m and m·target at each grid point [ways, grid], and how many they are."""
    noise_prior = believed_noise(np.log(_NOISES)) - projected.free * np.log(_NOISES)
    precision, firm = _NOISES**-2, GAP_SPREAD**-2
    size, pull, square = (part[..., None] * precision for part in (sizes, pulls, projected.square))
    left = square + GAP**2 * firm - (pull + GAP * firm) ** 2 / (size + firm)
    whole = noise_prior + projected.prior[:, None] - 0.5 * left - 0.5 * np.log1p(size / firm)
    result: Floats = np.logaddexp.reduce(whole.reshape(len(whole), -1), axis=1)
    result += np.array([_belief(int(some), projected.left.shape[1]) for some in worse])
    return result


def _belief(worse: int, count: int) -> float:
    """Return the log belief in so many worse runs: one kind, or any share of two with equal chance."""
    if not worse:
        return log(1 - TWO_KINDS)
    return log(TWO_KINDS) + lgamma(worse + 1) + lgamma(count - worse + 1) - lgamma(count + 2)
