"""Judging a change: the model before and after it, as it is served, on held-out examples and on general text, item by item.

It measures the model that answers questions: the packed weights, and the delta merged or beside them, through the engine. So a delta that
was kept wrongly, or that serving leaves out, shows here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import IngleError
from ingle.core.report import NO_INTERVAL, Report
from ingle.engine.loading import open_model
from ingle.engine.packs import Source
from ingle.home import fetch
from ingle.home.place import Home
from ingle.measure.figures import TextBits, forgetting
from ingle.measure.intervals import bootstrap, paired_bootstrap, ratio
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.subjects import Finished, ItemPlan, Progress, Row, gather, silent
from ingle.measure.suites import find_suite
from ingle.train.encode import Document
from ingle.train.packing import Data
from ingle.tuning.kept_model import subject_of
from ingle.tuning.samples import answers
from ingle.tuning.settings import JudgeSettings

HELD_OUT, SAMPLES = "held-out", "samples"
LEAST_FALL = 0.02
"""Least share by which the held-out loss must fall, or nothing was learned."""
NOTHING = (
    "Warning: nothing was learned that shows on held-out examples: loss {:.4f} before, {:.4f} after (n = {}). Train longer (--epochs 20), "
    "with a higher rate (--rate 1e-3), or give more examples that have something in common"
)
MOST_APART = 0.5
"""Share by which the loss changes in training and in serving may differ without a note."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Results of measuring one model."""

    digest: str
    """Digest of the model as it is served."""
    general: SuiteResult | None
    held_out: tuple[Row, ...]
    """`nats` and `tokens` of each document."""
    data_digest: str
    """Digest of the held-out documents."""
    answers: tuple[str, ...] = ()
    """Answers to the first few of them."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Comparison of two standings."""

    reports: tuple[Report, ...]
    notes: tuple[str, ...]
    learned: bool | None = None
    """Whether the held-out loss fell enough; None if nothing was held out."""


def sample(data: Data, most: int) -> list[Document]:
    """Choose at most so many of the held-out documents, by a hash of their records. None where an example has several documents."""
    corpus = data.corpus
    if corpus.per_example > 1:
        return []
    chosen = sorted(data.held_out, key=lambda i: (digest_json(["judge", corpus.sources[i]]), i))[:most]
    return [corpus.document(i) for i in chosen]


def stand(
    home: Home, source: Source, documents: Sequence[Document], settings: JudgeSettings, stopped: Callable[[], bool],
    progress: Progress = silent, fetching: fetch.FetchProgress = fetch.silent,
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
