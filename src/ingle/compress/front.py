"""Figures of a model as it is served, and the front: the models that no other beats in loss and cost."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from ingle.core.config import Count, check_bounds
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.core.progress import FetchProgress, Progress
from ingle.energy.meter import Span, open_meter
from ingle.energy.totals import HEIGHT, WIDTH, Box, Shape, Words, png, svg
from ingle.engine.answer import write
from ingle.engine.backend import Segment, prefill
from ingle.engine.language_model import LanguageModel
from ingle.engine.scoring import score
from ingle.home.place import Home
from ingle.measure.figures import TextBits, forgetting
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.subjects import Row, Subject
from ingle.measure.suites import find_suite, find_texts

# Figures of a model as it is served: predictions, speed, energy and size.
#
# Speed and joules are measured by turns with those of the original, token by token after the same text. Times on a machine drift, so the
# figure is the median of the ratios of neighbouring turns.


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """Settings of comparing models."""

    texts: str = "wiki-bits"  # suite of texts: bits per byte
    text_items: Count = 40  # number of texts
    # Suite of questions: accuracy. Empty = none.
    task: str = "hellaswag"
    task_items: Count = 100  # number of questions
    tokens: Count = 96  # tokens that are written in a turn, after as many that are read
    turns: Count = 5  # turns of each of the two models

    def __post_init__(self) -> None:
        check_bounds(self, "measure.")
        find_texts(self.texts, "measure.texts")
        if self.task and find_suite(self.task).kind != "choice":
            raise ConfigError("measure.task", "must be a suite with answers to choose from", self.task, "For example hellaswag.")


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of a model's predictions."""

    bits_per_byte: float
    accuracy: float | None  # share of right answers; None without a task
    accuracy_low: float | None
    accuracy_high: float | None
    digest: str  # digest of the model as it answers


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

    tokens_per_s: float  # speed of the median turn
    joules_per_token: float  # mean over all turns
    joules_low: float
    joules_high: float
    energy_source: str  # source of the joules, see `core.energy`
    speed: float  # tokens/s over the original's: the median ratio of neighbouring turns
    speed_low: float  # the smallest of these ratios
    speed_high: float  # the largest of these ratios
    joules: float  # joules per token over the original's: likewise the median ratio


def subject_of(model: LanguageModel, stopped: Callable[[], bool]) -> Subject:
    """Bind an open model to the functions that measures ask for."""
    backend = model.backend
    scorer, writer = partial(score, backend, stopped=stopped, adapter=model.adapter), partial(write, model, stopped=stopped)
    return Subject(model.name, model.digest, backend.config.context_length, model.tokenizer, scorer, writer)


