"""Levers at equal seconds: is what the advice foretells what comes?

    python bench/scaling_levers.py --home DIR [--sweep mini-0] [--times 1] [--workers 2]

1. A small sweep (the one that `bench/scaling.py minis --only 0` makes; it is trained where it is not there).
2. Probes of all levers at its two smallest sizes, as `ingle scale probe` makes them.
3. For each change of settings, the advice for a budget of so many times what the run foretold by the sweep takes, in seconds. Each advice
   is trained as it stands, on the same text, and its gain is compared with the one foretold.

The fit sees the sweep's own runs alone, never the one foretold. The rival is to rank by one size (DataDecide, arXiv 2504.11393): the losses
of the probes at the smallest size decide, at equal tokens. Decisions are those between all pairs of changes; "data" is no change at all.

Whatever is finished in the home is not trained again, so it may be stopped at any time.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import finish, show
from ingle.core.errors import NotKept
from ingle.home.place import Home
from ingle.scaling.advise import Offer, advise
from ingle.scaling.budget import Budget, Prices
from ingle.scaling.cost import DESIGNS
from ingle.scaling.interval import fit_points, forms_for
from ingle.scaling.lever import LEVERS, Lever, TrainingLever, difference
from ingle.scaling.probing import Outlook, ProbePair, Route, probe, speed_at, texts_of
from ingle.scaling.sweep import Sweep, keep_plan, open_sweep, run_sweep
from ingle.scaling.sweep_settings import SweepSettings, point_of
from ingle.scratch.text_sources import prepare
from ingle.train.making import RunWatch

SAID = RunWatch(say=lambda text: print(text, flush=True))


def main() -> None:
    """Do all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--sweep", default="mini-0")
    parser.add_argument("--times", type=float, default=1.0, help="budget, in costs of the foretold run")
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    home = Home(args.home.absolute()).create()
    sweep = sweep_of(home, args.sweep)
    run_sweep(home, sweep, sweep.runs, workers=args.workers, watch=SAID)
    training = {name: lever for name, lever in LEVERS.items() if isinstance(lever, TrainingLever)}
    pairs = probe(home, sweep, training, workers=args.workers, watch=SAID)
    changes, renamed = changes_of(sweep.settings, training, pairs)
    outlook = outlook_of(home, sweep, renamed)
    advice = advise(outlook, budget_of(outlook, sweep, args.times), changes)
    offers = [offer for offer in advice.offers if offer.measured]
    reports = train(home, sweep, offers, args.workers)
    results = [result(outlook, offer, report) for offer, report in zip(offers, reports, strict=True)]
    tell(results, small_gains(sweep, renamed), advice.notes, str(advice.budget))


def sweep_of(home: Home, name: str) -> Sweep:
    """Return the small sweep; plan it where there is none."""
    try:
        return open_sweep(home, name)
    except NotKept:
        settings = DESIGNS[-1].settings(SweepSettings())
        return keep_plan(home, name, settings, prepare(home, settings.data, settings.vocabulary), {})


def changes_of(
    settings: SweepSettings, training: Mapping[str, TrainingLever], pairs: Sequence[ProbePair]
) -> tuple[dict[str, Lever], list[ProbePair]]:  # fmt: skip
    """Return every change of settings as a lever of its own, and its pairs under that name."""
    found, renamed = dict[str, Lever](), list[ProbePair]()
    for name, lever in training.items():
        if not lever.needs_probe:
            found[name] = lever
            continue
        for changed in lever.changes(settings):
            said = difference(settings, changed)
            label = f"{name} {', '.join(map(str, said.values()))}"
            found[label] = TrainingLever(lever.words, Only(changed), lever.sizes)
            renamed += [replace(pair, lever=label) for pair in pairs if pair.lever == name and pair.changed == said]
    return found, renamed


class Only:
    """One change of settings."""

    def __init__(self, settings: SweepSettings) -> None:
        self._settings = settings

    def __call__(self, _: SweepSettings) -> list[SweepSettings]:
        return [self._settings]


def outlook_of(home: Home, sweep: Sweep, pairs: Sequence[ProbePair]) -> Outlook:
    """Return what the sweep's own runs and the probes say, and nothing of the foretold run."""
    reports = sweep.reports()
    points = [point_of(report) for report in reports]
    fit = fit_points(points, forms_for(points, [pair.after for pair in pairs]))
    return Outlook(sweep.name, sweep.folder, sweep.settings, sweep.prepared, texts_of(home, pairs), reports, fit, pairs, {}, Prices())


