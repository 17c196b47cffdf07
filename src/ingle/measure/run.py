"""Measuring with a suite: read the data, ask the model, report; and compare with another model's results on the same items."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.event import Event, Fact
from ingle.core.files import write_atomic
from ingle.core.report import Report
from ingle.home import fetch
from ingle.home.place import Home
from ingle.measure.bits import TextBits
from ingle.measure.choice import Style
from ingle.measure.choice import columns as right_columns
from ingle.measure.finished import Finished, Row
from ingle.measure.forgetting import forgetting
from ingle.measure.gather import ItemPlan, Progress, gather, silent
from ingle.measure.intervals import mcnemar, paired_bootstrap, sign_test
from ingle.measure.items import draw_shots, part
from ingle.measure.kinds import KINDS
from ingle.measure.setting import Setting
from ingle.measure.subject import Subject
from ingle.measure.suites import Suite, find_suite


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a measurement."""

    items: int | None = None
    """Most items; None = the suite's number, 0 = all that are held out."""
    shots: int = 0
    """Examples in every prompt, from the training part."""
    style: Style | None = None
    """How answers are scored; None = the suite's style."""
    seed: int = 0
    """Seed of examples and resamples."""

    def __post_init__(self) -> None:
        for name, value in (("items", self.items), ("shots", self.shots), ("seed", self.seed)):
            if value is not None and value < 0:
                raise ConfigError(name, "must not be below 0", value)


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """A finished measurement."""

    suite: str
    model: str
    reports: tuple[Report, ...]
    """Reports; the first stands for the suite."""
    rows: tuple[Row, ...]
    """Each item: `id`, `asked` (a digest of question and right answer), and its values."""
    notes: tuple[str, ...]
    options: Options

    @property
    def main(self) -> Report:
        """The figure that stands for the suite."""
        return self.reports[0]


def run_suite(
    home: Home, suite: Suite, subject: Subject, options: Options, progress: Progress = silent, fetching: fetch.FetchProgress = fetch.silent
) -> SuiteResult:
    """Measure `subject`. Items that were finished before are not asked again.

    Raises the errors of fetching the data, ConfigError if there is nothing to measure or the options don't fit the suite, Interrupted.
    """
    setting = make_setting(suite, subject, suite.read(home, fetching), options)
    plan, report = KINDS[suite.kind]
    plans = plan(setting)
    data_digest = digest_json([[p.id, p.asked] for p in plans])
    rows = gather(subject, plans, Finished(home, suite.name, subject.digest), suite.name, progress)
    figures = report(setting, rows, data_digest)
    details = tuple({"id": p.id, "asked": _question_digest(p), **row} for p, row in zip(plans, figures.details, strict=True))
    return SuiteResult(suite.name, subject.name, figures.reports, details, figures.notes, options)


def make_setting(suite: Suite, subject: Subject, items: Sequence[Any], options: Options) -> Setting:
    """Choose the items to measure, and the examples. Raises ConfigError."""
    if options.style is not None and suite.kind != "choice":
        raise ConfigError("style", "is only for suites with answers to choose from", suite.name)
    if options.shots and suite.kind not in ("choice", "write"):
        raise ConfigError("shots", "are only for suites with questions", suite.name)
    training, measured = (part(items, which, suite.held_out) for which in ("train", "held_out"))
    count = suite.items if options.items is None else options.items
    measured = measured[: count or None]
    if not measured:
        raise ConfigError("items", "must be held out to be measured on", f"none of {len(items)}", "Choose another suite.")
    shots = draw_shots(items, suite.held_out, options.shots, options.seed)
    if len(shots) < options.shots:
        raise ConfigError("shots", f"must be at most {len(shots)}, one for each document of the training part", options.shots)
    return Setting(suite, subject, measured, shots, training, options.style or suite.style, options.seed)


