"""How to split compute between size and data, and what one can stand in for of the other."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.errors import ConfigError, counted
from ingle.scaling.interval import LEVEL, MOST_EXTRAPOLATION, Fit, Prediction, fit_points, forms_for
from ingle.scaling.plot import Curve, Dot, EqualLoss, Foretold, SizeLine, loss_against_compute
from ingle.scaling.points import FLOPS_A_TOKEN, Floats, Place, Point, read_points, short, shown
from ingle.train.plot import Scale

OUTSIDE = 10.0
"""Sizes are searched from the smallest fitted over this to the largest fitted times this."""
_GRID_SIZES = 160


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure with its interval."""

    value: float
    low: float
    high: float

    def table(self) -> dict[str, float]:
        """Return it as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Allocation:
    """The split of some compute that the laws think best."""

    flops: float
    parameters: Spread
    """Best size on average over the laws; the interval holds what single laws think best."""
    tokens: Spread
    loss: Prediction
    """Of a new run at this split."""
    notes: tuple[str, ...]

    def table(self) -> dict[str, Any]:
        """Return it as plain values."""
        sizes = {"parameters": self.parameters.table(), "tokens": self.tokens.table()}
        return {"flops": self.flops, **sizes, "loss": self.loss.table(), "notes": list(self.notes)}


def sizes_to_search(fit: Fit, count: int = _GRID_SIZES) -> Floats:
    """Return sizes around those that were fitted, evenly in their logarithm."""
    fitted = [one.parameters for one in fit.points]
    return np.geomspace(min(fitted) / OUTSIDE, max(fitted) * OUTSIDE, count)


def at_compute(flops: float, sizes: Floats, unique: float = 0.0) -> list[Place]:
    """Return the places on the line of equal compute."""
    return [Place(float(size), flops / (FLOPS_A_TOKEN * float(size)), unique) for size in sizes]


def split(fit: Fit, flops: float, unique: float = 0.0, level: float = LEVEL) -> Allocation:
    """Return the best size and amount of data for so much compute. Raises ConfigError beyond what these runs can say.

    `unique`: different tokens that there are; 0 = as many as wanted.
    """
    if not flops > 0:
        raise ConfigError("flops", "must be above 0", flops)
    fit.check_compute(flops, f"{short(flops)} FLOP")
    sizes = sizes_to_search(fit)
    losses = fit.samples(at_compute(flops, sizes, unique))
    best = float(sizes[losses.mean(axis=0).argmin()])
    low, high = np.quantile(sizes[losses.argmin(axis=1)], [(1 - level) / 2, (1 + level) / 2])
    place = at_compute(flops, np.array([best]), unique)[0]
    tokens = Spread(place.tokens, flops / (FLOPS_A_TOKEN * float(high)), flops / (FLOPS_A_TOKEN * float(low)))
    notes = _notes(fit, best, float(low), float(high), sizes)
    return Allocation(flops, Spread(best, min(best, float(low)), max(best, float(high))), tokens, fit.predict([place], level)[0], notes)


def _notes(fit: Fit, best: float, low: float, high: float, sizes: Floats) -> tuple[str, ...]:
    fitted = [one.parameters for one in fit.points]
    if low <= sizes[0] * 1.01 or high >= sizes[-1] * 0.99:
        return ("The runs don't say which split is best: some of their laws want a size at the edge of what was searched",)
    if not min(fitted) / 3 <= best <= max(fitted) * 3:
        return (f"The best size, {short(best)}, is far from the sizes that were run ({short(min(fitted))} to {short(max(fitted))})",)
    return ()


def iso_loss(fit: Fit, loss: float, sizes: Sequence[float], level: float = LEVEL) -> list[Spread]:
    """Return the tokens that each size must read to come to a loss; infinite where no amount is enough, or more than was searched."""
    read = [one.tokens for one in fit.points]
    tokens = np.geomspace(min(read) / 30, max(read) * 100, 120)
    found = []
    for size in sizes:
        losses = fit.samples([Place(size, float(count)) for count in tokens])
        needed = _crossing(losses, np.log(tokens), loss)
        low, middle, high = np.quantile(needed, [(1 - level) / 2, 0.5, (1 + level) / 2], method="nearest")
        found.append(Spread(float(middle), float(low), float(high)))
    return found


def _crossing(losses: Floats, logs: Floats, loss: float) -> Floats:
    """Return where each falling row comes to a loss, between two columns by a straight line."""
    above = (losses > loss).sum(axis=1)
    before = np.clip(above - 1, 0, len(logs) - 2)
    rows = np.arange(len(losses))
    left, right = losses[rows, before], losses[rows, before + 1]
    part = np.clip((left - loss) / np.maximum(left - right, 1e-300), 0, 1)
    result = np.exp(logs[before] + part * (logs[before + 1] - logs[before]))
    return np.where(above == len(logs), np.inf, result)


# Diminishing returns: how much loss the next unit of compute takes off, and where that has fallen to a quarter of the first unit's.


STOPS = 0.25
"""Gain of a unit, as a part of the first unit's, below which compute no longer pays."""
_DRAWS, _SIZES, _BUDGETS = 400, 48, 40


