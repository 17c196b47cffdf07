"""Probes of levers: pairs of the smallest runs, with and without each lever, on the same held-out text.

HOME/scaling/NAME/probes/runs/KEY.json, texts/KEY.npy   runs with a lever, as the sweep's own (scaling/sweep.py)
HOME/scaling/NAME/probes/pairs.json                     which belongs to which
HOME/scaling/NAME/probes/kept/LEVER.json                a model that a command made, read on the same text

The worse half of the levers ends with the first size, the others go on to the next one (successive halving). They are compared at equal
seconds: a lever whose tokens cost more gets fewer of them, by the law.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.core.report import Sink
from ingle.home.place import Home
from ingle.scaling.budget import Cost
from ingle.scaling.cost import cost_of
from ingle.scaling.evidence import ProbePair, pair_of, residuals, speed_at
from ingle.scaling.interval import Fit, fit_points, forms_for
from ingle.scaling.lever import TrainingLever, difference
from ingle.scaling.points import write_points
from ingle.scaling.prepared import Prepared, find_prepared, held_out_texts, prepare
from ingle.scaling.routes import Outlook
from ingle.scaling.runs import RunSettings, point_of
from ingle.scaling.side_by_side import relative_costs
from ingle.scaling.sweep import CSV, RUNS, Sweep, run_sweep
from ingle.scaling.sweep_settings import SweepSettings, run_of
from ingle.train.making import RunWatch, nobody, to_json

FOLDER, PAIRS, KEPT = "probes", "pairs.json", "kept"
ROUNDS = 2
"""Sizes that probes go up to."""


Train = Callable[[Sweep, Sequence[RunSettings]], list[dict[str, Any]]]
"""Trains these runs where the sweep says, and returns their reports."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A change of settings that is to be tried."""

    lever: str
    settings: SweepSettings
    prepared: Prepared


def probe(
    home: Home, sweep: Sweep, levers: Mapping[str, TrainingLever], runner: str = "local", workers: int = 0, address: str = "",
    watch: RunWatch = RunWatch(), sink: Sink = nobody,  # noqa: B008 - frozen
) -> list[ProbePair]:  # fmt: skip
    """Train pairs for these levers, and return all pairs that there are. Pairs that are there are not trained again.

    Raises ConfigError where the sweep has too few runs for a law, TrainError, HomeError, and Interrupted after Ctrl-C; the same call then
    goes on.
    """
    fit_of(sweep, ())  # says at once where there are too few runs for a law
    alive = [
        Attempt(name, settings, _text(home, sweep, name, settings, watch))
        for name, lever in levers.items() if lever.needs_probe for settings in lever.changes(sweep.settings)
    ]  # fmt: skip

    def train(there: Sweep, runs: Sequence[RunSettings]) -> list[dict[str, Any]]:
        return run_sweep(home, there, runs, runner, workers, address, watch, sink)

    sizes = small_sizes(sweep)[:ROUNDS]
    for number, size in enumerate(sizes, 1):
        _train(sweep, alive, size, train)
        alive = _better_half(sweep, alive, sizes[:number])
    return read_pairs(sweep)


def _text(home: Home, sweep: Sweep, lever: str, settings: SweepSettings, watch: RunWatch) -> Prepared:
    """Return the text of a probe: the sweep's; for other words that of an earlier probe, whatever became of its sources, or a new one."""
    if settings.vocabulary == sweep.settings.vocabulary:
        return sweep.prepared
    rows = [row for row in _read_table(sweep) if row["lever"] == lever and row["changed"] == difference(sweep.settings, settings)]
    if rows:
        return find_prepared(home.scaling / "texts" / rows[0]["prepared"])
    text = prepare(home, settings.data, settings.vocabulary, watch)
    if held_out_texts(text) != held_out_texts(sweep.prepared):
        cure = f"Plan a sweep of the texts as they are now: ingle scale plan {sweep.name}2"
        raise ConfigError("data.sources", "must hold out what they held out when the sweep was planned", "other texts", cure)
    return text


def small_sizes(sweep: Sweep) -> list[str]:
    """Return the sizes of a sweep, the smallest first."""
    return list(dict.fromkeys(run.size for run in sorted(sweep.runs, key=lambda run: run.parameters)))


