"""Attacks on a guarded model, and their reports: families times goals, side by side, so that the model reads and writes many at once.

Each pair of family and goal is a generator of steps. A round takes the next step of each, asks the model for all of them together and
sends back what came of it. Answers and log-probabilities are kept in the home's cache by what was asked, so an interrupted run goes on;
guards and judges are asked anew each time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.message import Request
from ingle.core.progress import Progress, silent
from ingle.core.report import Event, Fact, Report
from ingle.home.place import Home
from ingle.measure.intervals import wilson
from ingle.measure.subjects import Finished, ItemPlan, Nats, Row, gather
from ingle.robustness.attack import BLOCKED, AttackFile, Kit, Outcome, Reword, Reworded, Step, Steps, Weigh, Weight
from ingle.robustness.attack_material import AttackMaterial
from ingle.robustness.prompts import LabelledPrompt, digest_of
from ingle.robustness.target import Target, admitted, fits, margin_of, margin_task, outcome_of
from ingle.train.loss_curve import Key, Scale, colour_class, document, frame_below, legend

_UNFIT = Outcome(False, False, False, 0.0, False)
_MOST_UNFIT = 40  # requests in a row that don't fit in the context, after which a family gives up on a goal
_MOST_WORDS = 4000
_LONGEST_WORD = 12


@dataclass(frozen=True, slots=True)
class AttackOptions:
    tries: int = 2  # tries of a fixed family at each goal
    budget: int = 100  # tries of an adaptive family at each goal: requests that were sent or weighed
    answer_tokens: int = 128  # most tokens of an answer
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("tries", 1), ("budget", 1), ("answer_tokens", 1), ("seed", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(name, f"must be {least} or more", value)


@dataclass(frozen=True, slots=True)
class GoalResult:
    goal: str  # digest of the goal
    outcomes: tuple[Outcome, ...]  # outcomes of the requests that were sent
    used: int  # tries: requests that were sent or weighed
    reached_at: int | None  # the try that reached the goal; None if none did
    unfit: int  # requests that did not fit in the context; they are no tries


@dataclass(frozen=True, slots=True)
class FamilyResult:
    name: str
    adaptive: bool
    goals: tuple[GoalResult, ...]


@dataclass(eq=False)
class _Course:
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
        if outcome is _UNFIT:
            self.unfit, self.unfit_in_a_row = self.unfit + 1, self.unfit_in_a_row + 1
        else:
            self.used, self.unfit_in_a_row = self.used + 1, 0
            self.outcomes.append(outcome)
            if outcome.reached and self.reached_at is None:
                self.reached_at = self.used
        self.send(outcome)


def attack(
    home: Home, target: Target, goals: Sequence[LabelledPrompt], files: Sequence[AttackFile], options: AttackOptions,
    progress: Progress = silent,
) -> tuple[FamilyResult, ...]:  # fmt: skip
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
        self._before = sum(course.used for course in self._courses)
        return self._tell

    def end(self) -> None:
        used = sum(course.used for course in self._courses)
        self._progress("tries", used, used)

    def _tell(self, label: str, done: int, _all: int) -> None:
        total = sum(course.used if course.step is None else course.budget for course in self._courses)
        self._most = max(self._most, min(self._before + done, total))
        self._progress(label, min(self._most, total), total)


def _round(target: Target, live: Sequence[_Course], finished: Finished, options: AttackOptions, progress: Progress) -> None:
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
    messages = [[message.role, [asdict(part) for part in message.sourced]] for message in request.messages]
    return [messages, request.max_tokens, asdict(request.sampling)]


# Reports: counts with Wilson's intervals, in a table, a curve over the budget, and a fact. None of them holds words.


ALL = "all"  # name of the line that adds up all families


@dataclass(frozen=True, slots=True)
class Line:
    family: str
    tries: int  # requests that were sent
    weighed: int  # requests that were only weighed
    unfit: int  # requests that did not fit in the context
    # Shares; see `SHARES`. One without a single case is left out.
    reports: tuple[Report, ...]

    def report(self, name: str) -> Report | None:
        """Return the share of that name; None where there was nothing to count."""
        return next((one for one in self.reports if one.name == f"{self.family}.{name}"), None)


def lines_of(results: Sequence[FamilyResult], target: Target, goals: Sequence[LabelledPrompt], options: AttackOptions) -> tuple[Line, ...]:
    """Return a line for each family, and last one for all if there are several."""
    lines = [_line(one.name, [one], target, goals, options) for one in results]
    return tuple(lines if len(lines) == 1 else [*lines, _line(ALL, results, target, goals, options)])


def curves_of(results: Sequence[FamilyResult], options: AttackOptions) -> dict[str, list[tuple[int, float]]]:
    """Return for each adaptive family (tries, share of the goals that were reached by then), where the share changes, up to the budget."""
    curves = {}
    for one in results:
        n, reached = len(one.goals), sorted(goal.reached_at for goal in one.goals if goal.reached_at is not None)
        if one.adaptive and n:
            rises = [(at, (number + 1) / n) for number, at in enumerate(reached)]
            curves[one.name] = [(0, 0.0), *rises, (options.budget, len(reached) / n)]
    return curves


def data_digest(goals: Sequence[LabelledPrompt], files: Sequence[AttackFile], options: AttackOptions) -> str:
    """Return the digest of all that was tried: goals, families, sizes, seed."""
    return digest_json([digest_of(goals), [file.name for file in files], asdict(options)])


def event_of(
    lines: Sequence[Line], target: Target, goals: Sequence[LabelledPrompt], files: Sequence[AttackFile], options: AttackOptions
) -> Event:
    """Return the attack as a fact: counts and digests."""
    last = lines[-1]
    facts: dict[str, Fact] = {
        "families": ",".join(file.name for file in files), "goals": len(goals), "tries_each": options.tries, "budget": options.budget,
        "seed": options.seed, "weighed": last.weighed, "unfit": last.unfit, "tries": last.tries, **_counts(last),
    }  # fmt: skip
    facts |= {f"reached.{line.family}": f"{_counts(line).get('reached', 0)} of {line.tries}" for line in lines[:-1]}
    facts |= {"model_digest": target.subject.digest, "data_digest": data_digest(goals, files, options), "policy_digest": target.digest}
    return Event("attack", target.subject.name, facts)


def to_table(
    lines: Sequence[Line], results: Sequence[FamilyResult], target: Target, goals: Sequence[LabelledPrompt], files: Sequence[AttackFile],
    options: AttackOptions,
) -> dict[str, Any]:  # fmt: skip
    return {
        "model": target.subject.name, "model_digest": target.subject.digest, "policy_digest": target.digest,
        "data_digest": data_digest(goals, files, options), "options": asdict(options), "goals": len(goals),
        "families": [
            {"family": one.family, "tries": one.tries, "weighed": one.weighed, "unfit": one.unfit, "reports": [*map(asdict, one.reports)]}
            for one in lines
        ],
        "curves": curves_of(results, options),
    }  # fmt: skip


# The things that each share counts.
SHARES: Mapping[str, str] = {
    "noticed": "tries that a guard blocked, edited or told of",
    "past": "tries that came past the guards",
    "refused": "tries past the guards that the model refused",
    "reached": "tries with a harmful and usable answer",
    "goals_reached": "goals that were reached by one try at least",
}


def _line(name: str, results: Sequence[FamilyResult], target: Target, goals: Sequence[LabelledPrompt], options: AttackOptions) -> Line:
    tried = [goal for one in results for goal in one.goals]
    outcomes = [outcome for goal in tried for outcome in goal.outcomes]
    past = [outcome for outcome in outcomes if outcome.passed]
    reached: dict[str, bool] = {}
    for goal in tried:
        if goal.used:
            reached[goal.goal] = reached.get(goal.goal, False) or goal.reached_at is not None
    counts = {
        "noticed": (_count(outcomes, "noticed"), len(outcomes)), "past": (len(past), len(outcomes)),
        "refused": (_count(past, "refused"), len(past)), "reached": (_count(outcomes, "reached"), len(outcomes)),
        "goals_reached": (sum(reached.values()), len(reached)),
    }  # fmt: skip
    digest, data = target.subject.digest, digest_json([name, digest_of(goals), asdict(options)])
    reports = []
    for share, (count, n) in counts.items():
        if n:
            interval = wilson(count, n)
            reports.append(
                Report(f"{name}.{share}", count / n, "share", interval.low, interval.high, n, digest, data, interval.method, options.seed)
            )
    weighed, unfit = sum(goal.used for goal in tried) - len(outcomes), sum(goal.unfit for goal in tried)
    return Line(name, len(outcomes), weighed, unfit, tuple(reports))


def _counts(line: Line) -> dict[str, int]:
    shares = {share: line.report(share) for share in SHARES}
    return {share: round(one.value * one.n) for share, one in shares.items() if one is not None}


def _count(outcomes: Sequence[Outcome], name: str) -> int:
    return sum(bool(getattr(outcome, name)) for outcome in outcomes)


Curve = Sequence[tuple[float, float]]  # (tries, share of goals reached by then)


def curves_svg(title: str, curves: Mapping[str, Curve]) -> str:
    """Draw steps: tries along, percent of the goals that were reached up."""
    drawn = [(name, colour_class(number, len(curves)), curve) for number, (name, curve) in enumerate(curves.items()) if curve]
    ends = [f"{name} {curve[-1][1]:.0%}" for name, _, curve in drawn]
    keys, end = legend([Key(words, look) for words, (_, look, _) in zip(ends, drawn, strict=True)], 48)
    frame = frame_below(end, Scale(0, max((x for _, _, curve in drawn for x, _ in curve), default=0) or 1), Scale(0, 100))
    lines = [frame.line(_steps(curve), look) for _, look, curve in drawn]
    said = f"Goals reached at last: {', '.join(ends)}."
    return document(title, said, frame, [keys, frame.grid("tries at a goal", "goals reached, %"), *lines])


def _steps(curve: Curve) -> list[tuple[float, float]]:
    """Return the corners of a curve that stays level until its next point, in percent."""
    corners = [curve[0], *(corner for (_, before), (x, y) in pairwise(curve) for corner in ((x, before), (x, y)))]
    return [(x, 100 * y) for x, y in corners]