@dataclass(frozen=True, slots=True)
class Returns:
    """Gains of more compute, split at its best."""

    start: float
    """FLOP that are spent already."""
    unit: float
    """FLOP of one more unit."""
    gains: tuple[Spread, ...]
    """Loss that each further unit takes off: the first, the second, …"""
    stops: Spread
    """FLOP after which a unit gains less than `STOPS` of the first; infinite = not within what these runs can say."""

    def table(self) -> dict[str, Any]:
        """Return it as plain values; None stands for infinite."""
        stops = {name: value if np.isfinite(value) else None for name, value in self.stops.table().items()}
        return {"start_flops": self.start, "unit_flops": self.unit, "gains": [one.table() for one in self.gains], "stops_flops": stops}


def best_losses(fit: Fit, budgets: Sequence[float], unique: float = 0.0) -> Floats:
    """Return the loss of each drawn law at its own best split, float64 [draws, budgets]."""
    sizes = sizes_to_search(fit, _SIZES)
    few = fit.thinned(_DRAWS)
    return np.stack([_bottoms(few.samples(at_compute(flops, sizes, unique))) for flops in budgets], axis=1)


def _bottoms(losses: Floats) -> Floats:
    """Return the bottom of each row, by the parabola through its lowest number and the two beside."""
    best = np.clip(losses.argmin(axis=1), 1, losses.shape[1] - 2)
    rows = np.arange(len(losses))
    left, middle, right = (losses[rows, best + step] for step in (-1, 0, 1))
    bend = np.maximum(left - 2 * middle + right, 1e-300)
    bottom: Floats = np.minimum(middle - (left - right) ** 2 / (8 * bend), losses.min(axis=1))
    return np.where((losses.argmin(axis=1) == best) & (bend > 1e-12), bottom, losses.min(axis=1))