def probe_tokens(settings: SweepSettings) -> int:
    """Return the length of a probe: the middle one of the sweep, the shorter of two."""
    return sorted(settings.tokens)[(len(settings.tokens) - 1) // 2]


def probe_cost(outlook: Outlook, lever: TrainingLever) -> Cost:
    """Reckon what the first probe of a lever costs on one core, as if its tokens cost what the sweep's do."""
    small = min(outlook.reports, key=lambda report: int(report["parameters"]))
    speeds = {small["size"]: speed_at(outlook.reports, small["parameters"])}
    tokens = probe_tokens(outlook.settings)
    runs = [run_of(replace(outlook.settings, epochs=settings.epochs), outlook.prepared, small["size"], tokens, number)
            for number, settings in enumerate(lever.changes(outlook.settings))]  # fmt: skip
    return cost_of(runs, outlook.prepared, speeds, 1, outlook.prices)


def _train(
    sweep: Sweep, attempts: Sequence[Attempt], size: str, train: Callable[[Sweep, Sequence[RunSettings]], list[dict[str, Any]]]
) -> None:
    """Train one size with each lever and once without, and keep the pairs."""
    tokens, seed = probe_tokens(sweep.settings), sweep.settings.first_seed
    without = run_of(sweep.settings, sweep.prepared, size, tokens, seed)
    [before] = train(sweep, [without])
    runs = [run_of(attempt.settings, attempt.prepared, size, tokens, seed) for attempt in attempts]
    texts = {attempt.prepared.folder: attempt.prepared for attempt in attempts}
    for folder, prepared in texts.items():
        those = [run for attempt, run in zip(attempts, runs, strict=True) if attempt.prepared.folder == folder]
        train(_there(sweep, prepared, those), those)
    kept = {(row["after"], row["before"]): row for row in _read_table(sweep)}
    new = [(attempt, run) for attempt, run in zip(attempts, runs, strict=True) if (run.key, before["key"]) not in kept]
    timed = [(run, attempt.prepared) for attempt, run in new]
    costs = relative_costs((without, sweep.prepared), timed) if timed else []
    for (attempt, run), (seconds, joules) in zip(new, costs, strict=True):
        kept[run.key, before["key"]] = {
            "lever": attempt.lever, "changed": difference(sweep.settings, attempt.settings), "after": run.key, "before": before["key"],
            "prepared": Path(attempt.prepared.folder).name, "seconds": seconds, "joules": joules,
        }  # fmt: skip
    write_atomic(sweep.folder / FOLDER / PAIRS, to_json({"pairs": list(kept.values())}), mode=0o600)
    points = [replace(point_of(_report(sweep, row["after"])), kind=f"{row['lever']}: {row['changed']}") for row in kept.values()]
    write_atomic(sweep.folder / FOLDER / CSV, write_points(points).encode())


def _there(sweep: Sweep, prepared: Prepared, runs: Sequence[RunSettings]) -> Sweep:
    """Return the sweep of probes, whose reports lie in a folder of their own."""
    folder = sweep.folder / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return replace(sweep, folder=folder, prepared=prepared, runs=tuple(runs))


def _better_half(sweep: Sweep, attempts: Sequence[Attempt], sizes: Sequence[str]) -> list[Attempt]:
    """Return the half of the attempts that gains more at equal seconds, by what these sizes show: larger ones may be there from before."""
    pairs = [pair for pair in read_pairs(sweep) if pair.size in sizes]
    fit = fit_of(sweep, pairs)

    def gain(attempt: Attempt) -> float:
        changed = difference(sweep.settings, attempt.settings)
        return float(np.mean([equal_seconds(pair, fit) for pair in pairs if pair.lever == attempt.lever and pair.changed == changed]))

    return sorted(attempts, key=gain, reverse=True)[: -(-len(attempts) // 2)]


def equal_seconds(pair: ProbePair, fit: Fit) -> float:
    """Return the share of the loss that a pair's lever takes off if it trains for as many seconds as the run without it."""
    shorter = replace(pair.after, tokens=pair.after.tokens / pair.seconds, unique=pair.after.unique / pair.seconds)
    laws = np.log(fit.samples([shorter, pair.before]))
    return float(-np.expm1(np.median(residuals(pair, fit) + laws[:, 0] - laws[:, 1])))


def fit_of(sweep: Sweep, pairs: Sequence[ProbePair]) -> Fit:
    """Return the law of a sweep's finished runs; with repeats where a probe repeats its text. Raises ConfigError."""
    points = [point_of(report) for report in finished(sweep)]
    return fit_points(points, forms_for(points, [pair.after for pair in pairs]))


def finished(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the reports of all finished runs, the foretold one included once it was checked."""
    checked = sweep.report(sweep.foretold)
    return [*sweep.reports(), *([checked] if checked else [])]


def read_pairs(sweep: Sweep) -> list[ProbePair]:
    """Return all pairs of a sweep whose runs are there."""
    pairs = []
    for row in _read_table(sweep):
        after, before = _report(sweep, row["after"]), _report(sweep, row["before"])
        pairs.append(pair_of(row, after, before))
    return pairs


def texts_of(home: Home, pairs: Sequence[ProbePair]) -> dict[str, Prepared]:
    """Return the texts that probes read, by the name of their folder."""
    return {name: find_prepared(home.scaling / "texts" / name) for name in {pair.prepared for pair in pairs}}


def read_kept(sweep: Sweep) -> dict[str, dict[str, Any]]:
    """Return the reports of models that commands made, by lever."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((sweep.folder / FOLDER / KEPT).glob("*.json"))}


def _read_table(sweep: Sweep) -> list[dict[str, Any]]:
    path = sweep.folder / FOLDER / PAIRS
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["pairs"] if path.exists() else []
    return rows


def _report(sweep: Sweep, key: str) -> dict[str, Any]:
    """Return a run's report, the sweep's own or a probe's. Raises ConfigError where it was deleted."""
    for folder in (sweep.folder, sweep.folder / FOLDER):
        path = folder / RUNS / f"{key}.json"
        if path.exists():
            report: dict[str, Any] = json.loads(path.read_text("utf-8"))
            return report
    cure = f"Delete {FOLDER}/{PAIRS} of the sweep, and probe again."
    raise ConfigError(f"probe {key[:12]}", "must have its report", "none", cure)
