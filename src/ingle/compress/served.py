"""Figures of a model as it is served: predictions, speed, energy and size.

Speed and joules are measured by turns with those of the original, token by token after the same text. Times on a machine drift, so the
figure is the median of the ratios of neighbouring turns.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import ConfigError
from ingle.energy.meter import Span, open_meter
from ingle.engine.answer import write
from ingle.engine.backend import Segment, prefill
from ingle.engine.language_model import LanguageModel
from ingle.engine.scoring import score
from ingle.home.fetch import FetchProgress as Fetching
from ingle.home.place import Home
from ingle.measure.figures import TextBits, forgetting
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.subjects import Progress, Row, Subject
from ingle.measure.suites import find_suite, find_texts


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """Settings of comparing models."""

    texts: str = "wiki-bits"
    """Suite of texts: bits per byte."""
    text_items: int = 40
    """Number of texts."""
    task: str = "hellaswag"
    """Suite of questions: accuracy. Empty = none."""
    task_items: int = 100
    """Number of questions."""
    tokens: int = 96
    """Tokens that are written in a turn, after as many that are read."""
    turns: int = 5
    """Turns of each of the two models."""

    def __post_init__(self) -> None:
        for name in ("text_items", "task_items", "tokens", "turns"):
            if getattr(self, name) < 1:
                raise ConfigError(f"measure.{name}", "must be at least 1", getattr(self, name))
        find_texts(self.texts, "measure.texts")
        if self.task and find_suite(self.task).kind != "choice":
            raise ConfigError("measure.task", "must be a suite with answers to choose from", self.task, "For example hellaswag.")


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of a model's predictions."""

    bits_per_byte: float
    accuracy: float | None
    """Share of right answers; None without a task."""
    accuracy_low: float | None
    accuracy_high: float | None
    digest: str
    """Digest of the model as it answers."""


@dataclass(frozen=True, slots=True)
class QualityLoss:
    """Rise of bits per byte, paired by text, in percent."""

    percent: float
    low: float
    high: float
    texts: int


@dataclass(frozen=True, slots=True)
class ServedStepTimer:
    """Speed and energy of writing, compared with the original."""

    tokens_per_s: float
    """Speed of the median turn."""
    joules_per_token: float
    """Mean over all turns."""
    joules_low: float
    joules_high: float
    energy_source: str
    """Source of the joules, see `core.energy`."""
    speed: float
    """Tokens/s over the original's: the median ratio of neighbouring turns."""
    speed_low: float
    """The smallest of these ratios."""
    speed_high: float
    """The largest of these ratios."""
    joules: float
    """Joules per token over the original's: likewise the median ratio."""


def subject_of(model: LanguageModel, stopped: Callable[[], bool]) -> Subject:
    """Bind an open model to the functions that measures ask for."""
    backend = model.backend
    scorer, writer = partial(score, backend, stopped=stopped, adapter=model.adapter), partial(write, model, stopped=stopped)
    return Subject(model.name, model.digest, backend.config.context_length, model.tokenizer, scorer, writer)


def quality(
    home: Home, model: LanguageModel, settings: MeasureSettings, stopped: Callable[[], bool], progress: Progress, fetching: Fetching
) -> tuple[Quality, Sequence[Row]]:
    """Measure a model's predictions; return them, and the bits of each text for `loss_of`. Earlier results are used again.

    Raises the errors of fetching the data and asking the model, and Interrupted.
    """
    subject = subject_of(model, stopped)
    texts = run_suite(home, find_suite(settings.texts), subject, Options(items=settings.text_items), progress, fetching)
    task: SuiteResult | None = None
    if settings.task:
        task = run_suite(home, find_suite(settings.task), subject, Options(items=settings.task_items), progress, fetching)
    right = None if task is None else task.main
    value, low, high = (None, None, None) if right is None else (right.value, right.low, right.high)
    measured = Quality(texts.main.value, value, low, high, model.digest)
    return measured, texts.rows


def loss_of(before: Sequence[Row], after: Sequence[Row]) -> QualityLoss:
    """Measure the loss on the texts that both have read. Raises ConfigError if there are none."""
    lost = forgetting(_texts(before), _texts(after))
    return QualityLoss(lost.relative.value, lost.relative.interval.low, lost.relative.interval.high, lost.n)


def pace(
    model: LanguageModel, original: LanguageModel, text: Sequence[int], settings: MeasureSettings,
    check: Callable[[str], None] = lambda _where: None,
) -> ServedStepTimer:  # fmt: skip
    """Time a model's writing after a text (over `tokens` ids), by turns with the original; `check`, called before each, may raise."""
    turns: list[tuple[tuple[float, Energy], tuple[float, Energy]]] = []
    for one in (original, model):  # the first reading from the disk counts for neither
        _turn(one, text, 4)
    for number in range(settings.turns):
        check(f"before turn {number + 1} of {settings.turns}")
        turns.append((_turn(original, text, settings.tokens), _turn(model, text, settings.tokens)))
    whole = NOTHING
    for _, (_, energy) in turns:
        whole = whole + energy
    count = settings.tokens * settings.turns
    speeds = [theirs[0] / mine[0] for theirs, mine in turns]
    joules = [mine[1].joules / theirs[1].joules for theirs, mine in turns if theirs[1].joules]
    return ServedStepTimer(
        settings.tokens / statistics.median(mine[0] for _, mine in turns), whole.joules / count, whole.low / count, whole.high / count,
        whole.source, statistics.median(speeds), min(speeds), max(speeds), statistics.median(joules) if joules else 1.0,
    )  # fmt: skip


def _turn(model: LanguageModel, text: Sequence[int], tokens: int) -> tuple[float, Energy]:
    """(seconds, joules) of so many tokens, one after the other, after as many of the text."""
    state = model.backend.new_state()
    prefill(model.backend, text[:tokens], state)
    span, began = Span(open_meter()), time.perf_counter()
    for index in range(tokens):
        model.backend.forward([Segment(state, [text[index % len(text)]], "last", adapter=model.adapter)])
    return time.perf_counter() - began, span.end()


def _texts(rows: Sequence[Row]) -> dict[str, TextBits]:
    keys = TextBits.__dataclass_fields__
    return {str(row["asked"]): TextBits(**{key: row[key] for key in keys}) for row in rows}
