"""Measuring with a suite: read the data, ask the model, report; and compare with another model's results on the same items."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.core.message import Message, Request, Sampling
from ingle.core.progress import FetchProgress, Progress, silent
from ingle.core.report import Event, Fact, Report
from ingle.home.place import Home
from ingle.measure import figures, subjects, suites
from ingle.measure.data_sets import Exercise, Question, Text, draw_shots, part
from ingle.measure.figures import Figures, Reporter, Setting, TextBits, forgetting, plan_pairs, report_names, report_pairs, with_ones
from ingle.measure.intervals import Interval, mcnemar, paired_bootstrap, sign_test
from ingle.measure.subjects import Finished, ItemPlan, Row, Style, Subject, begin_id, gather
from ingle.measure.subjects import choice_columns as right_columns
from ingle.measure.suites import Suite, find_suite

# Kinds of suites: how each is planned for a model, and the figures from its rows.


UNITS = {**dict.fromkeys(figures.ROUGE, "F1"), "chrf": "chrF2", "exact_match": "share"}  # units of the metrics of written answers


def plan_bits(setting: Setting) -> list[ItemPlan]:
    """Plan documents in windows that fit the model."""
    subject = setting.subject
    window, begin = min(figures.WINDOW_TOKENS, subject.context_length), begin_id(subject.tokenizer)
    plans = []
    for item in setting.items:
        assert isinstance(item, Text)
        reading = figures.read_text(subject.tokenizer, item.text, begin, window)
        key = digest_json(["bits", item.text, begin, window, figures.CARRY])

        def scored(parts: Sequence[Any], reading: figures.TextReading = reading) -> Row:
            return asdict(reading.bits(parts))

        plans.append(ItemPlan(item.id, key, [item.text], reading.tasks, scored))
    return plans


def report_bits(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report the micro average, and the macro average over documents."""
    texts = [figures.TextBits(**row) for row in rows]
    make = Reporter(setting, data_digest, len(texts))
    tables = {"bits_per_byte": figures.columns(texts), "bits_per_byte_macro": figures.macro_columns(texts)}
    reports = tuple(make.ratio(name, "bits/byte", table) for name, table in tables.items())
    changed = sum(not text.exact for text in texts)
    begin = setting.subject.tokenizer.fast.id_to_token(begin_id(setting.subject.tokenizer))
    notes = [f"{sum(text.nbytes for text in texts):,} bytes; the first token of each text is conditional on {begin}"]
    if changed:
        notes.append(f"{changed} texts have characters that this vocabulary can't spell: their bits are too low")
    return Figures(reports, tuple(asdict(text) for text in texts), tuple(notes))


def plan_choice(setting: Setting) -> list[ItemPlan]:
    """Plan questions with their answers as endings."""
    subject, plans = setting.subject, []
    for item in setting.items:
        assert isinstance(item, Question)
        prompt = subjects.make_prompt(item, setting.suite.stem, setting.style, setting.shots)
        task, cut = subjects.make_task(subject.tokenizer, prompt, subject.context_length)
        inputs = [prompt.given, list(prompt.endings), item.gold]

        def scored(parts: Any, item: Question = item, prompt: subjects.Prompt = prompt, cut: bool = cut) -> Row:
            return {**asdict(subjects.read_scores(item, prompt, parts[0])), "cut": cut}

        plans.append(ItemPlan(item.id, digest_json(["choice", *inputs, subject.context_length]), inputs, (task,), scored))
    return plans


