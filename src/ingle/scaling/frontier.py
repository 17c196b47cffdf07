"""How to split compute between size and data, and what one can stand in for of the other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.errors import ConfigError, counted
from ingle.scaling.interval import MOST_EXTRAPOLATION, Fit, Prediction, fit_points, forms_for, interval_of
from ingle.scaling.plot import Curve, Dot, EqualLoss, Foretold, SizeLine, loss_against_compute
from ingle.scaling.points import FLOPS_A_TOKEN, Floats, Place, Point, read_points, short, shown
from ingle.train.loss_curve import Scale

TOKENS_A_PARAMETER = (0.03, 3000.0)  # splits that are searched: tokens for each parameter
_SPLITS = 91  # splits that are tried, in equal factors; between them a parabola is believed
QUARTER = 0.25  # part of the first gain below which more compute is said to pay little


# Three answers, of each drawn law: the best split of some compute, the tokens that reach a loss, and where gains fall to a quarter.


def sizes_to_search(flops: float) -> Floats:
    """Return the parameters of the splits that are tried, from few to many."""
    return np.sqrt(flops / (FLOPS_A_TOKEN * np.geomspace(*TOKENS_A_PARAMETER[::-1], _SPLITS)))


def at_compute(flops: float, sizes: Floats, unique: float = 0.0) -> list[Place]:
    """Return the places on the line of equal compute."""
    return [Place(float(size), flops / (FLOPS_A_TOKEN * float(size)), unique) for size in sizes]


def bottoms(losses: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Return the bottom of each row of losses [n, sizes] and the size that has it, [n] each."""
    lowest = np.clip(losses.argmin(axis=1), 1, len(sizes) - 2)
    before, here, after = (losses[np.arange(len(losses)), lowest + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.clip(np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=bend > 1e-12), -1, 1)
    return here - (before - after) * shift / 4, sizes[lowest] * (sizes[1] / sizes[0]) ** shift


def best_splits(fit: Fit, budgets: Iterable[float], unique: float = 0.0) -> tuple[Floats, Floats]:
    """Return the least loss of each drawn law at each amount of compute and the size that has it, float64 [draws, budgets] each.

    `unique`: different tokens that there are; what is read beyond them repeats. 0 = as many as wanted.
    """
    sizes = [(flops, sizes_to_search(flops)) for flops in budgets]
    found = [bottoms(fit.samples(at_compute(flops, some, unique)), some) for flops, some in sizes]
    least, best = (np.stack(part, axis=1) for part in zip(*found, strict=True))
    return least, best


def tokens_to_reach(loss: float, losses: Floats, tokens: Floats) -> Floats:
    """Return the tokens at which falling losses [..., tokens] come to this one, [...]; infinite where they don't."""
    above = (losses > loss).sum(axis=-1)
    later = np.clip(above, 1, len(tokens) - 1)
    high, low = (np.take_along_axis(losses, at[..., None], axis=-1)[..., 0] for at in (later - 1, later))
    share = np.clip((high - loss) / np.maximum(high - low, 1e-300), 0, 1)
    return np.where(above == len(tokens), np.inf, tokens[later - 1] * (tokens[later] / tokens[later - 1]) ** share)


def to_a_quarter(amounts: Floats, gains: Floats) -> Floats:
    """Return the amount at which gains [..., amounts] fall below a quarter of the first, [...]; infinite where they don't, or none was."""
    limit = QUARTER * gains[..., 0]
    below = gains < limit[..., None]
    later = np.clip(below.argmax(axis=-1), 1, len(amounts) - 1)
    high, low = (np.take_along_axis(gains, at[..., None], axis=-1)[..., 0] for at in (later - 1, later))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(low > 0, np.log(high / limit) / np.log(high / low), 1.0)
    return np.where(below.any(axis=-1) & (limit > 0), amounts[later - 1] * (amounts[later] / amounts[later - 1]) ** share, np.inf)


def stops_paying(spent: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return the amount from which on another unit takes less than a quarter of what the first one took off the loss.

    `spent` rises. None: the last unit still paid, or the first one did not.
    """
    if len(spent) < 2:
        return None
    amounts, values = np.array(spent, np.float64), np.array(losses, np.float64)
    at = float(to_a_quarter(np.sqrt(amounts[1:] * amounts[:-1]), -np.diff(values) / np.diff(amounts)))
    return at if np.isfinite(at) else None


# The split of some compute, and what more of it gains.


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
    parameters: Spread  # best size on average over the laws; the interval holds what single laws think best
    tokens: Spread
    loss: Prediction  # of a new run at this split
    notes: tuple[str, ...]

    def table(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self) | {"notes": list(self.notes)}


def split(fit: Fit, flops: float, unique: float = 0.0) -> Allocation:
    """Return the best size and amount of data for so much compute. Raises ConfigError beyond what these runs can say.

    `unique`: different tokens that there are; 0 = as many as wanted.
    """
    if not flops > 0:
        raise ConfigError("flops", "must be above 0", flops)
    fit.check_compute(flops, f"{short(flops)} FLOP")
    sizes = sizes_to_search(flops)
    losses = fit.samples(at_compute(flops, sizes, unique))
    best = float(bottoms(losses.mean(axis=0)[None], sizes)[1][0])
    low, _, high = map(float, interval_of(bottoms(losses, sizes)[1]))
    low, high = min(best, low), max(best, high)
    [place] = at_compute(flops, np.array([best]), unique)
    tokens = Spread(place.tokens, flops / (FLOPS_A_TOKEN * high), flops / (FLOPS_A_TOKEN * low))
    edge = low <= sizes[0] * 1.01 or high >= sizes[-1] * 0.99
    return Allocation(flops, Spread(best, low, high), tokens, fit.predict([place])[0], _split_notes(fit, best, edge))


def _split_notes(fit: Fit, best: float, edge: bool) -> tuple[str, ...]:
    fitted = [one.parameters for one in fit.points]
    if edge:
        return ("The runs don't say which split is best: some of their laws want a size at the edge of what was searched",)
    if not min(fitted) / 3 <= best <= max(fitted) * 3:
        return (f"The best size, {short(best)}, is far from the sizes that were run ({short(min(fitted))} to {short(max(fitted))})",)
    return ()


_DRAWS, _BUDGETS = 400, 40


@dataclass(frozen=True, slots=True)
class Returns:
    """Gains of more compute, split at its best."""

    start: float  # FLOP that are spent already
    unit: float  # FLOP of one more unit
    gains: tuple[Spread, ...]  # loss that each further unit takes off: the first, the second, …
    stops: Spread  # FLOP after which a unit gains less than a quarter of the first; infinite = not within what these runs can say

    def table(self) -> dict[str, Any]:
        """Return it as plain values; None stands for infinite."""
        stops = {name: value if np.isfinite(value) else None for name, value in self.stops.table().items()}
        return {"start_flops": self.start, "unit_flops": self.unit, "gains": [one.table() for one in self.gains], "stops_flops": stops}


def returns(fit: Fit, unit: float = 0.0) -> Returns:
    """Return what further units of compute buy after the largest run's. Raises ConfigError beyond what these runs can say.

    `unit`: FLOP; 0 = as many as the largest run's.
    """
    start, most = fit.largest, MOST_EXTRAPOLATION * fit.largest
    unit = unit or start
    fit.check_compute(start + unit, f"{short(start)} FLOP and a unit of {short(unit)}")
    few = fit.thinned(_DRAWS)
    count = int(min(8, (most * (1 + 1e-9) - start) // unit))
    whole, _ = best_splits(few, [start + number * unit for number in range(count + 1)])
    spent = np.geomspace(start, most - unit, _BUDGETS) if most - unit > start else np.array([start])
    gains = best_splits(few, spent)[0] - best_splits(few, spent + unit)[0]
    return Returns(start, unit, tuple(map(_spread, -np.diff(whole, axis=1).T)), _spread(to_a_quarter(spent, gains)))


def _spread(drawn: Floats) -> Spread:
    """Return the median of draws and what holds nine of ten; some may be infinite."""
    low, middle, high = interval_of(drawn, "linear" if np.isfinite(drawn).all() else "nearest")
    return Spread(float(middle), float(low), float(high))


# Lines of a law for plots: the loss of each size, the best split of each amount of compute, equal loss, and what more compute gains.
# All come from the drawn laws of a fit: a line is their median, and its interval holds nine of ten of them.


_AMOUNTS, _PLACES = 33, 49  # points of a line over compute, and of the other lines
_BEYOND = 3.0  # times the largest run's compute that lines go on to, where nothing is foretold


@dataclass(frozen=True, slots=True)
class Curves:
    """Lines of a law. Compute is in FLOPs, loss in the unit of the runs."""

    sizes: tuple[SizeLine, ...]
    frontier: Curve  # least loss over compute
    best_sizes: Curve  # parameters of the best split over compute; the rest of the compute goes into tokens
    levels: tuple[EqualLoss, ...]
    gain: Curve  # loss that the next FLOP saves, over compute
    quarter: float | None  # compute at which that is a quarter of what it is at first; None = beyond the line
    expected: tuple[float, ...]  # loss of each of the fit's runs by the law, in the order of its points

    @property
    def path(self) -> Curve:
        """The best split: parameters along, tokens up."""
        tokens = tuple(c / (FLOPS_A_TOKEN * n) for c, n in zip(self.best_sizes.x, self.best_sizes.y, strict=True))
        return Curve(self.best_sizes.y, tokens)


def curves_of(fit: Fit, foretold: Place | None = None, text: float = 0.0) -> Curves:
    """Return the lines of a fit. `text`: how many different tokens there are; what is read beyond them repeats. 0 = as many as wanted."""
    amounts = _amounts(fit, foretold)
    least, sizes = best_splits(fit, amounts, text)
    gain = _curve(amounts, -np.gradient(least, np.log(amounts), axis=1) / amounts)
    quarter = float(to_a_quarter(amounts, np.array(gain.y)))
    return Curves(
        tuple(_size_line(fit, size, text) for size in sorted({one.parameters for one in fit.points})),
        _curve(amounts, least),
        _curve(amounts, sizes),
        tuple(_levels(fit, foretold, text)),
        gain,
        quarter if np.isfinite(quarter) else None,
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


def _size_line(fit: Fit, size: float, text: float) -> SizeLine:
    read = [one.tokens for one in fit.points if one.parameters == size]
    tokens = np.geomspace(min(read) / 1.3, max(read) * 1.6, _PLACES)
    return SizeLine(size, Curve(_plain(FLOPS_A_TOKEN * size * tokens), _plain(_losses(fit, size, tokens, text))))


def _losses(fit: Fit, size: float, tokens: Floats, text: float) -> Floats:
    """Return the median of the drawn laws at these tokens."""
    return np.median(fit.samples([Place(size, float(count), text) for count in tokens]), axis=0)


def _levels(fit: Fit, foretold: Place | None, text: float) -> list[EqualLoss]:
    """Lines of equal loss at round values between the worst run and the best."""
    places: Sequence[Place | Point] = [*fit.points, *([foretold] if foretold else [])]
    parameters, tokens = (
        np.geomspace(min(values) / 1.6, max(values) * 1.6, _PLACES)
        for values in ([one.parameters for one in places], [one.tokens for one in places])
    )
    rows = np.stack([_losses(fit, float(size), tokens, text) for size in parameters])
    losses = [one.loss for one in fit.points]
    found = []
    for loss in Scale(min(*losses, rows.min()) if foretold else min(losses), max(losses) + 1e-9).ticks(10):
        reached = tokens_to_reach(loss, rows, tokens)
        inside = np.isfinite(reached) & (rows[:, 0] >= loss)
        if inside.sum() > 1:
            line = Curve(tuple(parameters[inside].tolist()), tuple(reached[inside].tolist()))
            found.append(EqualLoss(float(f"{loss:.6g}"), line))
    return found


def _curve(amounts: Floats, drawn: Floats) -> Curve:
    """Return the median of drawn lines [draws, amounts], and what holds nine of ten."""
    low, middle, high = interval_of(drawn)
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


def fit_of_csv(path: Path, predict: Place | None = None, kind: str = "") -> Fit:
    """Fit laws to the runs in a CSV, of forms that know repeats where the run to foretell repeats. Raises ConfigError."""
    points = of_kind(read_points(path), kind)
    return fit_points(points, forms_for(points, [predict] if predict else []))


def fit_table(fit: Fit, predict: Place | None = None) -> dict[str, Any]:
    """Return what laws say as plain values. The compute that is split is that of the run to foretell, else that of the largest run."""
    foretold = {"at": _place_table(predict)} | fit.predict([predict])[0].table() if predict else None
    best = split(fit, predict.compute if predict else fit.largest)
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
    """Return rows (figure, value, interval or origin) of what `fit_table` says, for people."""
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
