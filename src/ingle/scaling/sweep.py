"""A sweep: many trainings by one plan, each a file. Stopped at any moment, the same call goes on and ends with the same outcomes.

HOME/scaling/NAME/plan.json       settings, the list of runs, the run that is foretold, and what all of it costs
                  runs/KEY.json   a finished run, see scaling/sweep_settings.py
                  texts/KEY.npy   bits of each held-out text
                  runs.csv        all finished runs, for anyone to refit
                  fit.json        the law and what it foretells
                  curves.json     lines of the law, for the plots
                  report.html     all of this for people, with its plots (loss.svg, equal-loss.svg, gain.svg, residuals.svg)
                  check.json      what came of the foretold run
                  progress.json   how far a running sweep is
                  work/           checkpoints of unfinished runs
"""

import io
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.config import from_table, to_table
from ingle.core.digest import digest_json
from ingle.core.energy import Energy
from ingle.core.errors import CheckpointError, ConfigError, NotKept
from ingle.core.files import write_atomic
from ingle.core.progress import silent
from ingle.core.report import Event, Fact, Sink
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.scaling.dealing import find_runner
from ingle.scaling.foretold import RUN
from ingle.scaling.interval import Fit, Prediction, fit_points, forms_for
from ingle.scaling.points import write_points
from ingle.scaling.sheet import keep_curves
from ingle.scaling.sweep_settings import (
    RunSettings,
    SweepSettings,
    climb_shares,
    climbs_of,
    foretold_of,
    outcome,
    own_share,
    point_of,
    runs_of,
)
from ingle.scratch.text_sources import PREPARED, Prepared, find_prepared
from ingle.train.making import RunWatch, stop_signals, to_json

VERSION = 1
PLAN, RUNS, TEXTS, CSV, PROGRESS, WORK = "plan.json", "runs", "texts", "runs.csv", "progress.json", "work"
FITTED, CHECKED = "fit.json", "check.json"
_TOLD_EVERY_S, _SAID_EVERY_S = 2.0, 60.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """A planned sweep."""

    name: str
    folder: Path
    settings: SweepSettings
    prepared: Prepared
    runs: tuple[RunSettings, ...]  # runs that the law is fitted to
    foretold: RunSettings  # the run that is trained only after its loss was foretold
    plan: Mapping[str, Any]  # the content of plan.json

    @property
    def key(self) -> str:
        """Digest of all runs."""
        return digest_json([run.key for run in (*self.runs, self.foretold)])[:32]

    def reports(self) -> list[dict[str, Any]]:
        """Return the reports of the finished runs that the law is fitted to, in the plan's order."""
        found = (self.report(run) for run in self.runs)
        return [report for report in found if report is not None]

    def report(self, run: RunSettings) -> dict[str, Any] | None:
        """Return the report of a run, or None where it is not finished. Raises CheckpointError for one that is damaged."""
        path = self.file_of(run.key)
        return _read(path) if path.exists() else None

    def file_of(self, key: str) -> Path:
        """Return the file of a run's report, which is there once the run is finished."""
        return self.folder / RUNS / f"{key}.json"

    def begun(self, run: RunSettings) -> bool:
        """Whether a run was ever begun, finished or not."""
        return self.file_of(run.key).exists() or (self.folder / WORK / run.key).exists()

    def bits(self, run: RunSettings) -> npt.NDArray[np.float64]:
        """Return a finished run's bits of each held-out text."""
        bits: npt.NDArray[np.float64] = np.load(self.folder / TEXTS / f"{run.key}.npy", allow_pickle=False)
        return bits


def check_sweep_name(name: str) -> None:
    """Raises ConfigError for a name that a sweep can't have."""
    if check_name(name) == PREPARED:
        raise ConfigError("NAME", f"must not be {PREPARED}: that folder holds the text of all sweeps", name, "Choose another name.")