def report_choice(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report accuracy by the sum of log-probabilities and per byte, and a simple rule's."""
    scores = [subjects.Scores(tuple(row["nats"]), tuple(row["nbytes"]), row["gold"]) for row in rows]
    make = Reporter(setting, data_digest, len(scores))
    answers = {"accuracy": [score.right for score in scores], "accuracy_per_byte": [score.right_per_byte for score in scores]}
    reports = [make.share(name, right) for name, right in answers.items()]
    reports.sort(key=lambda report: report.name != setting.suite.main)
    if setting.suite.baseline == "majority":
        reports.append(make.share("baseline_majority", subjects.majority(setting.training, setting.items), of_model=False))
    elif setting.suite.baseline == "chance":
        chance = sum(1 / len(item.options) for item in setting.items) / len(setting.items)
        reports.append(make.report("baseline_chance", chance, "share", Interval(chance, chance, "exact"), of_model=False))
    reports += _by_kind(setting, data_digest, answers[setting.suite.main])
    cut = sum(row["cut"] for row in rows)
    notes = (f"{cut} prompts were longer than the context and lost their beginning",) if cut else ()
    details = [
        {"nats": s.nats, "nbytes": s.nbytes, "gold": s.gold, "about": item.about, **{name: answers[name][i] for name in answers}}
        for i, (s, item) in enumerate(zip(scores, setting.items, strict=True))
    ]
    return Figures(tuple(reports), tuple(details), notes)


def _by_kind(setting: Setting, data_digest: str, right: Sequence[bool]) -> list[Report]:
    """Report the main figure of each kind of question, where there are several."""
    kinds = {
        item.about: [hit for hit, other in zip(right, setting.items, strict=True) if other.about == item.about] for item in setting.items
    }
    main = setting.suite.main
    return [Reporter(setting, data_digest, len(hits)).share(f"{main}_{kind}", hits) for kind, hits in sorted(kinds.items()) if kind]


def plan_write(setting: Setting) -> list[ItemPlan]:
    """Plan requests in the model's own template, examples as earlier turns, answered greedily."""
    shots = [message for shot in setting.shots for message in (Message.of("user", shot.ask), Message.of("assistant", shot.reference))]
    plans = []
    for item in setting.items:
        assert isinstance(item, Exercise)
        request = Request(
            messages=(*shots, Message.of("user", item.ask)), max_tokens=setting.suite.max_tokens, sampling=Sampling(temperature=0.0, seed=0)
        )
        turns = [[message.role, message.text] for message in request.messages]
        inputs = [turns, item.reference]
        plans.append(ItemPlan(item.id, digest_json(["write", turns, setting.suite.max_tokens]), inputs, request=request))
    return plans


def report_write(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report each metric of the model and of the simple rule, and their distance in the main one."""
    answers, references = [row["text"].strip() for row in rows], [item.reference for item in setting.items]
    simple = [item.baseline for item in setting.items]
    make = Reporter(setting, data_digest, len(rows))
    names, baseline = setting.suite.metrics, setting.suite.baseline.replace("-", "_")
    mine, theirs = figures.scores(names, answers, references), figures.scores(names, simple, references)
    reports = [make.mean(name, UNITS[name], values) for name, values in mine.items()]
    reports += [make.mean(f"{name}_{baseline}", UNITS[name], values, of_model=False) for name, values in theirs.items()]
    main = setting.suite.main
    gap = paired_bootstrap(with_ones(theirs[main]), with_ones(mine[main]), seed=setting.seed)
    reports.append(make.difference(f"{main}_above_{baseline}", UNITS[main], gap))
    notes = []
    if "chrf" in names:
        notes.append(f"chrF2 of all answers together (as papers report it): {figures.corpus_chrf(answers, references):.2f}")
    empty = sum(not answer for answer in answers)
    if empty:
        notes.append(f"{empty} answers are empty")
    details = [{"text": answers[i], "reference": references[i], **{name: float(mine[name][i]) for name in names}} for i in range(len(rows))]
    return Figures(tuple(reports), tuple(details), tuple(notes))


def plan_recall(setting: Setting) -> list[ItemPlan]:
    """Plan texts up to the question, answered greedily."""
    plans, subject = [], setting.subject
    for item in setting.items:
        assert isinstance(item, suites.Planted)
        ids, answer = suites.assemble(subject.tokenizer, item)
        request = Request(prompt=tuple(ids), max_tokens=len(answer) + 2, sampling=Sampling(temperature=0.0, seed=0))
        inputs = [item.id, item.fact.said, item.depth, digest_json(item.texts)]
        plans.append(ItemPlan(item.id, digest_json(["recall", ids, len(answer)]), inputs, request=request))
    return plans


def report_recall(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report the share of facts that were recalled, of all and of each kind."""
    right = [suites.is_recalled(row["text"], item.fact) for row, item in zip(rows, setting.items, strict=True)]
    reports = [Reporter(setting, data_digest, len(rows)).share("recall", right)]
    for kind in suites.KINDS:
        mine = [hit for hit, item in zip(right, setting.items, strict=True) if item.fact.kind == kind]
        if mine:
            reports.append(Reporter(setting, data_digest, len(mine)).share(f"recall_{kind}", mine))
    details = [
        {"text": row["text"], "answer": item.fact.answer, "kind": item.fact.kind, "depth": item.depth, "recall": hit}
        for row, item, hit in zip(rows, setting.items, right, strict=True)
    ]
    return Figures(tuple(reports), tuple(details))


# For each kind: the function that plans it, and the one that reports its rows.
KINDS: dict[str, tuple[Callable[[Setting], list[ItemPlan]], Callable[[Setting, Sequence[Row], str], Figures]]] = {
    "bits": (plan_bits, report_bits),
    "choice": (plan_choice, report_choice),
    "write": (plan_write, report_write),
    "recall": (plan_recall, report_recall),
    "pairs": (plan_pairs, report_pairs),
    "names": (plan_pairs, report_names),
}


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a measurement."""

    items: int | None = None  # most items; None = the suite's number, 0 = all that are held out
    shots: int = 0  # examples in every prompt, from the training part
    style: Style | None = None  # how answers are scored; None = the suite's style
    seed: int = 0  # seed of examples and resamples

    def __post_init__(self) -> None:
        for name, value in (("items", self.items), ("shots", self.shots), ("seed", self.seed)):
            if value is not None and value < 0:
                raise ConfigError(name, "must not be below 0", value)


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """A finished measurement."""

    suite: str
    model: str
    reports: tuple[Report, ...]  # reports; the first stands for the suite
    rows: tuple[Row, ...]  # each item: `id`, `asked` (a digest of question and right answer), and its values
    notes: tuple[str, ...]
    options: Options

    @property
    def main(self) -> Report:
        """The figure that stands for the suite."""
        return self.reports[0]


def run_suite(
    home: Home, suite: Suite, subject: Subject, options: Options, progress: Progress = silent, fetching: FetchProgress = silent
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
