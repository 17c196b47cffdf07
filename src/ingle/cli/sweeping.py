"""The part of `ingle scale` that needs PyTorch: plans, sweeps, their laws, and the run that is foretold."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle.app.house import open_ledger
from ingle.app.making import run_watch
from ingle.app.settings import read_settings
from ingle.cli.output import confirm, is_terminal, note, print_json, print_table
from ingle.cli.progress import watching
from ingle.cli.scaling import svg_file
from ingle.core.config import from_table, read_table, to_table
from ingle.core.energy import amount
from ingle.core.errors import counted
from ingle.core.files import write_atomic
from ingle.core.process import usable_cores
from ingle.core.report import Event
from ingle.home.place import Home
from ingle.scaling import cost as costing
from ingle.scaling.budget import Cost, parse_budget
from ingle.scaling.dealing import find_runner
from ingle.scaling.foretold import begin, check_event, standing
from ingle.scaling.foretold import predict as sign
from ingle.scaling.frontier import parse_place
from ingle.scaling.interval import Prediction
from ingle.scaling.sheet import figures, plots_of, read_sheet, write_report
from ingle.scaling.sweep import CHECKED, Sweep, check_sweep_name, fit_sweep, keep_plan, open_sweep, run_sweep
from ingle.scaling.sweep_settings import RunSettings, SweepSettings, outcome, run_of
from ingle.scratch.text_sources import prepare
from ingle.train.making import to_json

BUSY = 1.25  # times as long as on a quiet machine, from where on that is said


@dataclass(frozen=True, slots=True)
class Where:
    """Where a sweep trains."""

    runner: str
    workers: int
    address: str


def plan(
    home: Home, name: str, asked: str | None, config: Path | None, overrides: Sequence[str], workers: int, as_json: bool
) -> None:  # fmt: skip
    """Choose, or cost, the runs of a sweep, and keep the plan."""
    check_sweep_name(name)
    prices = read_settings(home).costs
    budget = parse_budget(asked, prices) if asked else None
    table = read_table(config, overrides)
    settings = from_table(SweepSettings, table)
    home.create()
    with watching() as watch:
        prepared = prepare(home, settings.data, settings.vocabulary, run_watch(watch))
        chosen = bool({"sizes", "tokens", "foretold_size", "foretold_tokens"} & table.keys())
        designs = () if chosen or budget is None else costing.DESIGNS
        count = workers or usable_cores()
        shortest = min(settings.tokens)
        timed = [run_of(settings, prepared, size, shortest, 0) for size in costing.sizes_to_time(settings, designs)]
        watch.say(f"timing {len(timed)} sizes, {count} at a time")
        machine = costing.CostModel(costing.measure_speeds(prepared, timed, count), count, prices)
        planned = costing.fitted(settings, budget, prepared, machine) if designs and budget else costing.costed(settings, prepared, machine)
        if budget is not None and (error := costing.refused(planned, budget)):
            raise error
        watch.say("simulating how sure such a law will be")
        width = costing.expected_width(planned.settings, prepared)
    more = costing.cost_table(planned, machine) | {"budget": str(budget or ""), "expected_width": width}
    sweep = keep_plan(home, name, planned.settings, prepared, more)
    if as_json:
        print_json(dict(sweep.plan))
        return
    print_table(("run", "parameters", "tokens"), [_row(run) for run in (*sweep.runs, sweep.foretold)])
    costs = (("the sweep", planned.sweep), ("the foretold run", planned.foretold))
    print_table(("", "time", "energy", "price"), [_costs(what, cost, prices.currency) for what, cost in costs])
    if machine.busy >= BUSY:
        minutes = planned.whole.minutes * machine.busy
        print(f"That is on a quiet machine. Other programs are at work here now; beside them it takes about {minutes:.0f} min.")
    print(f"The last run is the one that is foretold. Its 90 % interval will be about {width:.1%} wide, by simulation.")
    note(f"Nothing was trained yet. Go on with: ingle scale run {name}")


def run(home: Home, name: str, where: Where, yes: bool, as_json: bool) -> None:
    """Train what is missing of a sweep."""
    sweep = open_sweep(home, name)
    missing = [one for one in sweep.runs if sweep.report(one) is None]
    if missing and not _agreed(sweep, "sweep", yes):
        return
    reports = _train(home, sweep, sweep.runs, where)
    if as_json:
        print_json(reports)
        return
    print_table(("run", "loss, bits/byte", "time"), [_result(report) for report in reports])
    note(f"Every run is a file in {sweep.folder}; runs.csv has all of them. Go on with: ingle scale fit {name}")


def fit(home: Home, name: str, predict: str | None, plot: Path | None, as_json: bool) -> None:
    """Fit the law of a sweep, and sign the prediction for its larger run."""
    plot = svg_file(plot)
    sweep = open_sweep(home, name)
    found, prediction, table = fit_sweep(sweep)
    run = table["prediction"]
    with open_ledger(home) as ledger:
        untouched = not sweep.begun(sweep.foretold)
        row = sign(ledger, name, run, found.digest, prediction.table(), prediction.level) if untouched else None
        stands = standing(ledger, name, run["key"])
    sheet = read_sheet(home, name)
    report = write_report(sweep.folder, sheet)
    if plot:
        write_atomic(plot, plots_of(sheet)["loss"].encode())
    asked = found.predict([parse_place(predict)])[0] if predict else None
    if asked:
        table["asked"] = asked.table()
    if as_json:
        print_json(table)
        return
    print_table(("law", "weight", ""), [(law["equation"], f"{law['weight']:.0%}", figures(law)) for law in table["laws"]])
    print(f"Foretold for {run['label']}: {prediction} bits/byte.")
    if asked:
        print(f"Foretold for {predict}: {asked} bits/byte.")
    for text in table["notes"]:
        note(f"{text}.")
    note(f"Plots, law and every run in words: {report}")
    if stands.prediction is None:
        note("The larger run was begun before anything was foretold, so nothing is signed.")
    elif row is None:
        note(f"The prediction in fact {stands.prediction.seq} stands.")
    else:
        note(f"This prediction is signed: fact {row.seq} of the ledger. Go on with: ingle scale check {name}")


def check(home: Home, name: str, where: Where, yes: bool, as_json: bool) -> None:
    """Train the run that was foretold, and say whether the prediction was right."""
    find_runner(where.runner)
    sweep = open_sweep(home, name)
    run = sweep.foretold
    with open_ledger(home) as ledger:
        before = standing(ledger, name, run.key)
        if before.prediction is not None and sweep.report(run) is None and not _agreed(sweep, "foretold", yes):
            return
        prediction = begin(ledger, name, run.key)
    [report] = _train(home, sweep, [run], where)
    event = check_event(name, prediction, report, outcome(report))
    with open_ledger(home) as ledger:
        if standing(ledger, name, run.key).checked is None:
            ledger.append(event)
    facts = dict(event.facts) | {"label": report["label"], "unit": report["unit"], "fact": prediction.seq}
    write_atomic(sweep.folder / CHECKED, to_json(to_table(facts)))
    write_report(sweep.folder, read_sheet(home, name))
    if as_json:
        print_json(facts)
        return
    verdict = "inside" if facts["inside"] else "outside"
    said = Prediction(*(float(facts[name]) for name in ("loss", "low", "high")))
    print(f"Foretold {said}, came {facts['came']:.4f} {report['unit']}: {verdict} the interval.")
    note(f"The prediction is fact {prediction.seq} of the ledger, signed before the run began; `ingle verify` proves the order.")


def _train(home: Home, sweep: Sweep, runs: Sequence[RunSettings], where: Where) -> list[dict[str, Any]]:
    with watching() as watch:
        return run_sweep(
            home, sweep, runs, where.runner, where.workers, where.address, run_watch(watch), lambda event: record_once(home, event)
        )  # fmt: skip


def record_once(home: Home, event: Event) -> None:
    """Add a finished run to the ledger, unless a kill came right after it was added."""
    with open_ledger(home) as ledger:
        known = (row.values for row in ledger.read(event.kind, event.subject) if row.kind == event.kind)
        if all(facts.get("key") != event.facts["key"] for facts in known):
            ledger.append(event)


def _agreed(sweep: Sweep, part: str, yes: bool) -> bool:
    """Say what it will cost, and ask."""
    cost = sweep.plan.get("cost", {}).get(part)
    if cost:
        time = counted(max(1, round(cost["minutes"])), "minute")
        note(f"This takes about {time} and {amount(cost['energy']['joules'])}.")
    return yes or not is_terminal(sys.stdin) or confirm("Begin?")


def _row(run: RunSettings) -> tuple[str, str, str]:
    return run.label, f"{run.parameters:,}", f"{run.tokens:,}"


def _costs(name: str, cost: Cost, currency: str) -> tuple[str, str, str, str]:
    return name, f"{cost.minutes:.1f} min", str(cost.energy), f"{cost.money:.3f} {currency}"


def _result(report: dict[str, Any]) -> tuple[str, str, str]:
    return report["label"], f"{report['loss']:.4f}", f"{report['seconds']:.0f} s"