def quality(
    home: Home, model: LanguageModel, settings: MeasureSettings, stopped: Callable[[], bool], progress: Progress, fetching: FetchProgress
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


# Front of a search: the models that no other beats in loss and cost, the best within a budget, and a picture of them.


Goal = Literal["joules", "size", "speed"]
GOALS: tuple[Goal, ...] = get_args(Goal)
AXES: Mapping[Goal, str] = {"joules": "joules per token", "size": "MB", "speed": "seconds per token"}
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 40, 46
_ON, _OFF, _CHOSEN, _GRID = "#c2410c", "#a8a29e", "#15803d", "#dddddd"


@dataclass(frozen=True, slots=True)
class Tried:
    """A model that was tried, with its figures."""

    recipe: str  # its recipe; empty for the original
    quality: Quality
    loss: QualityLoss
    pace: ServedStepTimer
    mb: float  # packed weights, 10⁶ bytes
    mb_before: float  # MB of the original

    def cost(self, goal: Goal) -> float:
        """Cost as a multiple of the original's: below 1 is a gain."""
        return {"joules": self.pace.joules, "size": self.mb / self.mb_before, "speed": 1 / self.pace.speed}[goal]


def front(points: Sequence[Tried], goal: Goal) -> list[Tried]:
    """Points that no other beats in both loss and cost, by cost."""
    unbeaten: list[Tried] = []
    for point in sorted(points, key=lambda one: (one.cost(goal), one.loss.percent)):
        if not unbeaten or point.loss.percent < unbeaten[-1].loss.percent:
            unbeaten.append(point)
    return unbeaten


def best(points: Sequence[Tried], goal: Goal, most_loss_percent: float) -> Tried:
    """Return the cheapest point within this loss, the original not among them.

    Raises ConfigError, with the nearest, if none of these is cheaper than the original.
    """
    tried = [point for point in points if point.recipe]
    fitting = [point for point in tried if point.loss.percent <= most_loss_percent and point.cost(goal) < 1]
    if fitting:
        return min(fitting, key=lambda one: one.cost(goal))
    gaining = [point for point in tried if point.cost(goal) < 1]
    where = f"a loss of {most_loss_percent:g} % for fewer {AXES[goal]}"
    if not gaining:
        least = min(tried, key=lambda one: one.cost(goal), default=None)
        got = "none was tried" if least is None else f"{least.recipe} comes to {least.cost(goal):.2f} times the original's"
        raise ConfigError("--quality-loss", f"can't buy {where}: nothing that was tried costs less", got, "Keep the model as it is.")
    near = min(gaining, key=lambda one: one.loss.percent)
    got = f"the nearest is {near.recipe}: {near.loss.percent:+.2f} % at {near.cost(goal):.2f} times the original's"
    cure = f"Allow it: --quality-loss {math.ceil(100 * near.loss.percent) / 100:.2f}%; or give it time to recover: --recover 30."
    raise ConfigError("--quality-loss", f"can't buy {where}", got, cure)


def rows(points: Sequence[Tried], goal: Goal, chosen: Tried | None) -> list[tuple[str, ...]]:
    """Rows for people, by cost: recipe, loss, accuracy, joules per token, MB, tokens/s, and whether it is chosen or on the front."""
    good, table = front(points, goal), list[tuple[str, ...]]()
    for point in sorted(points, key=lambda one: one.cost(goal)):
        right = point.quality.accuracy
        table.append((
            point.recipe or "as it is", f"{point.loss.percent:+.2f} % ({point.loss.low:+.2f} … {point.loss.high:+.2f})",
            "" if right is None else f"{right:.3f}", f"{point.pace.joules_per_token:.3g} (×{point.pace.joules:.2f})",
            f"{point.mb:.0f}", f"{point.pace.tokens_per_s:.0f} (×{point.pace.speed:.2f})",
            "chosen" if point is chosen else "front" if point in good else "",
        ))  # fmt: skip
    return table


def draw(path: Path, title: str, points: Sequence[Tried], goal: Goal, most_loss_percent: float, chosen: Tried | None) -> None:
    """Draw the picture: cost along, loss up. Raises ConfigError for a kind of file that can't be drawn, HomeError."""
    kind = path.suffix.lower()
    if kind not in (".svg", ".png"):
        raise ConfigError("--plot", "must be a file that ends in .svg or .png", path.name)
    shapes = list(_shapes(title, points, goal, most_loss_percent, chosen))
    write_atomic(path, svg(shapes).encode() if kind == ".svg" else png(shapes))


def _shapes(title: str, points: Sequence[Tried], goal: Goal, budget: float, chosen: Tried | None) -> Iterator[Shape]:
    yield Words(_LEFT, 20, title)
    good, across, down = front(points, goal), WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    costs = [point.cost(goal) for point in points]
    left, right = min(costs) - 0.02, max(costs) + 0.02
    # A point that lost far more than is allowed would flatten all the others: it stands at the upper edge.
    top = min(max(point.loss.percent for point in points), max(4 * budget, 1.0)) * 1.1
    bottom = min(0.0, *(point.loss.percent for point in points)) - 0.02 * top

    def place(cost: float, loss: float) -> tuple[float, float]:
        up = (min(max(loss, bottom), top) - bottom) / (top - bottom)
        return _LEFT + across * (cost - left) / (right - left), HEIGHT - _BOTTOM - down * up

    for i in range(5):
        loss, cost = bottom + (top - bottom) * i / 4, left + (right - left) * i / 4
        x, y = place(cost, loss)
        yield Box(_LEFT, y, across, 0, _GRID)
        yield Words(_LEFT - 6, y + 4, f"{loss:+.1f} %", "end")
        yield Words(x, HEIGHT - _BOTTOM + 18, f"{cost:.2f}", "middle")
    yield Words(_LEFT + across / 2, HEIGHT - 8, f"{AXES[goal]}, times the original's", "middle")
    if budget < top:
        yield Box(_LEFT, place(left, budget)[1], across, 1, _CHOSEN)
    for point in points:
        x, y = place(point.cost(goal), point.loss.percent)
        colour = _CHOSEN if point is chosen else _ON if point in good else _OFF
        yield Box(x - 4, y - 4, 8, 8, colour)
        if point in good or point is chosen:
            name = (point.recipe or "as it is") + (f", at {point.loss.percent:+.0f} %" if point.loss.percent > top else "")
            yield Words(min(x + 7, WIDTH - _RIGHT), y - 6, name, "end" if x > _LEFT + 0.7 * across else "start")


def to_table(point: Tried) -> dict[str, Any]:
    """Return plain values."""
    from ingle.core.config import to_table as plain

    table: dict[str, Any] = plain(point)
    return table | {"costs": {goal: point.cost(goal) for goal in GOALS}}