def to_table(outcome: SuiteResult, with_rows: bool = False) -> dict[str, Any]:
    """Return plain values, for JSON."""
    main = outcome.main
    table: dict[str, Any] = {"suite": outcome.suite, "model": outcome.model, "model_digest": main.model_digest}
    table |= {"data_digest": main.data_digest, "options": asdict(outcome.options), "reports": [asdict(r) for r in outcome.reports]}
    table["notes"] = list(outcome.notes)
    return table | {"rows": list(outcome.rows)} if with_rows else table


def save(outcome: SuiteResult, path: Path) -> None:
    """Write the outcome with every item. Raises HomeError."""
    write_atomic(path, json.dumps(to_table(outcome, with_rows=True), ensure_ascii=False, indent=1).encode() + b"\n")


def event_of(outcome: SuiteResult) -> Event:
    """Event of this measurement, for the ledger."""
    main = outcome.main
    facts: dict[str, Fact] = {
        "suite": outcome.suite,
        "figure": main.name,
        "unit": main.unit,
        "value": main.value,
        "low": main.low,
        "high": main.high,
    }
    facts |= {"n": main.n, "interval": main.interval, "seed": main.seed, "shots": outcome.options.shots}
    facts |= {report.name: report.value for report in outcome.reports[1:] if report.model_digest}
    return Event("measure", outcome.model, {**facts, "model_digest": main.model_digest, "data_digest": main.data_digest})


def load_rows(path: Path) -> tuple[str, dict[str, Row]]:
    """Read a file that `save` wrote: its suite, and its rows by `asked`. Raises ConfigError for anything else."""
    try:
        table = json.loads(path.read_text("utf-8"))
        return str(table["suite"]), {row["asked"]: row for row in table["rows"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = getattr(error, "strerror", None) or error
        raise ConfigError(str(path), "must be a file that `ingle measure --out` wrote", got) from error


def compare(outcome: SuiteResult, path: Path) -> SuiteResult:
    """Return the outcome with its difference from an earlier one, paired by item, after its reports.

    Raises ConfigError for another suite, or if no item was asked alike.
    """
    name, earlier = load_rows(path)
    now = {row["asked"]: row for row in outcome.rows}
    shared = [question for question in now if question in earlier]
    if name != outcome.suite or not shared:
        raise ConfigError(str(path), f"must hold items of {outcome.suite}, asked alike", f"{name}, {len(shared)} in common")
    suite, main, seed = find_suite(name), outcome.main, outcome.options.seed
    before, after = [earlier[question] for question in shared], [now[question] for question in shared]
    if suite.kind == "bits":
        lost = forgetting(_texts(before, shared), _texts(after, shared), seed)
        reports = lost.reports(main.model_digest, main.data_digest, seed)
        note = f"{lost.worse} of {lost.n} documents cost more bits than before (sign test: p = {lost.sign_p:.3g})"
    else:
        tables = [np.array([float(row[main.name]) for row in rows]) for rows in (before, after)]
        difference = paired_bootstrap(right_columns(tables[0].tolist()), right_columns(tables[1].tolist()), seed=seed)
        low, high, method = difference.interval.low, difference.interval.high, difference.interval.method
        changed = Report(
            f"{main.name}_change", difference.value, main.unit, low, high, len(shared), main.model_digest, main.data_digest, method, seed
        )
        reports = (changed,)
        if suite.kind in ("choice", "pairs"):
            note = f"{main.name}: McNemar's exact test against {path.name}: p = {mcnemar(tables[0] > 0, tables[1] > 0):.3g}"
        else:
            note = f"{main.name}: sign test against {path.name}: p = {sign_test(tables[1] - tables[0]):.3g}"
    return replace(outcome, reports=(*outcome.reports, *reports), notes=(*outcome.notes, note))


def _texts(rows: Sequence[Row], names: Sequence[str]) -> Mapping[str, TextBits]:
    keys = TextBits.__dataclass_fields__
    return {name: TextBits(**{key: row[key] for key in keys}) for name, row in zip(names, rows, strict=True)}


def _question_digest(plan: ItemPlan) -> str:
    return digest_json(plan.asked)[:32]
