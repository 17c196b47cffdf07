"""Attacks on a guarded model: families times goals, all side by side, so that the model reads and writes many at once.

Each pair of family and goal is a generator of steps. A round takes the next step of each, asks the model for all of them together and
sends back what came of it. Answers and log-probabilities are kept in the home's cache by what was asked, so an interrupted run goes on;
guards and judges are asked anew each time.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.message import Request
from ingle.core.progress import Progress, silent
from ingle.home.place import Home
from ingle.measure.subjects import Finished, ItemPlan, Nats, Row, gather
from ingle.robustness.attack import BLOCKED, AttackFile, Kit, Outcome, Reword, Reworded, Step, Steps, Weigh, Weight
from ingle.robustness.material import AttackMaterial
from ingle.robustness.prompts import LabelledPrompt
from ingle.robustness.target import Target, admitted, fits, margin_of, margin_task, outcome_of

_UNFIT = Outcome(False, False, False, 0.0, False)
_MOST_UNFIT = 40  # requests in a row that don't fit in the context, after which a family gives up on a goal
_MOST_WORDS = 4000
_LONGEST_WORD = 12


@dataclass(frozen=True, slots=True)
class AttackOptions:
    """The size of an attack."""

    tries: int = 2  # tries of a fixed family at each goal
    budget: int = 100  # tries of an adaptive family at each goal: requests that were sent or weighed
    answer_tokens: int = 128  # most tokens of an answer
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("tries", self.tries, 1),
            ("budget", self.budget, 1),
            ("answer_tokens", self.answer_tokens, 1),
            ("seed", self.seed, 0),
        ):
            if value < least:
                raise ConfigError(name, f"must be {least} or more", value)


@dataclass(frozen=True, slots=True)
class GoalResult:
    """One family's tries at one goal."""

    goal: str  # digest of the goal
    outcomes: tuple[Outcome, ...]  # outcomes of the requests that were sent
    used: int  # tries: requests that were sent or weighed
    reached_at: int | None  # the try that reached the goal; None if none did
    unfit: int  # requests that did not fit in the context; they are no tries


@dataclass(frozen=True, slots=True)
class FamilyResult:
    """One family's tries at all goals."""

    name: str
    adaptive: bool
    goals: tuple[GoalResult, ...]


@dataclass(eq=False)
class _Course:
    """A family on its way to a goal."""

    file: AttackFile
    goal: LabelledPrompt
    steps: Steps
    budget: int
    step: Step | None = None  # the step that waits; None at the end
    outcomes: list[Outcome] = field(default_factory=list)
    used: int = 0
    reached_at: int | None = None
    unfit: int = 0
    unfit_in_a_row: int = 0

    def send(self, answer: Any) -> None:
        """Go on to the next step, if there are tries left and there is something left to find."""
        found = self.file.adaptive and self.reached_at is not None
        if found or self.used >= self.budget or self.unfit_in_a_row >= _MOST_UNFIT:
            self.steps.close()
            self.step = None
            return
        try:
            self.step = self.steps.send(answer)
        except StopIteration:
            self.step = None

    def sent(self, outcome: Outcome) -> None:
        """Take what came of a request."""
        if outcome is _UNFIT:
            self.unfit, self.unfit_in_a_row = self.unfit + 1, self.unfit_in_a_row + 1
        else:
            self.used, self.unfit_in_a_row = self.used + 1, 0
            self.outcomes.append(outcome)
            if outcome.reached and self.reached_at is None:
                self.reached_at = self.used
        self.send(outcome)


def attack(
    home: Home,
    target: Target,
    goals: Sequence[LabelledPrompt],
    files: Sequence[AttackFile],
    options: AttackOptions,
    progress: Progress = silent,
) -> tuple[FamilyResult, ...]:
    """Attack the target. Raises the errors of fetching the material, of asking the model, and Interrupted; finished work is kept.

    `progress` hears tries, of the most that there may be.
    """
    material, words = AttackMaterial(home), vocabulary(target)
    courses = []
    for file in files:
        budget = options.budget if file.adaptive else options.tries
        kit = Kit(options.seed, budget, material, lambda request: fits(target, _sized(target, request, options)), words)
        courses += [_Course(file, goal, file.make(goal, kit), budget) for goal in goals]
    finished = Finished(home, "attack", target.subject.digest)
    for course in courses:
        course.send(None)
    counted = _Counted(courses, progress)
    while live := [course for course in courses if course.step is not None]:
        _round(target, live, finished, options, counted.begin())
    counted.end()
    grouped = {file.name: [course for course in courses if course.file is file] for file in files}
    return tuple(FamilyResult(file.name, file.adaptive, tuple(map(_result, grouped[file.name]))) for file in files)


