"""Judging a change: the model before and after it, as it is served, on held-out examples and on general text, item by item.

It measures the model that answers questions: the packed weights, and the delta merged or beside them, through the engine. So a delta that
was kept wrongly, or that serving leaves out, shows here.
"""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import IngleError, Interrupted
from ingle.core.files import os_errors
from ingle.core.message import ROLES, Request, Sampling
from ingle.core.progress import FetchProgress, Progress, silent
from ingle.core.report import NO_INTERVAL, Event, Fact, Report, shown_interval
from ingle.engine.loading import open_model
from ingle.engine.packs import Source
from ingle.home.place import Home
from ingle.measure.figures import TextBits, forgetting
from ingle.measure.intervals import bootstrap, paired_bootstrap, ratio
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.subjects import Finished, ItemPlan, Row, Subject, gather
from ingle.measure.suites import find_suite
from ingle.model.tokenizer import Tokenizer
from ingle.train.example_files import Document
from ingle.train.making import cost_rows, figure_facts, training_facts
from ingle.train.packing import Data
from ingle.tuning.kept_model import subject_of
from ingle.tuning.tune_settings import JudgeSettings

# Samples: a few held-out examples in words, with the question, the reference, and the model's answers before and after.


_BEGUN = 24  # tokens of a text, which has no question, that the model is given to go on from


@dataclass(frozen=True, slots=True)
class Sample:
    """One held-out example, answered by the model before and after."""

    asked: str
    wanted: str
    before: str
    after: str


def answers(subject: Subject, documents: Sequence[Document], most_tokens: int) -> tuple[str, ...]:
    """The model's likeliest answers to these examples. Raises Interrupted."""
    greedy = Sampling(temperature=0.0, seed=0)
    requests = [Request(prompt=tuple(_prompt(one)), max_tokens=most_tokens, sampling=greedy) for one in documents]
    by_number = dict(subject.write(requests))
    if len(by_number) < len(requests):
        raise Interrupted("tune", "was interrupted", "while samples were answered", "Run the same command to go on from there.")
    return tuple(by_number[number].strip() for number in range(len(requests)))


def samples(
    tokenizer: Tokenizer, documents: Sequence[Document], before: Sequence[str], after: Sequence[str], most_tokens: int
) -> list[Sample]:
    """Return the examples with both answers, in words."""
    shown = []
    for document, first, second in zip(documents, before, after, strict=True):
        prompt = _prompt(document)
        reference = [int(token) for token in document.ids[len(prompt) :][:most_tokens] if token not in tokenizer.control_ids]
        shown.append(Sample(_question(tokenizer, prompt), tokenizer.decode(reference).strip(), first, second))
    return shown


