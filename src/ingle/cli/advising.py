"""The part of `ingle scale` that advises: what a budget buys by each lever, and probes that measure levers."""

import math
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ingle.app.choose import choose
from ingle.app.house import open_ledger
from ingle.app.making import run_watch
from ingle.app.settings import read_settings
from ingle.cli.choose import open_watched
from ingle.cli.interrupt import Interrupt
from ingle.cli.output import note, print_json, print_table
from ingle.cli.progress import watching
from ingle.cli.sweeping import Where, record_once
from ingle.core.errors import ConfigError
from ingle.energy.label import Label, load
from ingle.home.deltas import delta_report
from ingle.home.kept import get_kept, list_kept
from ingle.home.place import Home
from ingle.model.checkpoint import open_checkpoint
from ingle.model.tensor import expected_shapes
from ingle.scaling.advise import Demand, demand_of, keep_report, outlook_of, parse_demand, rows, served, write_advice
from ingle.scaling.advise import advise as offers_for
from ingle.scaling.budget import parse_budget
from ingle.scaling.lever import LEVERS, CommandLever, Errand, TrainingLever, chosen, shown
from ingle.scaling.probing import ProbePair, bits_of_kept, equal_seconds, fit_of, read_kept
from ingle.scaling.probing import probe as train
from ingle.scaling.sweep import Sweep, open_sweep

BUDGET = "30min"
PROBE_MINUTES = 3.0  # how long a command lever trains when it is tried


def advise(home: Home, name: str, budget: str | None, serves: str | None, as_json: bool) -> None:
    """Say what each way to spend a budget gives."""
    prices = read_settings(home).costs
    asked = parse_budget(budget or BUDGET, prices)
    demand = parse_demand(serves) if serves else None
    sweep = open_sweep(home, name)
    outlook = outlook_of(home, sweep, prices)
    advice = offers_for(outlook, asked, LEVERS)
    serving = None
    demand = demand or _demand(home)
    if demand.tokens_a_day > 0:
        try:
            serving = served(outlook, advice, demand, _labels(home))
        except ConfigError as error:
            if serves:
                raise
            note(str(error))
    table = write_advice(sweep, advice, serving)
    if as_json:
        print_json(table)
        return
    best = advice.incumbent
    print(f"The best model now: {best['label']}, {best['loss']:.4f} bits/byte. For {asked}:")
    print_table(("lever", "gain", "90 % interval", "best with", "cost", "pays until"), rows(advice))
    for offer in advice.offers:
        note(f"{offer.lever}: {offer.do}; {offer.why}.")
    for text in (*advice.notes, *(serving["said"] if serving else ())):
        note(text)
    if advice.offers and advice.offers[0].measured:
        print(f"Go on with: {advice.offers[0].command}")


def probe(home: Home, name: str, names: Sequence[str], where: Where, as_json: bool) -> None:
    """Measure what levers are worth: those named, or all that train as the sweep does."""
    asked = chosen(names)
    sweep = open_sweep(home, name)
    with watching() as watch:
        pairs = train(
            home, sweep, {key: one for key, one in asked.items() if isinstance(one, TrainingLever)}, where.runner, where.workers,
            where.address, run_watch(watch), lambda event: record_once(home, event),
        )  # fmt: skip
    for key, one in asked.items():
        if key in names and isinstance(one, CommandLever) and key not in read_kept(sweep):
            _try(home, sweep, key, one)
    fit, kept = fit_of(sweep, pairs), read_kept(sweep)
    if as_json:
        print_json({"pairs": [_pair(pair, equal_seconds(pair, fit)) for pair in pairs], "kept": kept})
        return
    lines = [(pair.lever, shown(pair.changed), pair.size, f"{equal_seconds(pair, fit):+.1%}", f"{pair.seconds:.2f}") for pair in pairs]
    print_table(("lever", "change", "size", "less loss at equal seconds", "time of a token"), lines)
    for key, report in kept.items():
        note(f"{key}: {report['model']} has {report['loss']:.4f} bits/byte on the same text, after {report['seconds'] / 60:.2g} min.")
    note(f"Go on with: ingle scale advise {name}")


def _try(home: Home, sweep: Sweep, name: str, lever: CommandLever) -> None:
    """Run a lever's command, read the model that it makes, and keep a report."""
    errand = Errand(sweep.name, sweep.settings.data.sources, PROBE_MINUTES)
    arguments = lever.arguments(errand)
    command = shlex.join(["ingle", *arguments])
    note(f"Runs: {command}")
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-m", "ingle", *arguments], stdout=subprocess.DEVNULL, check=False)
    if ended.returncode:
        raise ConfigError(name, "could not be tried: its command failed", command, "Run it by itself to see more.")
    seconds = time.monotonic() - began
    kept = get_kept(home, lever.made(errand))
    report = delta_report(home, kept.deltas[-1]) or {}
    energy = (report.get("train") or report.get("recovery") or report).get("energy") or {}
    loss, start = (_loss(home, sweep, model) for model in (kept.name, kept.name.rpartition("+")[0]))
    facts = {"model": kept.name, "digest": kept.digest, "loss": loss, "start_loss": start, "seconds": seconds, "energy": energy}
    keep_report(sweep, name, facts | {"command": command, "unit": "bits/byte", "data": sweep.prepared.digest})


def _loss(home: Home, sweep: Sweep, model: str) -> float:
    opened = open_watched(home, choose(home, model), read_settings(home).chat)
    with watching() as watch, Interrupt() as interrupt:
        bits = bits_of_kept(opened, sweep.prepared, interrupt.asked, watch.pieces)
    return float(bits.sum()) / sweep.prepared.held_out_bytes


def _demand(home: Home) -> Demand:
    """Return what this home answered lately, from its ledger."""
    if not home.other_database and not home.database_file.exists():
        return Demand(0.0, "nothing was answered here")
    with open_ledger(home) as ledger:
        return demand_of(((row.at, row.values) for row in ledger.read("answer")), datetime.now(UTC))


def _labels(home: Home) -> list[tuple[Label, float]]:
    """Return the energy labels of kept models, with each model's parameters."""
    labels = []
    for kept in list_kept(home, lambda _name, _error: None):
        label = load(home.labels, kept.digest)
        if label is not None:
            shapes = expected_shapes(open_checkpoint(home.base_folder(kept.base)).config)
            labels.append((label, float(sum(math.prod(shape) for shape in shapes.values()))))
    return labels


def _pair(pair: ProbePair, gain: float) -> dict[str, Any]:
    return {
        "lever": pair.lever, "changed": dict(pair.changed), "size": pair.size, "gain": gain, "seconds": pair.seconds, "joules": pair.joules,
    }  # fmt: skip
