"""Laws with honest intervals: draws from several forms, each weighed by how well it foretold the largest runs.

An interval is one of a *new run*: it holds what is not known of the law, of the form, and the spread between two runs of the same settings.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.scaling.draws import Draws, draw_laws
from ingle.scaling.fit import FEWEST_RUNS, check_design, problem_of
from ingle.scaling.form import Form, find_form
from ingle.scaling.law import Law
from ingle.scaling.points import Floats, Place, Point, places_array, repeats, short, shown

LEVEL = 0.9
DRAWS = 2000
MOST_EXTRAPOLATION = 10.0
"""Times the largest fitted compute: farther, no interval of such laws was ever tested."""
VERSION = 1
"""Goes up with the method, so that a digest names it."""
_NEW_RUNS = 8
"""New runs that are drawn of each law."""
DEFAULT_FORMS = ("chinchilla", "farseer_lite")
REPEATED_FORMS = ("repeated", "farseer_lite")


@dataclass(frozen=True, slots=True)
class Prediction:
    """Foretold loss of a new run, with its interval."""

    loss: float
    low: float
    high: float
    level: float = LEVEL

    def table(self) -> dict[str, float]:
        """Return it as plain values."""
        return {"loss": self.loss, "low": self.low, "high": self.high, "level": self.level}


@dataclass(frozen=True, slots=True, eq=False)
class FormDraws:
    """Draws of one form, as many as its weight gives it."""

    form: Form
    weight: float
    nearest: Law
    exponents: Floats
    coefficients: Floats
    noise: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Laws behind some runs, and how sure they are."""

    points: tuple[Point, ...]
    drawn: tuple[FormDraws, ...]
    notes: tuple[str, ...]
    """Sentences that belong beside every figure of this fit."""
    digest: str
    """Of the runs and the method: equal digests mean equal predictions."""

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
        """Compute of the largest run."""
        return max(one.compute for one in self.points)

    def samples(self, places: Iterable[Place | Point]) -> Floats:
        """Return the loss by each drawn law at each place, float64 [draws, n]. A row is one law, so differences have intervals too."""
        array = places_array(places)
        parts = [np.einsum("dnp,dp->dn", one.form.columns(array, one.exponents), one.coefficients) for one in self.drawn if len(one.noise)]
        return np.concatenate(parts)

    def predict(self, places: Sequence[Place | Point], level: float = LEVEL) -> list[Prediction]:
        """Foretell the loss of a new run at each place. Raises ConfigError beyond what these runs can say."""
        for place in places:
            self.check_place(place)
        laws = self.samples(places)
        kicks = np.random.default_rng(1).standard_normal((_NEW_RUNS, len(laws), 1)) * self._noise[:, None]
        runs = (laws * np.exp(kicks)).reshape(-1, laws.shape[1])
        low, middle, high = np.quantile(runs, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
        return [Prediction(float(b), float(a), float(c), level) for a, b, c in zip(low, middle, high, strict=True)]

    def check_place(self, place: Place | Point) -> None:
        """Refuse a place that these runs say nothing of. Raises ConfigError with the reason."""
        for name in ("parameters", "tokens"):
            value = getattr(place, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(name, "must be above 0", value)
        times = place.compute / self.largest
        if times > MOST_EXTRAPOLATION * (1 + 1e-9):
            rule = f"must be at most {MOST_EXTRAPOLATION:g} times as much compute as the largest run; {shown(place)} is {times:.3g} times"
            cure = f"Add a run of about {short(place.compute / MOST_EXTRAPOLATION)} FLOP: farther out, such intervals were never tested."
            raise ConfigError("prediction", rule, "", cure)
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
    shapes = [find_form(name) for name in forms or forms_for(points)]
    found = [draw_laws(problem_of(points, shape), draws, seed) for shape in shapes]
    weights = _weights(points, shapes, found, seed)
    rng = np.random.default_rng(seed)
    drawn = []
    for shape, one, weight in zip(shapes, found, weights, strict=True):
        some = rng.permutation(draws)[: round(weight * draws)]
        law = Law(shape, tuple(map(float, one.nearest.exponents)), _coefficients(points, shape, one))
        drawn.append(FormDraws(shape, float(weight), law, one.exponents[some], one.coefficients[some], one.noise[some]))
    described = {"version": VERSION, "points": _run_table(points), "forms": [shape.name for shape in shapes], "draws": draws, "seed": seed}
    return Fit(tuple(points), tuple(drawn), (), digest_json(described))


def _run_table(points: Sequence[Point]) -> list[list[Any]]:
    """Return what of the runs a fit depends on."""
    return [[one.parameters, one.tokens, one.unique, one.seed, one.loss] for one in points]


def _coefficients(points: Sequence[Point], shape: Form, one: Draws) -> tuple[float, ...]:
    natural = problem_of(points, shape).natural(one.nearest.exponents, one.nearest.coefficients)
    return tuple(map(float, natural))


def _weights(points: Sequence[Point], shapes: Sequence[Form], found: Sequence[Draws], seed: int) -> Floats:
    """Return the weight of each form: how likely it made the largest runs, having seen the rest."""
    rest = points[: max(FEWEST_RUNS, len(points) * 3 // 4)]
    if len(shapes) == 1 or len(rest) == len(points):
        return np.full(len(shapes), 1 / len(shapes))
    before = [draw_laws(problem_of(rest, shape), 100, seed).evidence for shape in shapes]
    foretold = np.array([one.evidence - less for one, less in zip(found, before, strict=True)])
    weights: Floats = np.exp(foretold - foretold.max())
    weights /= weights.sum()
    return weights
