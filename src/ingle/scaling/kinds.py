"""Two kinds of runs: some ended a good part worse than the law of the others, and noise can't be why.

Small models trained alike, but for the seed, can fall into two kinds. An average of both is a law of neither. So every likely way to mark
runs as worse is compared, by how probable it makes the losses: exponents and noise on a grid, coefficients and the gap in closed form.
Marks are found by flipping one run at a time, and the best few at each step go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma, log
from typing import Any

import numpy as np

from ingle.scaling.fit import FLOOR, FLOOR_SPREAD, GAP, GAP_SPREAD, USUAL_NOISE, LawProblem, fit_problem, problem_of
from ingle.scaling.form import Form
from ingle.scaling.points import Floats, Point, shown

TWO_KINDS = 0.1
"""Belief that there are two kinds, before any run is seen."""
FEWEST_BETTER = 2
"""Runs of the better kind that there must be."""
SEPARATE = 3.0
"""Times the noise that the gap between two kinds must be: nearer ones can't be told apart."""
MOST_MARKS = 4
"""Ways to mark the runs that go on into the law."""
_LEAST = 0.02
"""Ways that are less probable are left out."""
_BEAM = 24
_NOISES = np.geomspace(0.0006, 0.24, 18)
_NOISE_SPREAD, _NOISE_TAIL = 0.8, 3.0
_STEPS, _FEW_STEPS = (-1.8, -1.2, -0.6, 0.0, 0.6, 1.2, 1.8), (-1.2, 0.0, 1.2)
"""Values of each exponent on the grid, in spreads of what is believed: of the first two, and of others and where there are many runs."""
_MANY_RUNS = 100
MOST_RUNS = 1000
"""More are not searched for two kinds."""

Marks = tuple[bool, ...]
"""Which runs are of the worse kind."""


@dataclass(frozen=True, slots=True)
class TwoKinds:
    """Which runs are worse, and by how much."""

    runs: tuple[Point, ...]
    """Runs that are probably of the worse kind."""
    of: int
    """Number of all runs."""
    gap: float
    """How much higher the loss of the worse kind is: 0.07 = 7 %."""
    low: float
    high: float
    chance: float
    """Probability that there are two kinds at all."""

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

    left: Floats
    """[grid, n, n]: projectors, with the belief about E as one more run that is dropped."""
    target: Floats
    """[grid, n]: projected ones."""
    square: Floats
    """[grid]: square of what is left of all."""
    prior: Floats
    """[grid]: log belief."""
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
    axes = problem.form.axes
    values = [np.array(_STEPS if number < 2 and len(problem.loss) <= _MANY_RUNS else _FEW_STEPS) for number in range(len(axes))]
    steps = np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, len(axes))
    low, high, middle, spread = (np.array([getattr(axis, name) for axis in axes]) for name in ("low", "high", "middle", "spread"))
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
    usual = (np.log(_NOISES) - log(USUAL_NOISE)) / _NOISE_SPREAD
    noise_prior = -0.5 * (_NOISE_TAIL + 1) * np.log1p(usual**2 / _NOISE_TAIL) - projected.free * np.log(_NOISES)
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
