"""Scaling laws on real sweeps: is what was foretold what came, and is the advice of a law better than its rivals?

    python bench/scaling.py rates --home DIR         learning rates at two corners of the ladder
    python bench/scaling.py minis --home DIR         ten small sweeps, each foretold, signed, then checked
    python bench/scaling.py rivals --home DIR        a law's split of compute against smaller-longer and larger-shorter, three seeds
    python bench/scaling.py epochs --home DIR        eight readings of a text, foretold from one, two and four

`minis`: the smallest plan: three sizes and three lengths, second seeds for two sizes, the foretold run with four times the compute of
the largest. Kinds of model, optimisers, vocabularies and texts vary. Beside each prediction stand a straight line through log loss and
log compute of the runs that lie on its lower edge, and the loss of the largest run as it is.

`rivals`: at the compute of the first mini sweep's foretold run, the split that its law advises, half as large a model on twice the text,
and a model twice as large on half the text; at equal FLOPs, and at equal seconds by measured speeds. Compared text by text.

`epochs`: two sizes and two amounts of text; beside the law with repeats stand the law that takes every reading for new text, and the loss
after four.

Whatever is finished in the home is not trained again; `--only` takes some of the work, so that two processes share it.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import finish, show
from ingle.core.report import Event
from ingle.home.database import open_database
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from ingle.ledger.table import MIGRATIONS
from ingle.measure.intervals import paired_bootstrap
from ingle.scaling.cost import DESIGNS, SHORTEST
from ingle.scaling.foretold import begin, check_event, predict, standing
from ingle.scaling.interval import fit_points
from ingle.scaling.points import Place
from ingle.scaling.sweep import Sweep, fit_sweep, keep_plan, run_sweep
from ingle.scaling.sweep_settings import LADDER, RunSettings, SweepSettings, outcome, point_of, run_of, shorter
from ingle.scratch.scratch_settings import TextSettings
from ingle.scratch.text_sources import Prepared, prepare
from ingle.train.making import RunWatch

ALL = ("suite:debian-bits", "suite:xsum-bits", "suite:wiki-bits")
PACKAGES, NO_NEWS = ALL[:1], (ALL[0], ALL[2])
MINIS: tuple[dict[str, Any], ...] = (
    {},
    {"kind": "hybrid"},
    {"kind": "rnn"},
    {"optimiser": "adamw"},
    {"vocabulary": 2048},
    {"data": TextSettings(PACKAGES)},
    {"kind": "hybrid", "data": TextSettings(PACKAGES)},
    {"vocabulary": 1024, "data": TextSettings(NO_NEWS)},
    {"kind": "hybrid", "optimiser": "adamw"},
    {"first_seed": 10},
)
RATES = (4.5e-3, 9e-3, 1.8e-2)
RIVALS = {"as advised": 1.0, "smaller, longer": 0.5, "larger, shorter": 2.0}


def main() -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("rates", "minis", "rivals", "epochs"))
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--only", default="", help="numbers of some of the work, for example 0,2,4")
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    home = Home(args.home.absolute()).create()
    chosen = [int(one) for one in args.only.split(",")] if args.only else list(range(len(MINIS)))
    {"rates": rates, "minis": minis, "rivals": rivals, "epochs": epochs}[args.part](home, chosen, args.workers)


def rates(home: Home, _chosen: list[int], workers: int) -> None:
    """Losses at two corners under three learning rates."""
    table = []
    for rate in RATES:
        settings = SweepSettings(sizes=("2x64", "6x192"), tokens=(750_000,), more_seeds=0, rate=rate, foretold_tokens=3_000_000)
        sweep = keep_plan(home, f"rate-{rate:g}", settings, prepare(home, settings.data, settings.vocabulary), {})
        table += [(rate, one["size"], round(one["loss"], 4)) for one in run_sweep(home, sweep, sweep.runs, workers=workers, watch=SAID)]
    show("bits per byte by learning rate", [("rate", "size", "loss"), *table])
    finish("scaling_rates", {"losses": table})


def minis(home: Home, chosen: list[int], workers: int) -> None:
    """Sweeps that are foretold, then checked."""
    results = [one_mini(home, number, workers) for number in chosen]
    head = ("sweep", "foretold", "low", "high", "came", "inside", "width", "error", "straight line", "largest run")
    rows = [
        [one["what"], *(f"{one[key]:.4f}" for key in FIGURES), one["inside"], *(f"{one[key]:+.2%}" for key in SHARES)] for one in results
    ]
    show("foretold and came, bits per byte", [head, *rows])
    medians = {key: statistics.median(abs(one[key]) for one in results) for key in SHARES}
    finish("scaling_minis", {"inside": sum(one["inside"] for one in results), "of": len(results), "medians": medians, "sweeps": results})


def smallest() -> SweepSettings:
    """The smallest plan that `ingle scale plan` makes."""
    return shorter(DESIGNS[-1].settings(SweepSettings()), SHORTEST)


def one_mini(home: Home, number: int, workers: int) -> dict[str, Any]:
    """Sweep, foretell, sign, train the foretold run, compare."""
    settings = replace(smallest(), **MINIS[number])
    sweep = keep_plan(home, f"mini-{number}", settings, prepare(home, settings.data, settings.vocabulary), {})
    reports = run_sweep(home, sweep, sweep.runs, workers=workers, watch=SAID, sink=lambda event: record(home, event))
    fit, said, table = fit_sweep(sweep)
    run = sweep.foretold
    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    ledger = Ledger(engine, home.keys)
    predict(ledger, sweep.name, table["prediction"], fit.digest, said.table(), said.level)
    row = begin(ledger, sweep.name, run.key)
    [report] = run_sweep(home, sweep, [run], workers=1, watch=SAID, sink=lambda event: record(home, event))
    event = check_event(sweep.name, row, report, outcome(report))
    if standing(ledger, sweep.name, run.key).checked is None:
        ledger.append(event)
    engine.dispose()
    facts = dict(event.facts)
    loss, low, high, came = (float(facts[name]) for name in FIGURES)  # type: ignore[arg-type]
    changes = {key: len(value.sources) if isinstance(value, TextSettings) else value for key, value in MINIS[number].items()}
    what = ", ".join(f"{key} {value}" for key, value in changes.items())
    return {
        "what": what or "as it is", "loss": loss, "low": low, "high": high, "came": came, "inside": bool(facts["inside"]),
        "width": (high - low) / loss, "error": loss / came - 1, "line_error": straight_line(reports, run.flops) / came - 1,
        "last_error": max(reports, key=lambda one: one["flops"])["loss"] / came - 1,
    }  # fmt: skip


def straight_line(reports: list[dict[str, Any]], flops: float) -> float:
    """Loss at this compute by a straight line of log loss on log compute, through the runs that no cheaper one beats."""
    best, edge = float("inf"), []
    for report in sorted(reports, key=lambda one: one["flops"]):
        if report["loss"] < best:
            best = report["loss"]
            edge.append((np.log(report["flops"]), np.log(best)))
    x, y = np.array(edge).T
    slope, start = np.polyfit(x, y, 1)
    return float(np.exp(start + slope * np.log(flops)))


def rivals(home: Home, _chosen: list[int], workers: int) -> None:
    """The advised split against two others, in three seeds."""
    settings = smallest()
    prepared = prepare(home, settings.data, settings.vocabulary)
    sweep = keep_plan(home, "mini-0", settings, prepared, {})
    fit = fit_points([point_of(report) for report in sweep.reports()])
    flops = sweep.foretold.flops
    advised = best_size(fit, settings, prepared, flops)
    results: list[dict[str, Any]] = []
    for seed in (0, 1, 2):
        sizes = {name: nearest(settings, prepared, advised * times) for name, times in RIVALS.items()}
        runs = {name: run_at(settings, prepared, size, flops, seed) for name, size in sizes.items()}
        run_sweep(home, sweep, list(runs.values()), workers=workers, watch=SAID)
        ours, *others = runs
        for other in others:
            results.append(compared(sweep, runs[ours], runs[other]) | {"seed": seed, "rival": other, "size": runs[other].label})
    rows = [(one["seed"], one["rival"], f"{one['value']:+.4f}", f"{one['low']:+.4f}", f"{one['high']:+.4f}") for one in results]
    show("advised minus rival at equal FLOPs, bits per byte", [("seed", "rival", "difference", "low", "high"), *rows])
    won = {rival: sum(one["high"] < 0 for one in results if one["rival"] == rival) for rival in list(RIVALS)[1:]}
    finish("scaling_rivals", {"advised": advised, "flops": flops, "won": won, "results": results})


def epochs(home: Home, _chosen: list[int], workers: int) -> None:
    """Losses after eight readings, foretold from fewer."""
    settings = replace(smallest(), sizes=("2x64", "2x128"), tokens=(307_200, 614_400), more_seeds=0)
    prepared = prepare(home, settings.data, settings.vocabulary)
    sweep = keep_plan(home, "epochs", settings, prepared, {})

    def reading(times: int, texts: Sequence[int]) -> list[RunSettings]:
        told = replace(settings, epochs=float(times))
        return [run_of(told, prepared, size, text * times, 0) for size in settings.sizes for text in texts]

    few = [run for times in (1, 2, 4) for run in reading(times, settings.tokens)]
    points = [point_of(report) for report in run_sweep(home, sweep, few, workers=workers, watch=SAID)]
    many = reading(8, settings.tokens[:1])
    came = [point_of(report) for report in run_sweep(home, sweep, many, workers=workers, watch=SAID)]
    fit, as_new = fit_points(points), fit_points([replace(one, unique=one.tokens, seed=round(one.tokens / one.unique)) for one in points])
    rows, results = [], []
    for one in came:
        [said], [new] = fit.predict([one]), as_new.predict([replace(one, unique=one.tokens)])
        last = min(other.loss for other in points if (other.parameters, other.unique) == (one.parameters, one.unique))
        errors = {name: loss / one.loss - 1 for name, loss in (("error", said.loss), ("as new", new.loss), ("as after four", last))}
        inside = said.low <= one.loss <= said.high
        results.append(said.table() | {"parameters": one.parameters, "came": one.loss, "inside": inside} | errors)
        rows.append(
            (one.parameters, *(f"{results[-1][key]:.4f}" for key in FIGURES), inside, *(f"{error:+.2%}" for error in errors.values()))
        )
    show("eight readings, bits per byte", [("parameters", *FIGURES, "inside", "error", "as new text", "as after four"), *rows])
    finish("scaling_epochs", {"readings": results})


def best_size(fit: Any, settings: SweepSettings, prepared: Prepared, flops: float) -> float:
    """Parameters of the rung that the law puts lowest at this compute."""
    sizes = {run_of(settings, prepared, size, 400_000, 0).parameters for size in SIZES}
    places = [Place(size, flops / 6 / size) for size in sorted(sizes)]
    losses = fit.samples(places).mean(axis=0)
    return places[int(losses.argmin())].parameters


def nearest(settings: SweepSettings, prepared: Prepared, parameters: float) -> str:
    """The rung of about so many parameters."""
    return min(SIZES, key=lambda size: abs(np.log(run_of(settings, prepared, size, 400_000, 0).parameters / parameters)))


def run_at(settings: SweepSettings, prepared: Prepared, size: str, flops: float, seed: int) -> RunSettings:
    """A run of this size that costs so much."""
    parameters = run_of(settings, prepared, size, 400_000, 0).parameters
    tokens = round(flops / 6 / parameters)
    return run_of(replace(settings, epochs=max(1.0, tokens / prepared.tokens * 1.01)), prepared, size, tokens, seed)


def compared(sweep: Sweep, ours: RunSettings, theirs: RunSettings) -> dict[str, Any]:
    """Difference in bits per byte with a paired interval over texts."""
    from ingle.scratch.text_sources import held_out_of

    sizes = held_out_of(sweep.prepared).bytes.astype(np.float64)
    mine, other = (np.stack([sweep.bits(run), sizes], axis=1) for run in (ours, theirs))
    difference = paired_bootstrap(other, mine)
    return {"value": difference.value, "low": difference.interval.low, "high": difference.interval.high}


def record(home: Home, event: Event) -> None:
    """Add a fact to the home's ledger."""
    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    Ledger(engine, home.keys).append(event)
    engine.dispose()


FIGURES, SHARES = ("loss", "low", "high", "came"), ("width", "error", "line_error", "last_error")
SIZES = LADDER[:-1]
SAID = RunWatch(say=lambda text: print(text, flush=True))

if __name__ == "__main__":
    main()