def keep_plan(home: Home, name: str, settings: SweepSettings, prepared: Prepared, more: Mapping[str, Any]) -> Sweep:
    """Keep a plan under a name. The same plan may be kept again. Raises ConfigError where the name has another plan."""
    check_sweep_name(name)
    runs, foretold = tuple(runs_of(settings, prepared)), foretold_of(settings, prepared)
    folder = home.scaling / name
    plan = {
        "version": VERSION,
        "name": name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": to_table(settings),
        "prepared": Path(prepared.folder).name,
        "data": prepared.digest,
        "runs": [_listed(run) for run in runs],
        "foretold": _listed(foretold),
        **more,
    }
    sweep = Sweep(name, folder, settings, prepared, runs, foretold, plan)
    if (folder / PLAN).exists() and (before := open_sweep(home, name)).key != sweep.key and (before.folder / RUNS).exists():
        cure = f"Give it another name, for example: ingle scale plan {name}2"
        raise ConfigError(name, "has runs by another plan already", f"{len(before.reports())} runs", cure)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / PLAN, to_json(plan), mode=0o600)
    return sweep


def open_sweep(home: Home, name: str) -> Sweep:
    """Open a planned sweep. Raises NotKept, CheckpointError."""
    folder = home.scaling / check_name(name)
    if not (folder / PLAN).exists():
        raise NotKept(name, "is no sweep of this home", "", f"Plan one: ingle scale plan {name} --minutes 20")
    plan = _read(folder / PLAN)
    settings = from_table(SweepSettings, plan["settings"])
    prepared = find_prepared(home.scaling / PREPARED / plan["prepared"])
    if prepared.digest != plan["data"]:
        raise CheckpointError(name, "was planned for another state of its text", prepared.digest[:12], "Plan it anew under another name.")
    return Sweep(name, folder, settings, prepared, tuple(runs_of(settings, prepared)), foretold_of(settings, prepared), plan)


def fit_sweep(sweep: Sweep) -> tuple[Fit, Prediction, dict[str, Any]]:
    """Fit the law to the finished runs, foretell the larger run, and keep both; return fit, prediction and the kept table.

    Raises ConfigError for too few runs.
    """
    reports = sweep.reports()
    if not reports:
        raise ConfigError(sweep.name, "has no finished runs", "", f"Train them first: ingle scale run {sweep.name}")
    points, run = [point_of(report) for report in reports], sweep.foretold
    found = fit_points(points, forms_for(points, [run.place]))
    [prediction] = found.predict([run.place])
    missing = len(sweep.runs) - len(reports)
    notes = [f"{missing} of {len(sweep.runs)} runs are not finished: the law is of the others"] if missing else []
    table = found.table() | {"prediction": prediction.table() | _listed(run), "missing": missing}
    table["notes"] = [*table["notes"], *notes]
    write_atomic(sweep.folder / FITTED, to_json(table))
    keep_curves(sweep.folder, found, {report["key"]: point_of(report) for report in reports}, run.place, sweep.prepared.tokens)
    return found, prediction, table


def run_sweep(
    home: Home, sweep: Sweep, runs: Sequence[RunSettings], runner: str = "local", workers: int = 0, address: str = "",
    watch: RunWatch = RunWatch(), sink: Sink = silent,  # noqa: B008 - frozen
) -> list[dict[str, Any]]:  # fmt: skip
    """Make those of the runs that are not finished, and return the reports of all. `sink` hears each new run; one that a kill
    hit at that moment, again.

    Raises ConfigError, TrainError, HomeError, and Interrupted after Ctrl-C; the same call then goes on.
    """
    with home.lock(f"scaling-{sweep.name}", watch.say, 0.0), stop_signals() as stop:
        missing = [run for run in runs if sweep.report(run) is None]
        if missing:
            course = _Course(sweep, runs, watch, sink)
            jobs = jobs_of(sweep, missing)
            find_runner(runner)(jobs, workers, course.hear, lambda: stop.asked, address)
        (sweep.folder / PROGRESS).unlink(missing_ok=True)
    reports = [sweep.report(run) for run in runs]
    return [report for report in reports if report is not None]


def jobs_of(sweep: Sweep, runs: Iterable[RunSettings]) -> list[dict[str, Any]]:
    """Return the climbs of these runs as jobs for a worker, the longest first."""
    work = str(sweep.folder / WORK)
    return [{"call": "climb", "runs": to_table(climb), "prepared": sweep.prepared.folder, "work": work} for climb in climbs_of(runs)]