def returns(fit: Fit, start: float = 0.0, unit: float = 0.0, unique: float = 0.0, level: float = LEVEL) -> Returns:
    """Return what further units of compute buy. Raises ConfigError beyond what these runs can say.

    `start`: FLOP that are spent already, by default those of the largest run; `unit`: by default as many.
    """
    start = start or fit.largest
    unit = unit or start
    if not (start > 0 and unit > 0):
        raise ConfigError("unit", "must be above 0", unit)
    most = MOST_EXTRAPOLATION * fit.largest
    fit.check_compute(start + unit, f"{short(start)} FLOP and a unit of {short(unit)}")
    count = int(min(8, (most * (1 + 1e-9) - start) // unit))
    whole = best_losses(fit, [start + number * unit for number in range(count + 1)], unique)
    ends = [(1 - level) / 2, 0.5, (1 + level) / 2]
    gains = [Spread(float(b), float(a), float(c)) for a, b, c in np.quantile(-np.diff(whole, axis=1), ends, axis=0).T]
    return Returns(start, unit, tuple(gains), _stops(fit, start, unit, most, unique, ends))


def _stops(fit: Fit, start: float, unit: float, most: float, unique: float, ends: Sequence[float]) -> Spread:
    """Return the compute at which the gain of one more unit is `STOPS` of the first's, for each law, as an interval."""
    spent = np.geomspace(start, most - unit, _BUDGETS) if most - unit > start else np.array([start])
    gains = best_losses(fit, list(spent), unique) - best_losses(fit, list(spent + unit), unique)
    enough = gains >= STOPS * gains[:, :1]
    last = np.where(enough.all(axis=1), len(spent), np.argmin(enough, axis=1))
    reached = np.append(spent, np.inf)[last]
    low, middle, high = np.quantile(reached, ends, method="nearest")
    return Spread(float(middle), float(low), float(high))


# Diminishing returns: where another unit gives less than a quarter of what the first one gave.


SHARE = 0.25


def stops_paying(spent: Sequence[float], losses: Sequence[float], share: float = SHARE) -> float | None:
    """Return the amount from which on another unit takes less than `share` of what the first one took off the loss.

    `spent` rises. None: the last unit still paid, or the first one did not.
    """
    amounts, values = np.array(spent, np.float64), np.array(losses, np.float64)
    if len(amounts) < 3:
        return None
    slopes = -np.diff(values) / np.diff(amounts)
    middles = np.sqrt(amounts[1:] * amounts[:-1])
    if slopes[0] <= 0:
        return None
    below = np.flatnonzero(slopes < share * slopes[0])
    if not below.size:
        return None
    at = int(below[0])
    if slopes[at] <= 0:
        return float(middles[at])
    x, y = np.log(middles[at - 1 : at + 1]), np.log(slopes[at - 1 : at + 1])
    wanted = np.log(share * slopes[0])
    return float(np.exp(x[0] + (x[1] - x[0]) * (y[0] - wanted) / (y[0] - y[1])))


# Lines of a law for plots: the loss of each size, the best split of each amount of compute, equal loss, and what more compute gains.
# All come from the drawn laws of a fit: a line is their median, and its interval holds nine of ten of them.


_AMOUNTS, _SPLITS, _PLACES = 33, 61, 49
"""Points of a line over compute, splits that are tried at each, and points of the other lines."""
_TOKENS_A_PARAMETER = (0.03, 3000.0)
"""Splits that are tried: tokens for each parameter."""
_BEYOND = 3.0
"""Times the largest run's compute that lines go on to, where nothing is foretold."""
QUARTER = 0.25
"""Part of the first gain below which more compute is said to pay little."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Lines of a law. Compute is in FLOPs, loss in the unit of the runs."""

    sizes: tuple[SizeLine, ...]
    frontier: Curve
    """Least loss over compute."""
    best_sizes: Curve
    """Parameters of the best split over compute; the rest of the compute goes into tokens."""
    levels: tuple[EqualLoss, ...]
    gain: Curve
    """Loss that the next FLOP saves, over compute."""
    quarter: float | None
    """Compute at which that is a quarter of what it is at first; None = beyond the line."""
    expected: tuple[float, ...]
    """Loss of each of the fit's runs by the law, in the order of its points."""

    @property
    def path(self) -> Curve:
        """The best split: parameters along, tokens up."""
        tokens = tuple(c / (FLOPS_A_TOKEN * n) for c, n in zip(self.best_sizes.x, self.best_sizes.y, strict=True))
        return Curve(self.best_sizes.y, tokens)


def curves_of(fit: Fit, foretold: Place | None = None, text: float = 0.0) -> Curves:
    """Return the lines of a fit. `text`: how many different tokens there are; what is read beyond them repeats. 0 = as many as wanted."""
    amounts = _amounts(fit, foretold)
    least, sizes = (np.stack(part, axis=1) for part in zip(*(_best(fit, flops, text) for flops in amounts), strict=True))
    gains = -np.gradient(least, np.log(amounts), axis=1) / amounts
    gain = _curve(amounts, gains)
    return Curves(
        tuple(_size_line(fit, size, text) for size in sorted({one.parameters for one in fit.points})),
        _curve(amounts, least),
        _curve(amounts, sizes),
        tuple(_levels(fit, foretold, text)),
        gain,
        _first_below(amounts, np.array(gain.y), QUARTER * gain.y[0]),
        tuple(map(float, np.median(fit.samples(fit.points), axis=0))),
    )


def fit_svg(fit: Fit, foretold: Foretold | None = None, loss_name: str = "loss") -> str:
    """Draw the runs and the law of a fit, anyone's."""
    place = Place(foretold.parameters, foretold.tokens) if foretold else None
    curves = curves_of(fit, place)
    worse = fit.kinds.runs if fit.kinds else ()
    dots = [
        Dot(one.parameters, one.tokens, one.loss, one.compute, law, one in worse)
        for one, law in zip(fit.points, curves.expected, strict=True)
    ]
    return loss_against_compute(dots, curves.sizes, curves.frontier, foretold, loss_name=loss_name)


def _amounts(fit: Fit, foretold: Place | None) -> Floats:
    """Amounts of compute: from the smallest run's on, as far as laws are believed."""
    smallest = min(one.compute for one in fit.points)
    wanted = max(fit.largest * (1 if foretold else _BEYOND), 1.2 * foretold.compute if foretold else 0.0)
    return np.geomspace(smallest, min(wanted, MOST_EXTRAPOLATION * fit.largest), _AMOUNTS)


def _places(parameters: Floats, tokens: Floats, text: float) -> list[Place]:
    return [Place(n, d, min(d, text) if text else 0.0) for n, d in zip(parameters.tolist(), tokens.tolist(), strict=True)]


def _best(fit: Fit, flops: float, text: float) -> tuple[Floats, Floats]:
    """Return least loss and its parameters by each drawn law, [draws] each: the lowest of a few splits, and a parabola through it."""
    ratio = np.geomspace(*_TOKENS_A_PARAMETER[::-1], _SPLITS)
    parameters = np.sqrt(flops / (FLOPS_A_TOKEN * ratio))  # [splits], rising in equal factors
    losses = fit.samples(_places(parameters, ratio * parameters, text))
    low = np.clip(losses.argmin(axis=1), 1, _SPLITS - 2)
    rows = np.arange(len(losses))
    before, here, after = (losses[rows, low + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.clip(np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=bend > 0), -1, 1)
    step = np.log(parameters[1] / parameters[0])
    return here - (before - after) * shift / 4, parameters[low] * np.exp(step * shift)


def _size_line(fit: Fit, size: float, text: float) -> SizeLine:
    read = [one.tokens for one in fit.points if one.parameters == size]
    tokens = np.geomspace(min(read) / 1.3, max(read) * 1.6, _PLACES)
    losses = np.median(fit.samples(_places(np.full(_PLACES, size), tokens, text)), axis=0)
    return SizeLine(size, Curve(_plain(FLOPS_A_TOKEN * size * tokens), _plain(losses)))


def _levels(fit: Fit, foretold: Place | None, text: float) -> list[EqualLoss]:
    """Lines of equal loss at round values between the worst run and the best."""
    places: Sequence[Place] = [*(Place(one.parameters, one.tokens) for one in fit.points), *([foretold] if foretold else [])]
    parameters, tokens = (
        np.geomspace(min(values) / 1.6, max(values) * 1.6, _PLACES)
        for values in ([one.parameters for one in places], [one.tokens for one in places])
    )
    rows = [np.median(fit.samples(_places(np.full(_PLACES, size), tokens, text)), axis=0) for size in parameters]
    losses = [one.loss for one in fit.points]
    lowest = min(*losses, *(row.min() for row in rows)) if foretold else min(losses)
    found = []
    for loss in Scale(lowest, max(losses) + 1e-9).ticks(10):
        crossings = [(size, _crossings(row, tokens, loss)) for size, row in zip(parameters.tolist(), rows, strict=True)]
        inside = [(size, at) for size, at in crossings if at is not None]
        if len(inside) > 1:
            found.append(EqualLoss(float(f"{loss:.6g}"), Curve(tuple(x for x, _ in inside), tuple(y for _, y in inside))))
    return found


def _crossings(losses: Floats, tokens: Floats, loss: float) -> float | None:
    """Return the tokens at which a size reaches this loss, or None."""
    falling = np.minimum.accumulate(losses)
    if not falling[-1] <= loss <= falling[0]:
        return None
    return float(np.exp(np.interp(loss, falling[::-1], np.log(tokens)[::-1])))


def _first_below(amounts: Floats, values: Floats, limit: float) -> float | None:
    """Return where a falling line goes below a limit, between its points in equal factors; None = it doesn't."""
    below = np.flatnonzero(values <= limit)
    if not len(below) or not below[0] or values[below[0]] <= 0:
        return None
    i = below[0]
    high, low = np.log(values[i - 1 : i + 1])
    share = (high - np.log(limit)) / (high - low)
    return float(np.exp(np.log(amounts[i - 1]) * (1 - share) + np.log(amounts[i]) * share))


def _curve(amounts: Floats, drawn: Floats) -> Curve:
    """Return the median of drawn lines [draws, amounts], and what holds nine of ten."""
    low, middle, high = np.quantile(drawn, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], axis=0)
    return Curve(_plain(amounts), _plain(middle), _plain(low), _plain(high))


def _plain(values: Floats) -> tuple[float, ...]:
    """Return values for a file: seven digits are more than any plot shows."""
    return tuple(float(f"{value:.7g}") for value in values)


# A law from anyone's table of runs: what `ingle scale fit runs.csv` says.


def parse_place(text: str) -> Place:
    """Return the place that `parameters,tokens[,unique]` names. Raises ConfigError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or not all(0 < number < float("inf") for number in numbers):
        raise ConfigError("predict", "must be parameters,tokens or parameters,tokens,unique", text, "For example 6400000,5200000.")
    return Place(*numbers)


def of_kind(points: Sequence[Point], kind: str) -> list[Point]:
    """Return the runs of a kind; all, if none is named. Raises ConfigError with the kinds there are."""
    found = [one for one in points if not kind or one.kind == kind]
    if not found:
        known = ", ".join(sorted({one.kind or "(none)" for one in points}))
        raise ConfigError("kind", f"must be one of {known}", kind)
    return found


def fit_csv(path: Path, predict: Place | None = None, kind: str = "", flops: float = 0.0) -> dict[str, Any]:
    """Fit laws to the runs in a CSV, and return what they say as plain values. Raises ConfigError.

    `predict`: a run to foretell. `flops`: compute to split; by default that of the run to foretell, else that of the largest run.
    """
    return fit_table(fit_of_csv(path, predict, kind), predict, flops)


def fit_of_csv(path: Path, predict: Place | None = None, kind: str = "") -> Fit:
    """Fit laws to the runs in a CSV, of forms that know repeats where the run to foretell repeats. Raises ConfigError."""
    points = of_kind(read_points(path), kind)
    return fit_points(points, forms_for(points, [predict] if predict else []))


def fit_table(fit: Fit, predict: Place | None = None, flops: float = 0.0) -> dict[str, Any]:
    """Return what laws say as plain values; arguments as for `fit_csv`."""
    foretold = {"at": _place_table(predict)} | fit.predict([predict])[0].table() if predict else None
    best = split(fit, flops or (predict.compute if predict else fit.largest))
    law, weight = fit.laws[0]
    return {
        "prediction": foretold,
        "law": law.table() | {"weight": weight, "noise": fit.noise},
        "laws": fit.table()["laws"],
        "optimal": best.table(),
        "returns": returns(fit).table(),
        "runs": len(fit.points),
        "range": {"largest_flops": fit.largest, "most_flops": MOST_EXTRAPOLATION * fit.largest},
        "notes": [*fit.notes, *best.notes],
        "digest": fit.digest,
    }


def _place_table(place: Place) -> dict[str, float]:
    return {"parameters": place.parameters, "tokens": place.tokens, "unique": place.unique}


def rows(table: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return rows (figure, value, interval or origin) of what `fit_csv` says, for people."""
    law = table["law"]
    numbers = [(name, value) for name, value in law.items() if isinstance(value, float) and name not in ("weight", "noise")]
    found = [("law", law["equation"], f"{law['form']}, {100 * law['weight']:.0f} % of the forms' weight")]
    found += [(name, f"{value:.4g}", "") for name, value in numbers]
    found.append(("spread of a run", f"{100 * law['noise']:.2f} %", counted(table["runs"], "run")))
    if one := table["prediction"]:
        at = shown(Place(one["at"]["parameters"], one["at"]["tokens"]))
        found.append((f"loss of {at}", f"{one['loss']:.4f}", f"{one['low']:.4f} … {one['high']:.4f}, 90 % of new runs"))
    best = table["optimal"]
    for name in ("parameters", "tokens"):
        some = best[name]
        label = f"best {name} for {short(best['flops'])} FLOP"
        found.append((label, short(some["value"]), f"{short(some['low'])} … {short(some['high'])}"))
    found.append(("its loss", f"{best['loss']['loss']:.4f}", f"{best['loss']['low']:.4f} … {best['loss']['high']:.4f}"))
    gain, stops = table["returns"]["gains"][0], table["returns"]["stops_flops"]
    unit = short(table["returns"]["unit_flops"])
    found.append((f"gain of the next {unit} FLOP", f"{gain['value']:.4f}", f"{gain['low']:.4f} … {gain['high']:.4f}"))
    ends = [f"{short(stops[name])} FLOP" if stops[name] else "beyond these runs" for name in ("value", "low", "high")]
    found.append(("a quarter of that gain at", ends[0], f"{ends[1]} … {ends[2]}"))
    return found