def _prompt(document: Document) -> list[int]:
    """Token ids up to the first answer; of a text its beginning."""
    first = int(document.answer.argmax())
    if first <= 1 and len(document.ids) > 2:
        first = min(_BEGUN, len(document.ids) // 2)
    return [int(token) for token in document.ids[:first]]


def _question(tokenizer: Tokenizer, prompt: Sequence[int]) -> str:
    """Text of the prompt's last turn, without the template's marks around it."""
    parts: list[list[int]] = [[]]
    for token in prompt:
        if token in tokenizer.control_ids:
            parts.append([])
        else:
            parts[-1].append(token)
    texts = [text for part in parts if (text := tokenizer.decode(part).strip())]
    turns = [text.removeprefix(next((role for role in ROLES if text.startswith(f"{role}\n")), "")).strip() for text in texts]
    return next((text for text in reversed(turns) if text and text not in ROLES), "")


HELD_OUT, SAMPLES = "held-out", "samples"
LEAST_FALL = 0.02  # least share by which the held-out loss must fall, or nothing was learned
NOTHING = (
    "Warning: nothing was learned that shows on held-out examples: loss {:.4f} before, {:.4f} after (n = {}). Train longer (--epochs 20), "
    "with a higher rate (--rate 1e-3), or give more examples that have something in common"
)
MOST_APART = 0.5  # share by which the loss changes in training and in serving may differ without a note


@dataclass(frozen=True, slots=True)
class Standing:
    """Results of measuring one model."""

    digest: str  # digest of the model as it is served
    general: SuiteResult | None
    held_out: tuple[Row, ...]  # `nats` and `tokens` of each document
    data_digest: str  # digest of the held-out documents
    answers: tuple[str, ...] = ()  # answers to the first few of them


@dataclass(frozen=True, slots=True)
class Judgement:
    """Comparison of two standings."""

    reports: tuple[Report, ...]
    notes: tuple[str, ...]
    learned: bool | None = None  # whether the held-out loss fell enough; None if nothing was held out


def sample(data: Data, most: int) -> list[Document]:
    """Choose at most so many of the held-out documents, by a hash of their records. None where an example has several documents."""
    corpus = data.corpus
    if corpus.per_example > 1:
        return []
    chosen = sorted(data.held_out, key=lambda i: (digest_json(["judge", corpus.sources[i]]), i))[:most]
    return [corpus.document(i) for i in chosen]


def stand(
    home: Home, source: Source, documents: Sequence[Document], settings: JudgeSettings, stopped: Callable[[], bool],
    progress: Progress = silent, fetching: FetchProgress = silent,
) -> Standing | None:  # fmt: skip
    """Measure a model that is kept, or might be; None if nothing is to be measured. Earlier results are used again.

    Raises the errors of opening the model and fetching the text, and Interrupted.
    """
    if not settings.forgetting and not documents:
        return None
    model = open_model(source, settings.format, settings.threads, progress=progress)
    subject = subject_of(model, stopped)
    own_progress = progress_of(source.name, progress)
    plans = [_plan(i, document) for i, document in enumerate(documents)]
    rows = gather(subject, plans, Finished(home, HELD_OUT, subject.digest), "held-out examples", own_progress) if plans else []
    general = None
    if settings.forgetting:
        options = Options(items=settings.forgetting, seed=settings.seed)
        general = run_suite(home, find_suite(settings.general), subject, options, own_progress, fetching)
    own_progress(SAMPLES, 0, 1)
    answered = (
        answers(subject, documents[: settings.samples], settings.sample_tokens) if settings.samples and settings.sample_tokens else ()
    )
    return Standing(subject.digest, general, tuple(rows), digest_json([plan.asked for plan in plans]), answered)


def progress_of(name: str, progress: Progress) -> Progress:
    """Report progress with the model's name, so that before and after can be told apart."""
    return lambda label, done, total: progress(f"measuring {name}: {label}", done, total)


def judge(before: Standing | None, after: Standing | None, settings: JudgeSettings, trained_change: float | None = None) -> Judgement:
    """Compare the model before and after, with intervals, paired by document. `trained_change`: of the held-out loss in training."""
    reports: list[Report] = []
    notes: list[str] = []
    if before is None or after is None:
        return Judgement((), ("the model was not measured as it is served",))
    learned = None
    if after.held_out:
        reports += _held_out(before, after, settings.seed)
        learned = reports[0].value - reports[1].value >= LEAST_FALL * reports[0].value and not _by_chance(reports[2])
        if not learned:
            notes.append(NOTHING.format(reports[0].value, reports[1].value, len(after.held_out)))
        notes += _disagreement(reports[-1], trained_change)
        if all(a["nats"] == b["nats"] for a, b in zip(before.held_out, after.held_out, strict=True)):
            notes.append("the change makes no difference to any held-out example when the model is served: something is wrong")
    if before.general is None or after.general is None:
        notes.append("forgetting was not measured")
        return Judgement(tuple(reports), tuple(notes), learned)
    texts = [{str(row["asked"]): _bits(row) for row in side.rows} for side in (before.general, after.general)]
    lost, data_digest = forgetting(texts[0], texts[1], settings.seed), after.general.main.data_digest
    earlier, later = before.general.main, after.general.main
    reports += [replace(earlier, name="general_bits_per_byte_before"), replace(later, name="general_bits_per_byte")]
    reports += lost.reports(after.digest, data_digest, settings.seed)
    notes.append(f"{lost.worse} of {lost.n} general texts cost more bits than before (sign test: p = {lost.sign_p:.3g})")
    return Judgement(tuple(reports), tuple(notes), learned)


def _by_chance(change: Report) -> bool:
    """Whether the interval of the change holds 0. One item has none."""
    return change.interval != NO_INTERVAL and change.high >= 0


def _disagreement(served: Report, trained_change: float | None) -> list[str]:
    """Note that serving shows much less, or more, of the change in training."""
    if trained_change is None or served.low <= trained_change <= served.high:
        return []
    if abs(served.value - trained_change) <= max(0.1, MOST_APART * abs(trained_change)):
        return []
    return [f"the held-out loss changed by {served.value:+.3f} nats a token when served, but by {trained_change:+.3f} in training"]


def _held_out(before: Standing, after: Standing, seed: int) -> list[Report]:
    first, second = (np.array([[row["nats"], row["tokens"]] for row in side.held_out], np.float64) for side in (before, after))
    reports = []
    for name, side, columns in (("held_out_loss_before", before, first), ("held_out_loss", after, second)):
        interval, value = bootstrap(columns, seed=seed), float(ratio(columns.sum(axis=0)))
        where = (len(columns), side.digest, after.data_digest, interval.method, seed)
        reports.append(Report(name, value, "nats/token", interval.low, interval.high, *where))
    change = paired_bootstrap(first, second, seed=seed)
    where = (len(first), after.digest, after.data_digest, change.interval.method, seed)
    return [*reports, Report("held_out_loss_change", change.value, "nats/token", change.interval.low, change.interval.high, *where)]


def _plan(number: int, document: Document) -> ItemPlan:
    ids, first = document.ids.tolist(), int(document.answer.argmax())
    counted = document.answer[first:]
    question = digest_json([ids, np.flatnonzero(document.answer).tolist()])

    def scored(parts: Sequence[Sequence[Any]]) -> Row:
        [[nats]] = parts
        total = -float(nats[counted].sum())
        if not np.isfinite(total):
            raise IngleError(
                "log-probability", "must be a finite number", total, "The model computes NaN, or gives a token no chance at all."
            )
        return {"nats": total, "tokens": int(counted.sum())}

    return ItemPlan(str(number), question, question, ((ids[:first], (ids[first:],)),), scored)


def _bits(row: Row) -> TextBits:
    return TextBits(**{key: row[key] for key in TextBits.__dataclass_fields__})


# Reports of a tuning run: `report.json` beside the delta, and facts for the ledger.


VERSION = 1
POINTS = 400  # most points of a curve; longer ones are thinned out
_FIGURES = ("held_out_loss", "held_out_loss_change", "general_bits_per_byte", "forgetting", "forgetting_relative")


def curve(path: Path) -> dict[str, list[list[float]]]:
    """Read loss and held-out loss by step from a run's loss.csv; the loss is thinned out evenly."""
    if not path.exists():
        return {"loss": [], "held_out": []}
    with os_errors(path), path.open(encoding="utf-8", newline="") as file:
        rows = [(int(row["step"]), float(row["loss"]), float(row["held_out"])) for row in csv.DictReader(file)]
    every = max(1, math.ceil(len(rows) / POINTS))
    loss = [[step, value] for i, (step, value, _) in enumerate(rows) if i % every == 0 or i == len(rows) - 1]
    return {"loss": loss, "held_out": [[step, value] for step, _, value in rows if not math.isnan(value)]}


def trained_change(report: Mapping[str, Any]) -> float | None:
    """Change of the held-out loss in training. None if nothing was held out, or if the objective is not the cross-entropy of the answers,
    which is measured when a model is served.
    """
    if report["settings"]["objective"]["kind"] != "answers":
        return None
    before, after = (report["held_out"][side] for side in ("before", "after"))
    return None if before is None or after is None else float(after - before)


def with_judgement(report: Mapping[str, Any], judgement: Judgement, samples: Sequence[Sample] = ()) -> dict[str, Any]:
    """Return the report with the judgement of the served model, and sample answers."""
    notes, shown = [*report["notes"], *judgement.notes], [asdict(one) for one in samples]
    return {**report, "served": [asdict(one) for one in judgement.reports], "learned": judgement.learned, "samples": shown, "notes": notes}


def figure(report: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """One figure of the served model, as a table like `core.report.Report`; None if it was not measured."""
    return next((dict(one) for one in report.get("served", ()) if one["name"] == name), None)


def trained_event(report: Mapping[str, Any]) -> Event:
    """Event of a new delta, for the ledger."""
    facts: dict[str, Fact] = {name: report[name] for name in ("method", "kind", "delta", "base", "data_digest", "examples", "seed")}
    facts |= {"trained_parameters": report["train"]["trained_parameters"], "modules": report["modules"]["touched"]}
    facts |= training_facts(report)
    return Event("tune", report["model"], facts)


def judged_event(report: Mapping[str, Any]) -> Event | None:
    """Event of judging the model with the delta, as served; None if that was not measured."""
    facts: dict[str, Fact] = {}
    for name in _FIGURES:
        if one := figure(report, name):
            facts |= {**figure_facts(name, one), "model_digest": one["model_digest"]}
    return Event("tune.judge", report["model"], {"delta": report["delta"], **facts}) if facts else None


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows (figure, before, after, interval of the change), for people."""
    train, modules = report["train"], report["modules"]
    table = [("loss, training", _number(train["first_loss"]), _number(train["loss"]), "")]
    before, after = report["held_out"]["before"], report["held_out"]["after"]
    if before is not None:
        table.append((f"loss, held out (n = {report['held_out_examples']})", _number(before), _number(after), ""))
    pairs = (
        ("loss, held out, as served", "held_out_loss_before", "held_out_loss", "held_out_loss_change"),
        ("bits/byte of general text (forgetting)", "general_bits_per_byte_before", "general_bits_per_byte", "forgetting"),
    )
    for label, *names in pairs:
        figures = [figure(report, name) for name in names]
        if None not in figures:
            first, second, change = (one for one in figures if one)
            table.append(
                (label, _number(first["value"]), _number(second["value"]), f"{change['value']:+.4f} ({shown_interval(change, '+.4f')})")
            )
    share = 100 * train["trained_parameters"] / report["model_parameters"]
    return [
        *table,
        ("parameters trained", "", f"{train['trained_parameters']:,}", f"{share:.2f} % of {report['model_parameters']:,}"),
        ("parts touched", "", f"{modules['touched']} of {modules['intended']}", ""),
        *((label, "", value, more) for label, value, more in cost_rows(train)),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