def budget_of(outlook: Outlook, sweep: Sweep, times: float) -> Budget:
    """Return a budget in minutes, by the measured cost of a token."""
    run = sweep.foretold
    speed = speed_at(outlook.reports, run.parameters)
    route = Route(sweep.settings, sweep.prepared, run.size, run.parameters, speed, np.zeros(1), outlook.prices)
    return Budget("minutes", times * route.cost(run.tokens).minutes)


def train(home: Home, sweep: Sweep, offers: Sequence[Offer], workers: int) -> list[dict[str, Any]]:
    """Train what is offered, text by text, and return the reports in the offers' order."""
    folder = sweep.folder / "bench"
    folder.mkdir(exist_ok=True)
    runs = [(offer.route, offer.route.run(offer.tokens)) for offer in offers if offer.route is not None]
    found = dict[str, dict[str, Any]]()
    for text in {route.prepared.folder: route.prepared for route, _ in runs}.values():
        those = [run for route, run in runs if route.prepared.folder == text.folder]
        there = replace(sweep, folder=folder, prepared=text, runs=tuple(those))
        found |= {report["key"]: report for report in run_sweep(home, there, those, workers=workers, watch=SAID)}
    return [found[run.key] for _, run in runs]


def result(outlook: Outlook, offer: Offer, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was foretold of an offer beside what came."""
    assert offer.cost is not None
    got = outlook.incumbent["loss"] - report["loss"]
    assert offer.gain is not None
    assert offer.low is not None
    assert offer.high is not None
    return {
        "lever": offer.lever, "what": report["label"], "gain": offer.gain, "low": offer.low, "high": offer.high, "got": got,
        "inside": offer.low <= got <= offer.high, "best_with": offer.probability_best, "minutes": offer.cost.minutes,
        "minutes_taken": report["seconds"] / 60, "joules": report["energy"]["joules"],
    }  # fmt: skip


def small_gains(sweep: Sweep, pairs: Sequence[ProbePair]) -> dict[str, float]:
    """Return the gain of each change at the smallest size alone; no change gains nothing."""
    smallest = min(sweep.runs, key=lambda run: run.parameters).size
    return {"data": 0.0} | {pair.lever: pair.before.loss - pair.after.loss for pair in pairs if pair.size == smallest}


def tell(results: list[dict[str, Any]], small: Mapping[str, float], notes: Sequence[str], budget: str) -> None:
    """Print the table, the rank correlation, and the decisions."""
    head = ("lever", "trained", "foretold", "low", "high", "got", "inside", "best with", "minutes", "taken", "at the smallest size")
    shown = [
        (
            one["lever"], one["what"], *(f"{one[key]:+.4f}" for key in ("gain", "low", "high", "got")), one["inside"],
            f"{one['best_with']:.0%}", f"{one['minutes']:.1f}", f"{one['minutes_taken']:.1f}",
            f"{small[one['lever']]:+.4f}" if one["lever"] in small else "",
        )
        for one in sorted(results, key=lambda one: -one["got"])
    ]  # fmt: skip
    show(f"gain in bits per byte for {budget}", [head, *shown])
    told, got = [one["gain"] for one in results], [one["got"] for one in results]
    both = [one for one in results if one["lever"] in small]
    figures = {
        "budget": budget, "levers": len({one["lever"].split()[0] for one in results}), "changes": len(results),
        "rank_correlation": rank_correlation(told, got), "inside": sum(one["inside"] for one in results),
        "decisions": decisions(told, got), "decisions_of_changes": decisions([one["gain"] for one in both], [one["got"] for one in both]),
        "decisions_by_one_size": decisions([small[one["lever"]] for one in both], [one["got"] for one in both]),
    }  # fmt: skip
    finish("scaling_levers", figures | {"results": results, "notes": list(notes)})


def rank_correlation(told: Sequence[float], got: Sequence[float]) -> float:
    """Return Spearman's correlation of two lists without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (told, got)]
    return float(np.corrcoef(ranks)[0, 1])


def decisions(told: Sequence[float], got: Sequence[float]) -> dict[str, float]:
    """Return the share of pairs that are ordered right, and how many there are."""
    right = [(told[i] > told[j]) == (got[i] > got[j]) for i, j in itertools.combinations(range(len(told)), 2)]
    return {"share": sum(right) / len(right), "of": len(right)}


if __name__ == "__main__":
    main()