class _Course:
    """Takes the messages of a sweep's workers."""

    def __init__(self, sweep: Sweep, runs: Sequence[RunSettings], watch: RunWatch, sink: Sink) -> None:
        self._sweep, self._runs, self._watch, self._sink = sweep, runs, watch, sink
        self._running = dict[int, dict[str, Any]]()
        self._own = {run.key: (run.flops * share, share) for climb in climbs_of(runs) for run, share in climb_shares(climb)}
        self._began, self._told, self._said = time.monotonic(), 0.0, time.monotonic()
        self._at_first = self._done()

    def hear(self, number: int, header: dict[str, Any], data: bytes) -> None:
        """Hear a message: a step, a sentence, or a finished run, which is kept."""
        if header["kind"] == "say":
            self._watch.say(header["text"])
        elif header["kind"] == "step":
            self._running[number] = header
            self._tell()
        elif header["kind"] == "run":
            self._running.pop(number, None)
            self._keep(header["report"], data)

    def _keep(self, report: dict[str, Any], data: bytes) -> None:
        folder, path = self._sweep.folder, self._sweep.file_of(report["key"])
        for part in (RUNS, TEXTS):
            (folder / part).mkdir(mode=0o700, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, np.frombuffer(data, np.float64))
        write_atomic(folder / TEXTS / f"{report['key']}.npy", buffer.getvalue())
        if not path.exists():
            self._sink(run_event(self._sweep.name, report))  # first: after a kill between the two it is told again, and never missing
        write_atomic(path, to_json(report), mode=0o600)
        write_atomic(folder / CSV, write_points([point_of(one) for one in self._sweep.reports()]).encode())
        self._watch.say(f"{report['label']}: {report['loss']:.4f} {report['unit']}, {report['seconds']:.0f} s")
        self._tell(now=True)

    def _done(self) -> float:
        """FLOPs that are done, of those in `_own`."""
        finished = [key for key in self._own if self._sweep.file_of(key).exists()]
        running = [self._own[one["key"]][0] * self._share(one) for one in self._running.values()]
        return math.fsum([self._own[key][0] for key in finished] + running)

    def _share(self, header: Mapping[str, Any]) -> float:
        """Share of a running run's own steps that is done."""
        own = self._own[header["key"]][1]
        share: float = max(0.0, (header["step"] / header["steps"] - 1 + own) / own)
        return share

    def _tell(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._told < _TOLD_EVERY_S:
            return
        self._told = time.monotonic()
        whole, done = sum(flops for flops, _ in self._own.values()), self._done()
        seconds = self._told - self._began
        new = done - self._at_first
        left = seconds * (whole - done) / new if new > 0 else None
        finished = sum(self._sweep.file_of(run.key).exists() for run in self._runs)
        labels = [one["label"] for one in self._running.values()]
        table = {"done": finished, "of": len(self._runs), "share": done / whole, "running": labels, "seconds_left": left}
        write_atomic(self._sweep.folder / PROGRESS, json.dumps(table).encode())
        self._watch.pieces(f"runs of {self._sweep.name}", finished, len(self._runs))
        if left is not None and self._told - self._said > _SAID_EVERY_S:
            self._said = self._told
            self._watch.say(f"{finished} of {len(self._runs)} runs, about {left / 60:.0f} minutes left")


def run_event(name: str, report: Mapping[str, Any]) -> Event:
    """Event of a finished run, for the ledger. A branch has the energy of its own steps alone: the trunk's counts once."""
    names = ("key", "parameters", "tokens", "unique", "seed", "loss", "bits_digest")
    own = Energy(**report["energy"]).scaled(own_share(report))
    facts: dict[str, Fact] = {name: report[name] for name in names} | {"seconds": report["seconds"] * own_share(report)}
    return Event(RUN, name, facts | {"outcome": outcome(report)} | own.facts())


def _listed(run: RunSettings) -> dict[str, Any]:
    names: tuple[str, ...] = ("key", "label", "size", "kind", "parameters", "tokens", "unique", "flops")
    return {name: getattr(run, name) for name in names} | {"seed": run.train.seed}


def _read(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        cure = "Delete the file; the run is made again."
        raise CheckpointError(str(path), "must be a report of this sweep", error, cure) from error
    return table
