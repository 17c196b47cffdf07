"""A law from anyone's table of runs: what `ingle scale fit runs.csv` says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ingle.core.errors import ConfigError, counted
from ingle.scaling.interval import MOST_EXTRAPOLATION, Fit, fit_points, forms_for
from ingle.scaling.optimal import split
from ingle.scaling.points import Place, Point, read_points, short, shown
from ingle.scaling.returns import returns


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
