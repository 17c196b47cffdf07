"""Laws with honest intervals, from draws of several forms."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.scaling.law import (
    FEWEST_RUNS,
    FORMS,
    NOISE_SPREAD,
    SEPARATE,
    USUAL_NOISE,
    Form,
    Law,
    LawProblem,
    Marks,
    Nearest,
    TwoKinds,
    believed_noise,
    check_design,
    fit_problem,
    kinds_of,
    likely_marks,
    nearest_law,
    normal_equations,
    problem_of,
    solve,
)
from ingle.scaling.points import FLOPS_A_TOKEN, Floats, Place, Point, places_array, repeats, short, shown

# Laws that may stand behind some runs, drawn as often as the runs make them likely.
#
# Given exponents and noise, coefficients are normal (a linear model); so only exponents and noise are sampled, and coefficients follow in
# closed form. Samples come from a few rounds of importance sampling: the first from what is believed beforehand and from a wide cloud
# around the nearest law, each later one from the cloud that the weights so far show. All rounds are weighed together, so none is lost.
# Draws with a coefficient below 0 are thrown away, which is what "coefficients are ≥ 0" means to a posterior.


_ROUNDS, _SAMPLES = 5, 600
_COEFFICIENTS = 12_000
_FREE = 5.0  # degrees of freedom of the clouds: heavier tails than what they cover
_STEP = 1e-4
_QUIETEST = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Equally likely laws of one form."""

    exponents: Floats  # [draws, axes]
    coefficients: Floats  # [draws, terms], in the unit of the loss
    noise: Floats  # [draws]: relative spread of one run
    gap: Floats  # [draws]: part of their loss by which runs of the worse kind are worse; 0 where there is one kind
    evidence: float  # logarithm of how likely the form makes the runs; comparable between forms of the same runs
    nearest: Nearest
    positive: float  # part of the draws that had no coefficient below 0 and were not thrown away


@dataclass(frozen=True, slots=True, eq=False)
class _Cloud:
    centre: Floats
    root: Floats  # cholesky factor of the spread

    def sample(self, count: int, rng: np.random.Generator) -> Floats:
        normal = rng.standard_normal((count, len(self.centre))) @ self.root.T
        result: Floats = self.centre + normal / np.sqrt(rng.chisquare(_FREE, (count, 1)) / _FREE)
        return result

    def log_density(self, samples: Floats) -> Floats:
        size = len(self.centre)
        whitened = np.linalg.solve(self.root, (samples - self.centre).T)
        spread = np.log(np.diag(self.root)).sum()
        result: Floats = -0.5 * (_FREE + size) * np.log1p((whitened**2).sum(axis=0) / _FREE) - spread
        return result + _log_norm(size)


def _log_norm(size: int) -> float:
    return math.lgamma(0.5 * (_FREE + size)) - math.lgamma(0.5 * _FREE) - 0.5 * size * math.log(_FREE * math.pi)


def draw_laws(problem: LawProblem, count: int, seed: int = 0) -> Draws:
    """Return so many equally likely laws."""
    rng = np.random.default_rng(seed)
    nearest = fit_problem(problem)
    samples, log_weights = _importance(problem, nearest, rng)
    most = log_weights.max()
    weights = np.exp(log_weights - most)
    picked = samples[_systematic(weights / weights.sum(), _COEFFICIENTS, rng)]
    exponents, noise = picked[:, :-1], np.exp(picked[:, -1])
    mean, root = _conditional(problem, nearest.weights, exponents, noise)[:2]
    normal = rng.standard_normal((_COEFFICIENTS, mean.shape[-1], 1))
    coefficients = mean + np.linalg.solve(np.swapaxes(root, -1, -2), normal)[..., 0]
    good = np.flatnonzero((coefficients >= 0).all(axis=-1))
    positive = good.size / _COEFFICIENTS
    if not good.size:
        good, coefficients = np.arange(_COEFFICIENTS), np.maximum(coefficients, 0)
    chosen = good[np.linspace(0, good.size - 1, count).round().astype(np.int64)] if good.size >= count else rng.choice(good, count)
    evidence = float(most + np.log(weights.mean()) + np.log(max(positive, 0.1 / _COEFFICIENTS)))
    natural = problem.natural(exponents[chosen], coefficients[chosen])
    gap = coefficients[chosen, -1] if problem.worse is not None else np.zeros(count)
    return Draws(exponents[chosen], natural, noise[chosen], gap, evidence, nearest, positive)


