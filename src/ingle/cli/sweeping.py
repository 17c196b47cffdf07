"""The part of `ingle scale` that trains: plans, sweeps and the run that is foretold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.home.place import Home

if TYPE_CHECKING:
    from ingle.core.report import Event
    from ingle.scaling.cost import Cost
    from ingle.scaling.sweep import Sweep


BUSY = 1.25
"""Times as long as on a quiet machine, from where on that is said."""


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
    from ingle.core.files import need_learning

    need_learning()
    from ingle.cli.output import note, print_json, print_table
    from ingle.cli.progress import watching
    from ingle.cli.settings import read_settings
    from ingle.cli.training import run_watch
    from ingle.core.config import from_table, read_table
    from ingle.core.process import usable_cores
    from ingle.scaling import cost as costing
    from ingle.scaling.sweep import check_sweep_name, keep_plan
    from ingle.scaling.sweep_settings import SweepSettings, run_of
    from ingle.scratch.texts import prepare

    check_sweep_name(name)
    prices = read_settings(home).costs
    budget = costing.parse_budget(asked, prices) if asked else None
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
    from ingle.cli.output import note, print_json, print_table
    from ingle.scaling.sweep import open_sweep

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


def check(home: Home, name: str, where: Where, yes: bool, as_json: bool) -> None:
    """Train the run that was foretold, and say whether the prediction was right."""
    from ingle.cli.house import open_ledger
    from ingle.cli.output import note, print_json
    from ingle.core.config import to_table
    from ingle.core.files import need_learning, write_atomic
    from ingle.scaling.dealing import find_runner
    from ingle.scaling.foretold import begin, check_event, standing
    from ingle.scaling.sheet import read_sheet, write_report
    from ingle.scaling.sweep import CHECKED, open_sweep
    from ingle.scaling.sweep_settings import outcome
    from ingle.train.making import to_json

    need_learning()  # before the ledger says that the run begins
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
    said = f"{facts['loss']:.4f} ({facts['low']:.4f} to {facts['high']:.4f})"
    print(f"Foretold {said}, came {facts['came']:.4f} {report['unit']}: {verdict} the interval.")
    note(f"The prediction is fact {prediction.seq} of the ledger, signed before the run began; `ingle verify` proves the order.")


def _train(home: Home, sweep: "Sweep", runs: Sequence[Any], where: Where) -> list[dict[str, Any]]:
    from ingle.cli.progress import watching
    from ingle.cli.training import run_watch
    from ingle.core.files import need_learning
    from ingle.scaling.sweep import run_sweep

    need_learning()
    with watching() as watch:
        return run_sweep(
            home, sweep, runs, where.runner, where.workers, where.address, run_watch(watch), lambda event: record_once(home, event)
        )  # fmt: skip


def record_once(home: Home, event: "Event") -> None:
    """Add a finished run to the ledger, unless a kill came right after it was added."""
    from ingle.cli.house import open_ledger

    with open_ledger(home) as ledger:
        known = (row.values for row in ledger.read(event.kind, event.subject) if row.kind == event.kind)
        if all(facts.get("key") != event.facts["key"] for facts in known):
            ledger.append(event)


def _agreed(sweep: "Sweep", part: str, yes: bool) -> bool:
    """Say what it will cost, and ask."""
    import sys

    from ingle.cli.output import confirm, is_terminal, note
    from ingle.core.energy import amount
    from ingle.core.errors import counted

    cost = sweep.plan.get("cost", {}).get(part)
    if cost:
        time = counted(max(1, round(cost["minutes"])), "minute")
        note(f"This takes about {time} and {amount(cost['energy']['joules'])}.")
    return yes or not is_terminal(sys.stdin) or confirm("Begin?")


def _row(run: Any) -> tuple[str, str, str]:
    return run.label, f"{run.parameters:,}", f"{run.tokens:,}"


def _costs(name: str, cost: "Cost", currency: str) -> tuple[str, str, str, str]:
    return name, f"{cost.minutes:.1f} min", str(cost.energy), f"{cost.money:.3f} {currency}"


def _result(report: dict[str, Any]) -> tuple[str, str, str]:
    return report["label"], f"{report['loss']:.4f}", f"{report['seconds']:.0f} s"