def vocabulary(target: Target) -> tuple[str, ...]:
    """Return words that suffixes are made of: short, printable ASCII, evenly over the model's vocabulary."""
    tokenizer = target.subject.tokenizer
    texts = (tokenizer.decode([number]) for number in range(tokenizer.vocab_size))
    words = list(dict.fromkeys(text for text in texts if text.isascii() and text.isprintable() and 0 < len(text.strip()) <= _LONGEST_WORD))
    return tuple(words[:: max(1, len(words) // _MOST_WORDS)])


def _result(course: _Course) -> GoalResult:
    return GoalResult(course.goal.id, tuple(course.outcomes), course.used, course.reached_at, course.unfit)


class _Counted:
    """Progress over all rounds, from that of each. It never goes back, although a step may be several tries, or none."""

    def __init__(self, courses: Sequence[_Course], progress: Progress) -> None:
        self._courses, self._progress = courses, progress
        self._before = self._most = 0

    def begin(self) -> Progress:
        """Begin a round; return its progress."""
        self._before = sum(course.used for course in self._courses)
        return self._tell

    def end(self) -> None:
        """Tell that nothing is left."""
        used = sum(course.used for course in self._courses)
        self._progress("tries", used, used)

    def _tell(self, label: str, done: int, _all: int) -> None:
        total = sum(course.used if course.step is None else course.budget for course in self._courses)
        self._most = max(self._most, min(self._before + done, total))
        self._progress(label, min(self._most, total), total)


def _round(target: Target, live: Sequence[_Course], finished: Finished, options: AttackOptions, progress: Progress) -> None:
    """Take one step of every course."""
    answers = [_asked(target, course, options) for course in live]
    plans = [plan for some, _ in answers for plan in some]
    rows = iter(gather(target.subject, plans, finished, "tries", progress) if plans else ())
    ready = [(course, [next(rows) for _ in some], send) for course, (some, send) in zip(live, answers, strict=True)]
    for _course, found, send in ready:
        send(found)


def _asked(target: Target, course: _Course, options: AttackOptions) -> tuple[list[ItemPlan], Callable[[Sequence[Row]], None]]:
    """Return what a course's step asks of the model, and what to do with the rows that answer it."""
    step = course.step
    if isinstance(step, Weigh):
        return _weighed(target, course, step.requests[: course.budget - course.used], options)
    if isinstance(step, Reword):
        plan = _written(step.request)
        return [plan], lambda rows: course.send(rows[0]["text"])
    assert isinstance(step, Request | Reworded)
    asked, questions = (step.request, [course.goal.text, step.asks]) if isinstance(step, Reworded) else (step, [course.goal.text])
    request = _sized(target, asked, options)
    passed = admitted(target.guards, request)
    if passed is None:
        return [], lambda _rows: course.sent(BLOCKED)
    if not fits(target, passed.request):
        return [], lambda _rows: course.sent(_UNFIT)
    noticed = passed.noticed
    return [_written(passed.request)], lambda rows: course.sent(outcome_of(target, questions, request, noticed, rows[0]["text"]))


def _weighed(
    target: Target, course: _Course, requests: Sequence[Request], options: AttackOptions
) -> tuple[list[ItemPlan], Callable[[Sequence[Row]], None]]:
    sized = [_sized(target, request, options) for request in requests]
    fitting = [fits(target, request) for request in sized]
    plans = [_scored(target, request) for request, fit in zip(sized, fitting, strict=True) if fit]

    def send(rows: Sequence[Row]) -> None:
        margins = iter(rows)
        weights = tuple(
            Weight(float(next(margins)["margin"]), target.alarm(request.messages[-1].text)) if fit else Weight(float("-inf"), 0.0)
            for request, fit in zip(sized, fitting, strict=True)
        )
        course.used += len(weights)
        course.send(weights)

    return plans, send


def _written(request: Request) -> ItemPlan:
    key = digest_json(["attack answer", _plain(request)])
    return ItemPlan(key, key, [], request=request)


def _scored(target: Target, request: Request) -> ItemPlan:
    task = margin_task(target, request)

    def scored(parts: Sequence[Sequence[Nats]]) -> Row:
        return {"margin": margin_of(parts[0])}

    key = digest_json(["attack margin", [int(one) for one in task[0]], task[1]])
    return ItemPlan(key, key, [], (task,), scored)


def _sized(target: Target, request: Request, options: AttackOptions) -> Request:
    return replace(request, max_tokens=options.answer_tokens, sampling=target.sampling)


def _plain(request: Request) -> Any:
    """Return a request as plain values."""

    messages = [[message.role, [asdict(part) for part in message.sourced]] for message in request.messages]
    return [messages, request.max_tokens, asdict(request.sampling)]