def _importance(problem: LawProblem, nearest: Nearest, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return samples of exponents and log noise, and their log weights."""
    _, _, middle, spread = problem.form.believed
    believed = _Cloud(np.append(middle, np.log(USUAL_NOISE)), np.diag(np.append(spread, NOISE_SPREAD)))
    clouds = [believed, _around(problem, nearest)]
    samples = np.concatenate([cloud.sample(_SAMPLES, rng) for cloud in clouds])
    target = log_target(problem, nearest.weights, samples)
    for _ in range(_ROUNDS - 2):
        log_weights = target - _mixture(clouds, samples)
        clouds.append(_fitted(samples, log_weights, clouds[1]))
        new = clouds[-1].sample(_SAMPLES, rng)
        samples, target = np.concatenate([samples, new]), np.concatenate([target, log_target(problem, nearest.weights, new)])
    return samples, target - _mixture(clouds, samples)


def _mixture(clouds: list[_Cloud], samples: Floats) -> Floats:
    result: Floats = np.logaddexp.reduce([cloud.log_density(samples) for cloud in clouds], axis=0) - np.log(len(clouds))
    return result


def _around(problem: LawProblem, nearest: Nearest) -> _Cloud:
    """Return the cloud that the residuals' slopes show around the nearest law."""
    size = len(nearest.exponents)
    noise = max(nearest.noise, _QUIETEST)
    low, high, _, spread = problem.form.believed
    steps = np.eye(size) * np.minimum(_STEP, 0.1 * spread)
    above, below = np.minimum(nearest.exponents + steps, high), np.maximum(nearest.exponents - steps, low)
    ups, downs = (solve(problem, side, nearest.weights, noise)[1] for side in (above, below))
    slopes = (ups - downs) / np.diag(above - below)[:, None]
    precision = np.diag(1 / spread**2) + (slopes * nearest.weights) @ slopes.T / noise**2
    covariance = np.zeros((size + 1, size + 1))
    covariance[:size, :size] = 1.5 * np.linalg.inv(precision)
    covariance[size, size] = 1.0 / max(1, len(problem.loss) - size - problem.terms) + 0.05
    root: Floats = np.linalg.cholesky(covariance).astype(np.float64)
    return _Cloud(np.append(nearest.exponents, np.log(noise)), root)


def _fitted(samples: Floats, log_weights: Floats, fallback: _Cloud) -> _Cloud:
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    if 1 / (weights**2).sum() < 3 * samples.shape[1]:
        return fallback
    centre = weights @ samples
    apart = samples - centre
    covariance = 1.2 * (apart * weights[:, None]).T @ apart
    covariance += np.diag(1e-6 * np.diag(covariance) + 1e-300)
    try:
        return _Cloud(centre, np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        return fallback


def log_target(problem: LawProblem, weights: Floats, samples: Floats) -> Floats:
    """Return the log density of exponents and log noise [samples, axes + 1] given the runs, coefficients integrated out."""
    low, high, middle, spread = problem.form.believed
    exponents = np.clip(samples[:, :-1], low, high)
    inside = (samples[:, :-1] == exponents).all(axis=-1)
    noise = np.exp(np.maximum(samples[:, -1], np.log(_QUIETEST)))
    _, root, squares = _conditional(problem, weights, exponents, noise)
    beliefs = -0.5 * (((exponents - middle) / spread) ** 2).sum(axis=-1) - np.log(spread).sum()
    log_root = np.log(np.einsum("...ii->...i", root)).sum(axis=-1)
    result = -len(weights) * np.log(noise) - 0.5 * squares - log_root + beliefs + believed_noise(samples[:, -1])
    return np.where(inside & (samples[:, -1] > np.log(_QUIETEST)), result, -np.inf)


def _conditional(problem: LawProblem, weights: Floats, exponents: Floats, noise: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mean and Cholesky root of the precision of the coefficients, and the squares of what is left, in units of the noise."""
    design = problem.design(exponents)
    gram, moment = normal_equations(problem, design, weights, noise)
    middle, firmness = problem.beliefs
    gram += 1e-12 * np.eye(problem.terms) * np.einsum("...ii->...i", gram).max(axis=-1)[..., None, None]
    mean: Floats = np.linalg.solve(gram, moment[..., None])[..., 0].astype(np.float64)
    residuals = 1.0 - (design @ mean[..., None])[..., 0]
    squares: Floats = (weights * residuals**2).sum(axis=-1) / noise**2 + ((mean - middle) ** 2 * firmness).sum(axis=-1)
    root: Floats = np.linalg.cholesky(gram / (noise**2)[:, None, None]).astype(np.float64)
    return mean, root, squares


def _systematic(shares: Floats, count: int, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return indices, each as often as its share says, spread in random order."""
    marks = (np.arange(count) + rng.random()) / count
    index = np.minimum(np.searchsorted(np.cumsum(shares), marks), len(shares) - 1).astype(np.int64)
    return rng.permutation(index)


# Laws with honest intervals: draws from several forms, each weighed by how well it foretold the largest runs.
# An interval is one of a *new run*: it holds what is not known of the law, of the form, and the spread between two runs of the same
# settings.


LEVEL = 0.9
DRAWS = 2000
MOST_EXTRAPOLATION = 10.0  # times the largest fitted compute: farther, no interval of such laws was ever tested
VERSION = 2  # goes up with the method, so that a digest names it
FEWEST_POSITIVE = 0.002  # part of the drawn laws that must have no coefficient below 0
MOST_LEFT = 0.9  # part of the losses' variance that a law may leave; above it there is no law
FAR_OFF = 0.4  # huber's weight below which a run is named
_NEW_RUNS = 8  # new runs that are drawn of each law
DEFAULT_FORMS = ("chinchilla", "farseer_lite")
REPEATED_FORMS = ("repeated", "farseer_lite")


def interval_of(drawn: Floats, method: Literal["linear", "nearest"] = "linear") -> Floats:
    """Return the low end, the median and the high end of what holds nine of ten draws [draws, ...] → [3, ...]."""
    found: Floats = np.quantile(drawn, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], axis=0, method=method)
    return found


@dataclass(frozen=True, slots=True)
class Prediction:
    """Foretold loss of a new run, with its interval."""

    loss: float
    low: float
    high: float
    level: float = LEVEL

    def table(self) -> dict[str, float]:
        """Return it as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return `2.068 (2.034 to 2.102)` with four digits."""
        return f"{self.loss:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True, slots=True, eq=False)
class FormDraws:
    """Draws of one form, as many as its weight gives it."""

    form: Form
    weight: float
    nearest: Law
    exponents: Floats
    coefficients: Floats
    noise: Floats
    gap: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Laws behind some runs, and how sure they are."""

    points: tuple[Point, ...]
    drawn: tuple[FormDraws, ...]
    kinds: TwoKinds | None  # where the runs are of two kinds: the laws are those of the better kind
    notes: tuple[str, ...]  # sentences that belong beside every figure of this fit, without their last full stop
    digest: str  # of the runs and the method: equal digests mean equal predictions

    @property
    def laws(self) -> tuple[tuple[Law, float], ...]:
        """The nearest law of each form, with the form's weight; the heaviest first."""
        return tuple((one.nearest, one.weight) for one in sorted(self.drawn, key=lambda one: -one.weight))

    @property
    def noise(self) -> float:
        """Relative spread of one run around the law."""
        return float(np.median(self._noise))

    @property
    def _noise(self) -> Floats:
        return np.concatenate([one.noise for one in self.drawn])

    @property
    def largest(self) -> float:
        """Compute of the largest run, by the same rule as that of places: 6 · parameters · tokens."""
        return max(FLOPS_A_TOKEN * one.parameters * one.tokens for one in self.points)

    def samples(self, places: Iterable[Place | Point]) -> Floats:
        """Return the loss by each drawn law at each place, float64 [draws, n]. A row is one law, so differences have intervals too."""
        array = places_array(places)
        parts = [np.einsum("dnp,dp->dn", one.form.columns(array, one.exponents), one.coefficients) for one in self.drawn if len(one.noise)]
        return np.concatenate(parts)

    def predict(self, places: Sequence[Place | Point]) -> list[Prediction]:
        """Foretell the loss of a new run at each place. Raises ConfigError beyond what these runs can say."""
        for place in places:
            self.check_place(place)
        laws = self.samples(places)
        kicks = np.random.default_rng(1).standard_normal((_NEW_RUNS, len(laws), 1)) * self._noise[:, None]
        runs = (laws * np.exp(kicks)).reshape(-1, laws.shape[1])
        return [Prediction(float(middle), float(low), float(high)) for low, middle, high in interval_of(runs).T]

    def thinned(self, draws: int) -> "Fit":
        """Return the fit with about so many of its draws, each form by its weight: for curves of many places."""
        share = min(1.0, draws / len(self._noise))
        fewer = []
        for one in self.drawn:
            count = round(share * len(one.noise))
            arrays = (one.exponents, one.coefficients, one.noise, one.gap)
            fewer.append(FormDraws(one.form, one.weight, one.nearest, *(array[:count] for array in arrays)))
        return replace(self, drawn=tuple(fewer))

    def check_compute(self, flops: float, what: str) -> None:
        """Refuse compute that these runs say nothing of. Raises ConfigError with the reason; `what` names the run."""
        times = flops / self.largest
        if times > MOST_EXTRAPOLATION * (1 + 1e-9):
            rule = f"must be at most {MOST_EXTRAPOLATION:g} times as much compute as the largest run; {what} is {times:.3g} times"
            cure = f"Add a run of about {short(flops / MOST_EXTRAPOLATION)} FLOP: farther out, such intervals were never tested."
            raise ConfigError("prediction", rule, "", cure)

    def check_place(self, place: Place | Point) -> None:
        """Refuse a place that these runs say nothing of. Raises ConfigError with the reason."""
        for name in ("parameters", "tokens"):
            value = getattr(place, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(name, "must be above 0", value)
        self.check_compute(place.compute, shown(place))
        if repeats(place) and not any(one.form.knows_repeats for one in self.drawn):
            cure = "Add runs that repeat their texts (column unique), or fit the form repeated, which then rests on a published constant."
            raise ConfigError(
                "prediction",
                f"must not repeat texts: no run did, and {shown(place)} reads each {place.tokens / place.unique:.3g} times",
                "",
                cure,
            )

    def table(self) -> dict[str, Any]:
        """Return the fit as plain values, for JSON."""
        laws = [law.table() | {"weight": weight} for law, weight in self.laws]
        return {
            "digest": self.digest,
            "laws": laws,
            "noise": self.noise,
            "runs": len(self.points),
            "largest_flops": self.largest,
            "kinds": self.kinds.table() if self.kinds else None,
            "notes": list(self.notes),
        }


def forms_for(points: Sequence[Point], places: Iterable[Place | Point] = ()) -> tuple[str, ...]:
    """Return the forms that suit runs and places: with repeats where any of them repeats."""
    return REPEATED_FORMS if any(map(repeats, (*points, *places))) else DEFAULT_FORMS


def fit_points(points: Sequence[Point], forms: Sequence[str] = (), draws: int = DRAWS, seed: int = 0) -> Fit:
    """Fit laws to runs. Raises ConfigError for runs that no law can be told from.

    Forms: by default those that suit the runs (`forms_for`).
    """
    check_design(points)
    points = sorted(points, key=lambda one: (one.compute, one.parameters, one.tokens, one.unique, one.seed))
    shapes = [FORMS[name] for name in forms or forms_for(points)]
    first = _marked(points, shapes[0], draws, seed)
    ways = [(marks, share) for _, marks, share in first]
    found = [[one for one, _, _ in first]]
    found += [[draw_laws(problem_of(points, shape, marks), draws, seed) for marks, _ in ways] for shape in shapes[1:]]
    weights = _weights(points, shapes, [some[0] for some in found], ways[0][0], seed)
    rng = np.random.default_rng(seed)
    drawn = [_mixed(points, *one, ways, draws, rng) for one in zip(shapes, weights.tolist(), found, strict=True)]
    described = {"version": VERSION, "points": _run_table(points), "forms": [shape.name for shape in shapes], "draws": draws, "seed": seed}
    kinds = kinds_of(points, ways, np.concatenate([one.gap for one in drawn]))
    notes = _notes(points, shapes, kinds, found[0][0].nearest)
    return Fit(tuple(points), tuple(drawn), kinds, notes, digest_json(described))


def _marked(points: Sequence[Point], shape: Form, draws: int, seed: int) -> list[tuple[Draws, Marks, float]]:
    """Return draws for each likely way to mark runs as worse, likeliest first. Raises ConfigError for no law at all."""
    found = [(draw_laws(problem_of(points, shape, marks), draws, seed), marks, share) for marks, share in likely_marks(points, shape)]
    found = [one for one in found if not any(one[1]) or np.median(one[0].gap) >= SEPARATE * np.median(one[0].noise)]
    if not found:
        found = [(draw_laws(problem_of(points, shape), draws, seed), (False,) * len(points), 1.0)]
    total = sum(share * one.positive for one, _, share in found)
    left = min(float(np.var(one.nearest.residuals)) for one, _, _ in found)
    seen = min(point.loss for point in points) / np.array([point.loss for point in points])
    if total < FEWEST_POSITIVE or left > MOST_LEFT * np.var(seen):
        rule = "must show that loss falls with size and with data; no law comes near these"
        raise ConfigError("runs", rule, "", "Look for runs that ended early, or were trained at a bad rate.")
    return sorted(((one, marks, share * one.positive / total) for one, marks, share in found), key=lambda way: -way[2])


def _mixed(
    points: Sequence[Point],
    shape: Form,
    weight: float,
    found: Sequence[Draws],
    ways: Sequence[tuple[Marks, float]],
    draws: int,
    rng: np.random.Generator,
) -> FormDraws:
    """Return the draws of a form, from each way to mark the runs as many as it is probable."""
    parts = [(one, rng.permutation(draws)[: round(weight * share * draws)]) for one, (_, share) in zip(found, ways, strict=True)]
    arrays = [np.concatenate([getattr(one, name)[some] for one, some in parts]) for name in ("exponents", "coefficients", "noise", "gap")]
    mixed = rng.permutation(len(arrays[0]))
    law = nearest_law(problem_of(points, shape), found[0].nearest)
    return FormDraws(shape, weight, law, *(array[mixed] for array in arrays))


def _notes(points: Sequence[Point], shapes: Sequence[Form], kinds: TwoKinds | None, nearest: Nearest) -> tuple[str, ...]:
    notes = [kinds.sentence] if kinds else []
    off = [(one, rest) for one, weight, rest in zip(points, nearest.weights, nearest.residuals, strict=True) if weight < FAR_OFF]
    notes += [f"The run {shown(one)} lies {abs(rest):.1%} {'above' if rest > 0 else 'below'} the law, and counts less" for one, rest in off]
    if len({(one.parameters, one.tokens, one.unique) for one in points}) == len(points):
        notes.append(
            "No run was repeated with another seed: how far two runs of the same settings differ is judged from what the law leaves"
        )
    if any(shape.knows_repeats for shape in shapes) and not any(map(repeats, points)):
        notes.append("No run repeated its texts: what a second reading gives is a published belief, not seen in these runs")
    return tuple(notes)


def _run_table(points: Sequence[Point]) -> list[list[Any]]:
    """Return what of the runs a fit depends on."""
    return [[one.parameters, one.tokens, one.unique, one.seed, one.loss] for one in points]


def _weights(points: Sequence[Point], shapes: Sequence[Form], found: Sequence[Draws], marks: Marks, seed: int) -> Floats:
    """Return the weight of each form: how likely it made the largest runs, having seen the rest."""
    count = max(FEWEST_RUNS, len(points) * 3 // 4)
    if len(shapes) == 1 or count == len(points):
        return np.full(len(shapes), 1 / len(shapes))
    before = [draw_laws(problem_of(points[:count], shape, marks[:count]), 100, seed).evidence for shape in shapes]
    foretold = np.array([one.evidence - less for one, less in zip(found, before, strict=True)])
    weights: Floats = np.exp(foretold - foretold.max())
    weights /= weights.sum()
    return weights
